"""Print the tables of a command, and write them with a figure if the user asks for files."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..reporting.drawing import FOR_PAPERS
from ..reporting.figures.style import image_files, paper_style
from ..storage.json_io import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_tables(
    name: str, text: str, folder: Path | None, csv: str, markdown: str, draw: Callable[[], "Figure"]
) -> None:
    """Print a text; if there is a folder, write `<name>.csv`, `<name>.md` and the figure `<name>` there."""
    print(text)
    if folder is None:
        return
    with paper_style():
        figures = image_files({name: draw()}, FOR_PAPERS)
    for file, content in {f"{name}.csv": csv.encode(), f"{name}.md": markdown.encode(), **figures}.items():
        write_atomically(folder / file, content)
    print(f"tables and figure: {folder}", file=sys.stderr)
