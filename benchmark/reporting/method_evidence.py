"""The proof of each method's grade of evidence: `methods/evidence.csv`, read without importing torch."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).resolve().parents[2] / "methods" / "evidence.csv"


@dataclass(frozen=True)
class MethodEvidence:
    """How one method was verified, and by what; `methods/base.py` describes the grades."""

    grade: str
    sources: tuple[str, ...]
    """The code that was compared with, as owner/name@commit on GitHub."""
    cases: tuple[str, ...]
    """Cases in tests/golden/methods, or files in tests/methods that implement the paper's equations."""
    trajectories: tuple[str, ...]
    """Files in tests/golden/trajectories, without `.json`."""

    def __str__(self) -> str:
        return f"{self.grade} ({', '.join(self.sources)})" if self.sources else self.grade

    @property
    def short(self) -> str:
        """Return the grade; a reference implementation with its repositories, without owner and commit."""
        names = ", ".join(source.partition("@")[0].partition("/")[2] for source in self.sources)
        return f"{self.grade} ({names})" if self.grade == "reference implementation" else self.grade


@cache
def load() -> dict[str, MethodEvidence]:
    """Read the table: registered name -> evidence; plug-ins are not in it."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {
            line.pop("method"): MethodEvidence(line.pop("grade"), *(tuple(names.split()) for names in line.values()))
            for line in csv.DictReader(file)
        }
