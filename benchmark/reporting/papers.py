"""The papers of the methods: `methods/papers.bib`, read without importing torch."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..spec import MethodRef

BIBTEX = Path(__file__).resolve().parents[2] / "methods" / "papers.bib"


@dataclass(frozen=True)
class Reference:
    """The publication of a method, and where to find it."""

    key: str
    """Key of the entry, for `\\cite`."""
    year: int
    arxiv: str
    """Number of the preprint; empty without one."""
    code: str
    """Official code, as owner/name on GitHub; empty without any."""


@cache
def load() -> dict[str, Reference]:
    """Read the references: registered name -> paper; plug-ins and baselines without a paper are not in it."""
    found = {}
    for key, body in re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", BIBTEX.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", body, re.MULTILINE))
        reference = Reference(key, int(fields["year"]), fields.get("eprint", ""), fields.get("code", ""))
        found |= dict.fromkeys(fields["methods"].split(), reference)
    return found


def cited(method: MethodRef) -> list[str]:
    """Return the keys of a method's papers: of each part of a combination, and of the tuner that `hf` applies.

    A plug-in has none; one may even have the name of a method of the suite.
    """
    names = method.name.split("+")
    args = method.args if len(names) > 1 else {method.name: method.args}
    tuner = args["hf"].get("type") if isinstance(args.get("hf"), dict) else ""  # registered under peft's names
    known = [load()[name] for name in (str(tuner) if name == "hf" else name for name in names) if name in load()]
    are_all_known = len(known) == len(names)
    return [] if method.plugin and are_all_known else list(dict.fromkeys(reference.key for reference in known))
