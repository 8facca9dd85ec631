"""What all figures share: widths, colours, and bytes that are the same each time.

Legible at the column width they are drawn for, in colours that colour-blind readers and grey printers can tell
apart, and byte-identical when rebuilt: fixed ids, no dates, matplotlib's own defaults whatever the user's are.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from ..boards import one_line
from ..leaderboards import Leaderboard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.9
"""Widths in inches of one column and of the whole page of a two-column paper."""
FRONT, OTHERS, INK = "#0072B2", "#8c8c8c", "#222222"
"""Blue of Okabe and Ito's colour-blind-safe palette (2008), and greys."""
PNG_DPI = 300
STYLE = {
    "figure.dpi": PNG_DPI,  # text is measured as it will be drawn
    "font.size": 7,
    "axes.titlesize": 6.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **{"xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.minor.width": 0.4, "ytick.minor.width": 0.4},
    **{"xtick.major.size": 3, "ytick.major.size": 3, "xtick.minor.size": 1.6, "ytick.minor.size": 1.6},
    "text.parse_math": False,  # names may hold dollar signs
    "svg.hashsalt": "vtab-peft",
    "svg.fonttype": "path",
}
LONGEST = 30
"""Characters of a name."""
LINE = 0.14
"""Inches from one name of a list to the next."""


@contextmanager
def own_style() -> Iterator[None]:
    """The project's style and no other, for drawing and for `images`."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)  # pyright: ignore[reportCallIssue, reportArgumentType]
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")  # a name in another script
        yield


def images(figure: "Figure") -> dict[str, bytes]:
    """svg and png."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", metadata={"Software": None}, dpi=PNG_DPI)
    return {"svg": svg.getvalue(), "png": png.getvalue()}


def text_width(names: list[str]) -> float:
    """Inches that the widest of some names takes at 6 points."""
    return max(map(_text_width, names))


@cache
def _text_width(name: str) -> float:
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), f"{name}.", 6).get_extents().x1) / 72


def title(board: Leaderboard) -> str:
    """Suite and backbone above, recipe and seeds below."""
    facts = board.board
    tuned = "tuned" if facts.tuned else "untuned"
    return one_line(f"{facts.suite} · {facts.backbone}") + "\n" + one_line(f"{facts.recipe}, {tuned}, {board.seeds}")


def write_title(figure: "Figure", board: Leaderboard) -> None:
    """In the upper left corner of a figure whose axes leave 0.32 inches for it."""
    width, height = figure.get_size_inches()
    figure.text(0.06 / width, 1 - 0.05 / height, title(board), va="top", fontsize=6.5, linespacing=1.3)
