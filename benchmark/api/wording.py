"""Messages of the command line in the words of the Python API."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


def in_python(message: str) -> str:
    """Return a message with options as arguments: `--plugin FILE` as `plugin=FILE`; commands in backticks stay."""
    message = re.sub(r"--set (\w+)=(\S+)", r"set={'\1': \2}", message)
    return re.sub(r"(`[^`]*`)|(?<![\w.+-])--([a-z][a-z-]*)( [A-Z]+\b)?", _argument, message)


def _argument(found: re.Match[str]) -> str:
    command, option, value = found.groups(default="")
    return command or option.replace("-", "_") + value.replace(" ", "=")


@contextmanager
def python_wording() -> Iterator[None]:
    """Word the errors of the block for Python."""
    try:
        yield
    except Exception as error:
        error.args = tuple(in_python(part) if isinstance(part, str) else part for part in error.args)
        raise
