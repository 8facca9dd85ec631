r"""Escape text for where it goes: terminal, CSV, Markdown, LaTeX, HTML.

Names of methods, tasks, classes and files, error messages and answers of servers may come from anybody.  Each target
has one function here, and control characters are shown as their codes (`\x1b`) everywhere.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast

INVISIBLE = r"\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
"""Characters that reorder or hide text, line separators of Unicode, and bytes that are not UTF-8."""
_NOT_IN_LINES = re.compile(rf"[\x00-\x1f\x7f-\x9f{INVISIBLE}]")
_NOT_ON_TERMINALS = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{INVISIBLE}]")
_MOVES_OF_BARS = re.compile(r"\r|(\x1b\[A)+\Z")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def one_line(text: str) -> str:
    """Return text as one line with control characters and line breaks shown as codes, so that it fits into a table."""
    return " ".join(_shown(text).split())


def terminal(text: str) -> str:
    """Return text that cannot control a terminal; tabs and line breaks stay."""
    return _NOT_ON_TERMINALS.sub(_code, text)


def _shown(text: str) -> str:
    return _NOT_IN_LINES.sub(_code, text)


def _code(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]


class TerminalStream:
    """Text stream that escapes what is written; everything else is done by the stream behind it.

    On a terminal, progress bars (tqdm) may return to the start of the line and move up.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        moves = _MOVES_OF_BARS.match(text) if self._stream.isatty() else None
        start = moves.end() if moves else 0
        self._stream.write(text[:start] + terminal(text[start:]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


@contextmanager
def escaped_output() -> Iterator[None]:
    """Escape everything that the block prints to standard output and error, by whichever code."""
    import sys

    out, error = (cast("TextIO", TerminalStream(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(error):
        yield


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV.  Cells that a spreadsheet would execute as a formula get a leading apostrophe."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_csv_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def _csv_cell(value: Any) -> str:
    cell = _shown(str(value))
    return f"'{cell}" if cell[:1] in tuple("=+-@＝＋－＠") and not _NUMBER.fullmatch(cell) else cell


def markdown(text: str) -> str:
    """Escape one line of plain text for Markdown and HTML."""
    safe = _shown(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|*_`\[\]~$])", r"\\\1", safe)


LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"±": r"$\pm$", "·": r"$\cdot$", "×": r"$\times$", "—": "--", "…": r"\ldots{}"},
    **{"†": r"\dag{}", "²": r"$^2$", "³": r"$^3$"},
}
ACCENTED = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ"
"""Accented letters that LaTeX's default fonts have without further packages."""


def latex(text: str) -> str:
    """Escape one line of plain text for LaTeX; characters that its default fonts lack become a question mark."""
    return "".join(LATEX.get(c, c if c.isascii() or c in ACCENTED else "?") for c in _shown(text))


def html_json(data: Any) -> str:
    """Return JSON that cannot end its script element or start an HTML comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return re.sub(r"<(?=[/!]|script)", r"\\u003c", text, flags=re.IGNORECASE).translate(
        {0x2028: r"\u2028", 0x2029: r"\u2029"}
    )
