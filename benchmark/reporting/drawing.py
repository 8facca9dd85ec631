"""How figures are drawn and written."""

from dataclasses import dataclass

FORMATS = ("svg", "pdf", "png")


@dataclass(frozen=True)
class Drawing:
    """Options of all figures; the defaults are those of the report."""

    formats: tuple[str, ...] = ("svg",)
    """Some of `FORMATS`."""
    title: bool = True
    """False to leave off the title and its space."""
    methods: tuple[str, ...] = ()
    """Labels of the only rows in figures and LaTeX tables, each with its name; empty: all rows."""


REPORT = Drawing()
FOR_PAPERS = Drawing(formats=("svg", "pdf"))
"""The figures of commands that draw one thing."""
