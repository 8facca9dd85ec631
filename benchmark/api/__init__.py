"""The functions of the Python API; the package `vtab_peft` exports them."""
