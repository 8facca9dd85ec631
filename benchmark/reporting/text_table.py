"""Tables of plain text."""

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from ..escaping import markdown


def text_table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    align: str,
    style: str = "simple",
    widths: Sequence[int | None] | None = None,
) -> str:
    """Return rows as an aligned table.

    Args:
        align: One letter per column, l or r.
        style: "simple" for the terminal, "markdown", which escapes the cells, or a format of tabulate, with cells as
            they are.
        widths: Most characters per column, beyond which a cell is wrapped.
    """
    sides = [{"l": "left", "r": "right"}[letter] for letter in align]
    if style == "markdown":
        head, *rows = [[markdown(str(cell)) for cell in row] for row in (head, *rows)]
        style = "pipe"
    return tabulate(rows, head, style, disable_numparse=True, colalign=sides, maxcolwidths=widths)
