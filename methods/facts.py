"""Facts of a method: class attributes that lists, tables and records show, and which values they may have."""

from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args

from .anatomy import FAMILIES
from .arguments import is_plain

Evidence = Literal[
    "authors' training", "authors' module", "reference implementation", "closed form", "paper only", "none"
]
"""How an implementation was verified, from the strongest grade to the weakest; `evidence.csv` names the proof of each.

authors' training: the loss of each training step equals that of the authors' code.
authors' module: outputs and gradients equal numbers computed with the authors' code.
reference implementation: the same, with code of others, such as Hugging Face peft.
closed form: the definition leaves no choice.
paper only: a test implements the paper's equations a second time and compares.
none: not verified, the default for plug-ins.
"""

EVIDENCE: tuple[str, ...] = get_args(Evidence)


@dataclass(frozen=True)
class Paper:
    """The publication of a method."""

    venue: str
    """Conference or journal, "arXiv" for a preprint."""
    year: int
    arxiv: str | None = None
    code: str | None = None
    """Official code, as owner/name on GitHub."""

    def __str__(self) -> str:
        return f"{self.venue} {self.year}"


LARGEST_VERSION = 2**31 - 1
"""Highest version of a method (ours)."""
OWN = ("title", "paper", "equation", "evidence", "differs")
"""Facts that lists and tables show.  A method of another file may compute something else and does not inherit them."""

TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("title", "equation", "targets", "differs"), ((str,), "valid text")),
    "paper": (
        (Paper, NoneType),
        "None or Paper(venue, year, arxiv, code), where the year is a number and the rest text",
    ),
    "evidence": ((str,), f"one of {', '.join(EVIDENCE)}"),
    "version": ((int,), f"a whole number from 1 to {LARGEST_VERSION}"),
    "copies": ((int,), "a whole number from 1"),
    "lr": ((int, float, NoneType), "a positive number or None"),
    "search": ((dict,), "a dictionary of tuples"),
    "backbones": ((tuple,), f"""a tuple of {" and ".join(f'"{family}"' for family in FAMILIES)}, or of one of them"""),
    "needs": ((str, NoneType), "the name of a package or None"),
    **dict.fromkeys(
        ("frozen_features", "starts_as_identity", "stands_for_many", "restores_without_examples", "needs_whole_batch"),
        ((bool,), "True or False"),
    ),
}
"""Class attributes of a method that reach records, tables or the plan: their types, and how messages name them."""


def wrong_fact(cls: Any) -> str | None:
    """Return what is wrong with a class attribute of a method, or None."""
    for name, (types, wanted) in TYPES.items():
        value = getattr(cls, name)
        if type(value) not in types or not _is_sound(name, value):
            return f"{name} must be {wanted}, not {value!r:.60}"
    return None


def _is_sound(name: str, value: Any) -> bool:
    """Return True for a value of the right type that tables and records can hold."""
    match value:
        case str():
            return is_plain(value) and (name != "evidence" or value in EVIDENCE)
        case bool() | None:
            return True
        case int() | float():
            return 0 < value <= LARGEST_VERSION
        case tuple():
            return len(value) > 0 and set(map(repr, value)) <= set(map(repr, FAMILIES))
        case Paper(venue, year, arxiv, code):
            return type(year) is int and all(
                type(text) is str and is_plain(text) for text in (venue, arxiv or "", code or "")
            )
        case _:
            return all(type(key) is str and isinstance(values, tuple) for key, values in value.items())


def without_inherited(cls: Any, defaults: Any) -> None:
    """Give a method the default of each fact in `OWN` that it would inherit from a class of another file."""
    for name in OWN:
        owner = next(base for base in cls.__mro__ if name in vars(base))
        if owner.__module__ != cls.__module__:
            setattr(cls, name, getattr(defaults, name))
