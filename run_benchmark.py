"""Launcher: `python run_benchmark.py VERB` is the same as the console script `vtab-peft VERB`."""

import sys

try:
    from vtab_peft.benchmark.cli import main
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "vtab_peft":
        sys.exit(f"{error.name} is missing from this Python ({sys.executable}).  Type: python3 -m pip install -e .")
    sys.exit(
        "vtab-peft is not installed in this Python.  Type one of\n"
        "    make benchmark                   set everything up in .venv and run a first benchmark\n"
        "    python3 -m pip install -e .      install into this Python\n"
        "and, after `make`, use .venv/bin/python run_benchmark.py or .venv/bin/vtab-peft"
    )

if __name__ == "__main__":
    sys.exit(main())
