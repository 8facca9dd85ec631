"""Checks of a method's class, which need no backbone, and warnings about what may be a slip."""

import difflib

from ...methods import Method, parse
from ...methods.base import method_name
from ...methods.facts import TYPES
from .tiny_models import Case, CheckFailed


def missing_facts(cls: type[Method]) -> list[str]:
    """Return the facts that lists and tables would show empty; these are warnings, not failures."""
    missing = [f"`{name}`" for name in ("title", "equation", "targets") if not getattr(cls, name)]
    missing += ["`evidence`"] * (cls.evidence == "none")
    return missing + ["a docstring"] * (not _first_line(cls))


def _first_line(cls: type[Method]) -> str:
    """Return the first docstring line, empty if `dataclass` generated it."""
    line = (cls.__doc__ or "").partition("\n")[0]
    return "" if line.startswith(f"{cls.__name__}(") else line


def likely_slips(cls: type[Method]) -> list[str]:
    """Return warnings about names that resemble a member of `Method`, and numbers that may be meant as arguments.

    Names in capitals or with an underscore in front are the class's own.
    """
    known = {name for base in cls.__bases__ for name in dir(base) if not name.startswith("_")}
    annotated = cls.__dataclass_fields__
    stated = {name for name, value in vars(cls).items() if value is not getattr(Method, name, None)}
    own = [name for name in vars(cls) if name not in {*known, *annotated} and name[0] != "_" and not name.isupper()]
    slips = []
    for name in own:
        value = getattr(cls, name)
        if near := difflib.get_close_matches(name.lower(), known - stated, n=1, cutoff=0.8):
            slips.append(f"the suite does not use `{name}`; did you mean `{near[0]}`? If not, call it `_{name}`")
        elif isinstance(value, int | float):
            field = f"{name}: {type(value).__name__} = {value!r}"
            slips.append(f"`{name}` is no argument; write `{field}` to make it one, or `{name.upper()}` if it is none")
    return slips


def check_class_attributes(case: Case) -> None:
    """Class attributes are no fields and have plausible values, and `search` holds only accepted values."""
    method, cls = case.method, type(case.method)
    year = cls.paper.year if cls.paper else 2017
    wrong = {
        **{f"`{name}` is annotated, which makes it a field": name in method.args() for name in TYPES},
        "the year of `paper` is before 2017": year < 2017,
        "the docstring's first line does not end with a period": not (_first_line(cls) or ".").endswith("."),
    }
    if any(wrong.values()):
        raise CheckFailed("; ".join(text for text, is_so in wrong.items() if is_so), "Correct it in the class")
    for field, values in method.search.items():
        for value in values:
            _parse(f"{method_name(cls)}({field}={value!r})", "`search` holds a value that is refused")


def check_spec_roundtrip(case: Case) -> None:
    """Parsing a method's spec string returns an equal method."""
    cls, method = type(case.method), case.method
    everything = ", ".join(f"{name}={value!r}" for name, value in method.args().items())
    for spec in (method.spec(), f"{method_name(cls)}({everything})"):
        if _parse(spec, "its own spec string is refused") != method:
            advice = "Do not change fields in `validate`; compute derived values in `inject`"
            raise CheckFailed(f"parsing {spec} returns a different method", advice)


def _parse(spec: str, found: str) -> Method:
    try:
        return parse(spec)
    except ValueError as error:
        raise CheckFailed(f"{found}: {error}", "Fields are numbers, text, None, or dictionaries of them") from None
