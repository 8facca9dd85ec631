"""Run the command line from a checkout: `python run_benchmark.py COMMAND` equals `vtab-peft COMMAND`."""

import sys

try:
    from vtab_peft.benchmark.cli import main
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "vtab_peft":
        sys.exit(f"{error.name} is not installed in this Python ({sys.executable}).  Run: python3 -m pip install -e .")
    sys.exit(
        "vtab-peft is not installed in this Python.  Run one of\n"
        "    make benchmark                   create .venv, install everything and run a first benchmark\n"
        "    python3 -m pip install -e .      install into this Python\n"
        "After `make`, use .venv/bin/python run_benchmark.py or .venv/bin/vtab-peft."
    )

if __name__ == "__main__":
    sys.exit(main())
