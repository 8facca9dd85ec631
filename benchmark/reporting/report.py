"""The report: leaderboards, statistics, figures and the page, as pure functions of the stored runs.

    <out>/papers.bib                      the papers that the LaTeX tables cite
    <out>/README.md                       index of the leaderboards
    <out>/index.html                      the page: one file with everything in it
    <out>/boards/<slug>/leaderboard.csv   table.md  table.tex  significance.md
                        <figure>.svg        the figures that apply
                        published.md        published numbers, if requested and available
                        shift.csv  shift.md  shifted tests, if the command shift has evaluated them
    <out>/few_shots/<slug>/few_shots.csv    table.md, and a figure: accuracy against shots, if there are draws

Rebuilding it gives the same bytes, whatever the order of the files.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..escaping import markdown
from ..storage.costs import load_costs
from ..storage.garbage import without_collection
from ..storage.json_io import alone, write_atomically
from ..storage.schema import Run
from ..storage.shifts import load_shifts
from ..storage.store import Store
from . import few_shots, papers, published, published_vs_measured, shift
from .compare import labels_of
from .drawing import REPORT, Drawing
from .figures import figures, is_figure, link_text
from .figures.few_shots import draw as draw_few_shots
from .html.content import LeaderboardReport
from .html.page import page
from .leaderboard_id import PROCEDURAL, LeaderboardId, by_leaderboard, distinct_titles
from .leaderboards import Leaderboard, leaderboard, of_rows
from .markup import to_latex, to_markdown
from .origins import OlderDecoder, older_decoders
from .significance import Significance, significance
from .significance_text import summary, to_page
from .tables import DASH, to_csv, to_terminal
from .wording import pluralize

BANNER = f"> **{PROCEDURAL}**"


@dataclass(frozen=True)
class Report:
    """The written report."""

    paths: tuple[Path, ...]
    """All written files; the index is the last."""
    leaderboards: tuple[Leaderboard, ...]
    problems: tuple[str, ...]
    """Damaged records, duplicate runs, outdated refits, and folders of `out` that belong to no leaderboard."""
    text: str
    """The tables for the terminal, or why there are none."""
    others: int
    """Number of leaderboards that were rebuilt but are not in `text`."""


@without_collection()
def write(
    store: Store,
    out: Path,
    with_published: bool = False,
    run_ids: Collection[str] | None = None,
    axes: Sequence[str] = (),
    drawing: Drawing = REPORT,
) -> Report:
    """Rebuild the report of a results folder in `out`, after those that other processes are writing there.

    Args:
        with_published: Add tables of published numbers.
        axes: Cost columns that accuracy is also drawn against.
        run_ids: Limit the text to leaderboards that hold one of these runs.  None: all leaderboards.
        drawing: How figures are drawn; `methods` may also be specs.

    Raises:
        StoreError: `out` cannot be written.
        ValueError: `drawing` names a method that no leaderboard has.
    """
    with alone(out):
        return _write(store, out, with_published, run_ids, axes, drawing)


def _write(
    store: Store,
    out: Path,
    with_published: bool,
    run_ids: Collection[str] | None,
    axes: Sequence[str],
    drawing: Drawing,
) -> Report:
    stored, problems = store.load_runs()
    problems += store.load_failures()[1]
    costs, bad_costs = load_costs(store.root)
    problems += bad_costs
    paths: list[Path] = []
    parts: list[LeaderboardReport] = []
    shifts, bad_shifts = load_shifts(store.root)
    problems += bad_shifts
    shifted: dict[str, shift.ShiftTable] = {}
    entries = [(leaderboard(identity, runs, costs), runs) for identity, runs in by_leaderboard(stored)]
    problems += outdated_refits(stored, [runs for _, runs in entries])
    drawing = replace(drawing, methods=tuple(labels_of(drawing.methods, [entry for entry, _ in entries])))
    for entry, runs in entries:
        identity = entry.id
        problems += duplicate_runs(identity, runs)
        comparison = published_vs_measured.compare_with_published(entry, published.load())
        found = significance(entry, runs)
        if table := shift.shift_table(entry, runs, shifts):
            shifted[identity.slug] = table
            problems += table.outdated
        chosen = of_rows(entry, drawing.methods) if drawing.methods else entry
        files = _texts(entry, chosen, found, table) | _figures(chosen, runs, found, axes, table, drawing)
        if with_published and comparison.rows:
            files["published.md"] = published_vs_measured.to_markdown(comparison).encode()
        folder = out / "boards" / identity.slug
        for name, data in files.items():
            write_atomically(folder / name, data)
        _remove_stale(folder, files)
        paths += [folder / name for name in files]
        svgs = {name[:-4]: svg for name, svg in files.items() if name.endswith(".svg")}
        parts.append(LeaderboardReport(entry, runs, found, comparison, svgs))
    if not parts:
        return Report((), (), tuple(problems), _nothing(store, len(stored)), 0)
    leaderboards = tuple(part.entry for part in parts)
    tables = few_shots.few_shot_tables(leaderboards)
    problems += few_shots.ambiguous(leaderboards)
    paths += _write_few_shots(tables, out, drawing)
    paths += [out / "papers.bib", out / "index.html", out / "README.md"]
    write_atomically(paths[-3], papers.BIBTEX.read_bytes())
    write_atomically(paths[-2], page(parts, out))
    write_atomically(paths[-1], (_index(parts, shifted) + few_shots.index(tables)).encode())
    problems += _orphans(out / "boards", {entry.id.slug for entry in leaderboards})
    problems += _orphans(out / "few_shots", {table.id.slug for table in tables})
    shown = [part for part in parts if run_ids is None or any(run.run_id in run_ids for run in part.runs)]
    whole = [part for part in shown if not few_shots.is_draw(part.entry)]  # those of draws are in one table
    texts = [to_terminal(part.entry) + summary(part.significance) + _files(out, part) for part in whole]
    texts += few_shots.to_terminal(tables, {part.entry.id for part in shown})
    texts += [shift.to_terminal(table) for part in shown if (table := shifted.get(part.entry.id.slug))]
    texts += _undrawn(axes, parts)
    text = "\n".join([*texts, *(_published(shown) if with_published else [])])
    return Report(tuple(paths), leaderboards, tuple(problems), text, len(parts) - len(shown))


def _files(out: Path, part: LeaderboardReport) -> str:
    return f"{'Figures, ' if part.figures else ''}LaTeX and CSV: {out / 'boards' / part.entry.id.slug}\n"


def _undrawn(axes: Sequence[str], parts: Sequence[LeaderboardReport]) -> list[str]:
    """Name the requested figures that no leaderboard has."""
    reason = "no leaderboard has two ranked rows with it; `vtab-peft cost` measures it"
    if all(few_shots.is_draw(part.entry) for part in parts):
        reason = "draws of few shots have one figure, of accuracy against shots; leaderboard.csv of each has its costs"
    drawn = {name for part in parts for name in part.figures}
    return [f"accuracy_vs_{axis} was not drawn: {reason}\n" for axis in axes if f"accuracy_vs_{axis}" not in drawn]


def _published(parts: Sequence[LeaderboardReport]) -> list[str]:
    """Return the tables of published numbers, and for how many leaderboards there are none."""
    found = [published_vs_measured.to_terminal(part.published, part.entry) for part in parts if part.published.rows]
    silent = pluralize(len(parts) - len(found), "leaderboard")
    rest = f"{published_vs_measured.HEADING}: nothing to show for {silent}; the page says why.\n"
    return found if len(found) == len(parts) else [*found, rest]


def outdated_refits(stored: Sequence[Run], shown: Iterable[Sequence[Run]]) -> list[str]:
    """Report the refits that no leaderboard has, because `tune` chose another setting later."""
    ids = {run.run_id for runs in shown for run in runs}
    outdated = sorted(run.run_id for run in stored if run.spec.split == "test" and run.run_id not in ids)
    if not outdated:
        return []
    return [
        f"{pluralize(len(outdated), 'refit')} left out, as `tune` repeated failed trials and chose another setting: "
        f"{', '.join(outdated)}"
    ]


def duplicate_runs(identity: LeaderboardId, runs: Sequence[Run]) -> list[str]:
    """Report runs of one row, task and seed with different run IDs: the code changed without a new version."""
    found: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        found[(*identity.row_identity(run), *run.task_id, run.spec.seed)].append(run)
    duplicates = [same for same in found.values() if len(same) > 1]
    return [
        f"leaderboard {identity.slug}: {same[0].method_spec} on {same[0].spec.task.name}, seed {same[0].spec.seed}, "
        f"has {len(same)} results with different specs ({', '.join(sorted(run.run_id for run in same))}); their mean "
        "is shown: delete the outdated JSON"
        for same in sorted(duplicates, key=lambda same: (same[0].method_spec, same[0].task_id, same[0].spec.seed))
    ]


def _texts(
    entry: Leaderboard, chosen: Leaderboard, found: Significance, shifted: shift.ShiftTable | None
) -> dict[str, bytes]:
    """Return the tables; that for papers has the chosen rows, or all if none is of this leaderboard."""
    return {
        "leaderboard.csv": to_csv(entry).encode(),
        "table.md": to_markdown(entry).encode(),
        "table.tex": (to_latex(chosen, chosen is not entry) if chosen.rows else to_latex(entry)).encode(),
        "significance.md": to_page(entry, found).encode(),
        **(shift.texts(shifted) if shifted else {}),
    }


def _figures(
    entry: Leaderboard,
    runs: Sequence[Run],
    found: Significance,
    axes: Sequence[str],
    shifted: shift.ShiftTable | None,
    drawing: Drawing,
) -> dict[str, bytes]:
    if few_shots.is_draw(entry):  # one figure shows all draws
        return {}
    if drawing.methods:
        drawn = {row["identity"] for row in entry.rows}
        runs = [run for run in runs if entry.id.row_identity(run) in drawn]
        if not runs:
            return {}
        found = significance(entry, runs)  # ranks among these methods
        rows = tuple(row for row in shifted.rows if row.label in drawing.methods) if shifted else ()
        shifted = replace(shifted, rows=rows) if shifted and rows else None
    return figures(entry, runs, found, axes, shifted, drawing)


def _write_few_shots(tables: Sequence[few_shots.FewShotTable], out: Path, drawing: Drawing) -> list[Path]:
    paths = []
    for table in tables:
        for name, data in {**few_shots.texts(table), **draw_few_shots(table, drawing)}.items():
            paths.append(out / "few_shots" / table.id.slug / name)
            write_atomically(paths[-1], data)
    return paths


def _remove_stale(folder: Path, made: Mapping[str, bytes]) -> None:
    """Remove files of an earlier report that no longer apply; other files are left unchanged."""
    for path in folder.iterdir():
        if path.name not in made and (path.name in ("published.md", "shift.csv", "shift.md") or is_figure(path.name)):
            path.unlink(missing_ok=True)


def _index(parts: Sequence[LeaderboardReport], shifted: Collection[str]) -> str:
    """Return README.md of the report: a list of leaderboards, then their tables, first figures and links."""
    titles = [markdown(title) for title in distinct_titles([part.entry.id for part in parts])]
    lines = [
        "# Leaderboards",
        "",
        "Built by `vtab-peft report`; edits are lost. Ranks and means never cross leaderboards. "
        "docs/results.md explains leaderboards and columns. `vtab-peft report` also builds index.html here, one page "
        "to sort, filter and compare.",
    ]
    older = older_decoders(run for part in parts for run in part.runs)
    above = None
    for entry, title in zip((part.entry for part in parts), titles, strict=True):
        if entry.id.procedural != above:
            above = entry.id.procedural
            lines += ["", *([BANNER, ""] if above else [])]
            lines += ["| leaderboard | tasks | methods | first |", "|---|--:|--:|---|"]
        first = ", ".join(markdown(row["label"]) for row in entry.rows if row["rank"] == 1) or DASH
        link = f"[{title}](boards/{entry.id.slug}/table.md)"
        lines.append(f"| {link} | {len(entry.tasks)} | {len(entry.rows)} | {first} |")
    for part, title in zip(parts, titles, strict=True):
        folder = f"boards/{part.entry.id.slug}"
        shown = list(part.figures)
        links = [("CSV", "leaderboard.csv"), ("LaTeX", "table.tex"), ("significance", "significance.md")]
        links += [("table of shifted tests", "shift.md")] if part.entry.id.slug in shifted else []
        links += [(link_text(name), f"{name}.svg") for name in shown[1:]]
        lines += ["", f"## {title}", "", *([BANNER, ""] if part.entry.id.procedural else []), to_markdown(part.entry)]
        lines += [f"{markdown(note)}\n" for note in _decoders(part, older)]
        lines += [f"![{link_text(name)}]({folder}/{name}.svg)\n" for name in shown[:1]]
        lines.append(" · ".join(f"[{text}]({folder}/{name})" for text, name in links))
    return "\n".join(lines) + "\n"


def _decoders(part: LeaderboardReport, older: Sequence[OlderDecoder]) -> list[str]:
    """Return a note on images of this leaderboard that an older Pillow decoded than in others of the folder."""
    here = {run.run_id for run in part.runs}
    tasks: dict[tuple[str, str], list[str]] = defaultdict(list)
    for found in older:
        if any(run.run_id in here for run in found.runs):
            tasks[found.older, found.newest].append(found.task)
    return [
        f"Pillow {version} decoded the images of {', '.join(names)}, and {newest} those of other runs of the same "
        "tasks: pixels of photos may differ. The command verify names the runs."
        for (version, newest), names in tasks.items()
    ]


def _orphans(parent: Path, slugs: set[str]) -> list[str]:
    return [
        f"{folder} belongs to no leaderboard of these results and was left unchanged: delete it if it is out of date"
        for folder in sorted(parent.glob("*/"))
        if folder.is_dir() and folder.name not in slugs
    ]


def _nothing(store: Store, validation_runs: int) -> str:
    if validation_runs:
        found = pluralize(validation_runs, "validation run")
        return f"{store.root} holds {found} and no test run: there is nothing to rank or write\n"
    return f"no finished run in {store.root / 'runs'}, so no report was written; runs are made by `vtab-peft run`\n"
