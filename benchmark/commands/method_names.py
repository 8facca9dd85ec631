"""The names and titles of the suite's methods, without torch, which takes seconds to import."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ...datasets.task import nearest

SOURCES = Path(__file__).resolve().parents[2] / "methods"
DECLARATION = re.compile(r'^@method\("(\w+)"\)\nclass .*?^    title = "([^"]+)"', re.DOTALL | re.MULTILINE)


@cache
def titles_by_name() -> dict[str, str]:
    """Return name -> title, read from the sources of `methods/`."""
    return dict(pair for path in sorted(SOURCES.glob("*.py")) for pair in DECLARATION.findall(path.read_text("utf-8")))


def check_names(specs: Sequence[str]) -> None:
    """Refuse a method that does not exist, before a worker starts; the worker finds whatever else is wrong.

    Raises:
        ValueError: no method has this name or title; the message names the nearest.
    """
    titles = titles_by_name()
    known = {"all", *titles, *(title.casefold() for title in titles.values())}
    for spec in specs:
        name = spec.partition("(")[0].strip()
        if name.isidentifier() and not {name, name.casefold(), spec.strip().casefold()} & known:
            raise ValueError(
                f"no method {name!r}{nearest(name.casefold(), known)}. See `vtab-peft list methods`; one of your "
                "own needs its file: give it as --plugin FILE"
            )
