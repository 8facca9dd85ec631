"""The report: everything people read, as a pure function of the stored runs.

    <out>/README.md                       index of the boards
    <out>/index.html                      the page: one file with everything in it
    <out>/boards/<slug>/leaderboard.csv   table.md  table.tex  significance.md
                        <figure>.svg/.png   those of `figures` that say something about the board
                        published.md        only if asked for, and papers print something beside the board

Rebuilding it gives the same bytes, whatever order the files are read in.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..storage.json_io import write_atomically
from ..storage.store import Store
from . import published, published_vs_measured
from .boards import Board, boards
from .html.content import Part
from .html.page import page
from .leaderboards import Leaderboard, leaderboard
from .markup import markdown, to_latex, to_markdown
from .significance import Significance, significance
from .significance_text import summary, to_page
from .tables import DASH, to_csv, to_terminal
from .wording import pluralize


@dataclass(frozen=True)
class Report:
    """What `write` wrote, and what it has to say."""

    paths: tuple[Path, ...]
    """Every file written; the index is the last."""
    boards: tuple[Leaderboard, ...]
    complaints: tuple[str, ...]
    """Damaged records (failures too), runs that contradict each other, folders that belong to no leaderboard."""
    text: str
    """The tables for the terminal, or why there are none."""
    others: int
    """Boards that were rebuilt and are not in `text`."""


def write(store: Store, out: Path, with_published: bool = False, cells: Collection[str] | None = None) -> Report:
    """Rebuild the report of a results folder in `out`.

    Args:
        with_published: add tables of what papers print.
        cells: keys of runs; the text has only the boards that hold one of them.  None: all boards.

    Raises:
        StoreError: `out` cannot be written.
    """
    complaints: list[str] = []
    frame = store.frame(complaints)
    for _ in store.failures(complaints):
        continue  # tables show a failed cell as a gap; what is damaged has to be named
    leaderboards: list[Leaderboard] = []
    paths: list[Path] = []
    parts: list[Part] = []
    for board, runs in boards(frame):
        complaints += duplicate_runs(board, runs)
        leaderboards.append(leaderboard(board, runs))
        said = published_vs_measured.compare_with_published(leaderboards[-1], published.load())
        found = significance(leaderboards[-1], runs)
        made = _files(leaderboards[-1], runs, found)
        if with_published and said.rows:
            made["published.md"] = published_vs_measured.to_markdown(said).encode()
        folder = out / "boards" / board.slug
        for name, data in made.items():
            write_atomically(folder / name, data)
        _remove_stale(folder, made)
        paths += [folder / name for name in made]
        figures = {name[:-4]: svg for name, svg in made.items() if name.endswith(".svg")}
        parts.append(Part(leaderboards[-1], runs, found, said, figures))
    if not leaderboards:
        return Report((), (), tuple(complaints), _nothing(store, frame), 0)
    paths += [out / "index.html", out / "README.md"]
    write_atomically(paths[-2], page(parts, store.root))
    write_atomically(paths[-1], _index(parts).encode())
    complaints += _orphans(out, {entry.board.slug for entry in leaderboards})
    shown = [part for part in parts if cells is None or not set(part.runs["key"]).isdisjoint(cells)]
    texts = [to_terminal(part.entry) + summary(part.significance) for part in shown]
    text = "\n".join([*texts, *(_published(shown) if with_published else [])])
    return Report(tuple(paths), tuple(leaderboards), tuple(complaints), text, len(parts) - len(shown))


def _published(parts: Sequence[Part]) -> list[str]:
    """For the terminal: what papers say beside each board, and for how many they say nothing."""
    found = [published_vs_measured.to_terminal(part.published, part.entry) for part in parts if part.published.rows]
    silent = pluralize(len(parts) - len(found), "board")
    rest = f"{published_vs_measured.HEADING}: nothing to show for {silent}; the page says why.\n"
    return found if len(found) == len(parts) else [*found, rest]


def duplicate_runs(board: Board, runs: pd.DataFrame) -> list[str]:
    """Runs of one row, task and seed with different keys: possible when code changed without a new version."""
    keys: dict[tuple[str, ...], list[str]] = defaultdict(list)
    named = [*board.identity, "task", "data", "task_version", "seed", "key"]
    for run in runs.loc[:, named].fillna("").to_dict("records"):
        cell = (
            *(str(run[name]) for name in board.identity),
            str(run["task"]),
            str(run["data"]),
            str(run["task_version"]),
        )
        keys[(*cell, str(run["seed"]))].append(run["key"])
    return [
        f"board {board.slug}: {cell[1]} on {cell[-4]}, seed {cell[-1]}, has {len(found)} results with different specs "
        f"({', '.join(sorted(found))}); their mean is shown: delete the outdated JSON"
        for cell, found in sorted(keys.items())
        if len(found) > 1
    ]


def _files(entry: Leaderboard, runs: pd.DataFrame, found: Significance) -> dict[str, bytes]:
    from .figures import figures  # matplotlib, only now

    return {
        "leaderboard.csv": to_csv(entry).encode(),
        "table.md": to_markdown(entry).encode(),
        "table.tex": to_latex(entry).encode(),
        "significance.md": to_page(entry, found).encode(),
        **figures(entry, runs, found),
    }


def _remove_stale(folder: Path, made: Mapping[str, bytes]) -> None:
    """What an earlier report wrote and this one has no reason to; files that no report writes are left alone."""
    from .figures import FIGURES

    for name in ("published.md", *(f"{figure}.{kind}" for figure in FIGURES for kind in ("svg", "png"))):
        if name not in made:
            (folder / name).unlink(missing_ok=True)


def _index(parts: Sequence[Part]) -> str:
    """README.md of the report: a line per board, then each board's table, its first figure, and links to the rest."""
    from .figures import FIGURES

    lines = [
        "# Leaderboards",
        "",
        "Rebuilt by `vtab-peft report`; edits are lost. Ranks and means never cross boards. "
        "docs/results.md says what a board and a column is. [index.html](index.html) shows the same, to sort, filter "
        "and compare: download it and open it from disk.",
        "",
        "| board | tasks | methods | first |",
        "|---|--:|--:|---|",
    ]
    for entry in (part.entry for part in parts):
        first = ", ".join(markdown(row["label"]) for row in entry.rows if row["rank"] == 1) or DASH
        link = f"[{markdown(entry.board.title)}](boards/{entry.board.slug}/table.md)"
        lines.append(f"| {link} | {len(entry.tasks)} | {len(entry.rows)} | {first} |")
    for part in parts:
        folder = f"boards/{part.entry.board.slug}"
        shown = [name for name in FIGURES if name in part.figures]
        links = [("CSV", "leaderboard.csv"), ("LaTeX", "table.tex"), ("significance", "significance.md")]
        links += [(FIGURES[name], f"{name}.svg") for name in shown[1:]]
        lines += ["", f"## {markdown(part.entry.board.title)}", "", to_markdown(part.entry)]
        lines += [f"![{FIGURES[name]}]({folder}/{name}.svg)\n" for name in shown[:1]]
        lines.append(" · ".join(f"[{text}]({folder}/{name})" for text, name in links))
    return "\n".join(lines) + "\n"


def _orphans(out: Path, slugs: set[str]) -> list[str]:
    return [
        f"{folder} belongs to no board of these results; it was left as it is: delete it if it is out of date"
        for folder in sorted((out / "boards").iterdir())
        if folder.is_dir() and folder.name not in slugs
    ]


def _nothing(store: Store, frame: pd.DataFrame) -> str:
    if len(frame):
        found = pluralize(len(frame), "validation run")
        return f"{store.root} holds {found} and no test run: there is nothing to rank or write\n"
    return f"no finished run in {store.root / 'runs'}: use `vtab-peft run` first; nothing was written\n"
