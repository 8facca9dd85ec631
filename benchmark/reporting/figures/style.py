"""Shared style and layout of the figures.

Text is legible at the column width of a paper, and colours are distinct for colour-blind readers and in grey.  Rebuilt
files are byte-identical: fixed SVG ids, no dates, matplotlib's defaults instead of the user's settings.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from ...escaping import one_line
from ..drawing import Drawing
from ..leaderboards import Leaderboard
from ..tables import cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.9
"""Widths in inches of one column and of the page of a two-column paper."""
BLUE, GREY, INK = "#0072B2", "#8c8c8c", "#222222"
"""Blue of the colour-blind-safe palette of Okabe and Ito (2008), and greys."""
PNG_DPI = 300
STYLE = {
    "figure.dpi": PNG_DPI,  # text is measured at the resolution of the PNG
    "font.size": 7,
    "axes.titlesize": 6.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **{"xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.minor.width": 0.4, "ytick.minor.width": 0.4},
    **{"xtick.major.size": 3, "ytick.major.size": 3, "xtick.minor.size": 1.6, "ytick.minor.size": 1.6},
    "text.parse_math": False,  # names may contain dollar signs
    "svg.hashsalt": "vtab-peft",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # TrueType, which publishers accept
}
LINE = 0.14
"""Height in inches of one line in a list of names."""
LINES_PER_PAGE = 55
"""Lines of names that fit on the page of a paper; longer lists are split into several figures."""
TITLE = "title"
"""SVG id of a title."""
TITLE_SIZE, TITLE_LINE, TOP = 6.5, 0.13, 0.05
"""Points of a title's letters, and inches of one of its lines and of the space above it."""
WITHOUT_DATE = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw and save in this module's style, independent of the user's settings."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)  # pyright: ignore[reportCallIssue, reportArgumentType]
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")  # names in other scripts
        yield


def images(figure: "Figure", drawing: Drawing) -> dict[str, bytes]:
    """Return the figure as format -> bytes."""
    from matplotlib.transforms import Bbox

    box, files = None, {name: io.BytesIO() for name in drawing.formats}
    width, height = figure.get_size_inches()
    titles = [text for text in figure.texts if text.get_gid() == TITLE]
    if not drawing.title:
        for text in titles:
            text.remove()
        box = Bbox.from_extents(0, 0, width, figure.get_tightbbox().y1 + 0.03)
    elif any(text.get_position()[1] > 1 for text in titles):
        box = Bbox.from_extents(0, 0, width, max(text.get_position()[1] for text in titles) * height + TOP)
    for name, file in files.items():
        figure.savefig(file, format=name, metadata=WITHOUT_DATE[name], dpi=PNG_DPI, bbox_inches=box)
    return {name: file.getvalue() for name, file in files.items()}


def image_files(figures: Mapping[str, "Figure | None"], drawing: Drawing) -> dict[str, bytes]:
    """Return file name -> bytes of named figures in all formats; None has no file."""
    return {
        f"{name}.{kind}": data
        for name, figure in figures.items()
        if figure is not None
        for kind, data in images(figure, drawing).items()
    }


def write_legend(
    figure: "Figure", handles: Sequence[Any], names: Sequence[str], columns: int, below: float, **style: Any
) -> None:
    """Write a legend in the upper left corner, `below` inches from the top."""
    width, height = figure.get_size_inches()
    figure.legend(
        *(handles, names),
        loc="upper left",
        bbox_to_anchor=(0.06 / width, 1 - below / height),
        ncols=columns,
        fontsize=6,
        frameon=False,
        **{"borderpad": 0, "borderaxespad": 0, "labelspacing": 0.25, "columnspacing": 1, "handletextpad": 0.5} | style,
    )


def pages(lines: int) -> list[slice]:
    """Split a list of names into parts of about the same length, each of which fits on a page."""
    size = -(-lines // max(1, -(-lines // LINES_PER_PAGE)))
    return [slice(start, start + size) for start in range(0, lines, max(1, size))]


def add_axes(figure: "Figure", left: float, bottom: float, width: float, height: float) -> "Axes":
    """Add axes at a position in inches."""
    total_width, total_height = figure.get_size_inches()
    return figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))


def add_text(figure: "Figure", x: float, y: float, text: str, **style: Any) -> None:
    """Write text at a position in inches, in 6 points unless `style` says otherwise."""
    width, height = figure.get_size_inches()
    figure.text(x / width, y / height, text, None, **{"fontsize": 6} | style)


def page_width(needed: float) -> float:
    """Return the narrowest of column, page and needed width that fits, in inches."""
    return next((width for width in (COLUMN, PAGE) if needed <= width), needed)


def short(name: str) -> str:
    """Shorten a name to one line of 30 characters."""
    return cut(one_line(name), 30)


def text_width(names: list[str]) -> float:
    """Return the width in inches of the widest name at 6 points."""
    return max(map(_text_width, names))


@cache
def _text_width(name: str) -> float:
    from matplotlib.textpath import TextPath

    path = TextPath((0, 0), f"{name}.", 6)
    return float(path.vertices[:, 0].max()) / 72  # the stop is a rectangle, so no curve ends the path


def title(leaderboard: Leaderboard) -> str:
    """Return two lines: suite and backbone, then recipe and seeds."""
    facts = leaderboard.id
    tuned = "tuned" if facts.tuned else "untuned"
    second = f"{facts.recipe}, {tuned}, {leaderboard.seeds}"
    return one_line(f"{facts.suite} · {facts.backbone}") + "\n" + one_line(second)


def write_title(figure: "Figure", subject: Leaderboard | str, note: str = "") -> None:
    """Write a title into the upper left corner; two lines need 0.32 inches above the axes.

    Lines that are too long are wrapped; further lines extend the written figure at the top.
    """
    text = (one_line(subject) if isinstance(subject, str) else title(subject)) + note
    width, height = figure.get_size_inches()
    lines = text.split("\n")
    wrapped = [part for line in lines for part in wrap(line, (width - 0.12) * 6 / TITLE_SIZE)]
    top = height - TOP + (len(wrapped) - len(lines)) * TITLE_LINE
    style = {"va": "top", "fontsize": TITLE_SIZE, "linespacing": 1.3, "gid": TITLE}
    add_text(figure, 0.06, top, "\n".join(wrapped), **style)


def wrap(line: str, width: float) -> list[str]:
    """Break a line behind spaces, commas and slashes into parts of at most `width` inches at 6 points."""
    if text_width([line]) <= width:
        return [line]
    lines = [""]
    for part in re.findall(r"(?:\d+ )?[^ ,/]{1,40}[ ,/]*|[ ,/]+", line):
        if lines[-1] and text_width([(lines[-1] + part).rstrip()]) > width:
            lines.append("")
        lines[-1] += part
    return [found.rstrip() for found in lines]
