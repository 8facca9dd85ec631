"""The papers of the methods: `methods/papers.bib`, read without importing torch."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
