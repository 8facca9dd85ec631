"""Leaderboards as Markdown for the web and as LaTeX for papers.

The best value of a column is bold and the second best underlined, compared as printed, so that equal numbers look
equal.  Names are escaped, so none can break the markup.
"""

import json
import re
from collections.abc import Callable, Sequence
from itertools import groupby

from ...datasets.task import SUITES
from ...datasets.tasks import suite_tasks
from ..escaping import latex, markdown
from .leaderboards import Leaderboard, TaskColumn
from .tables import DASH, GAPS, Column, best_epoch_note, columns, common_note, heading, marks, origin_notes, unit

WIDEST = 16
"""Columns of a LaTeX table that fit a page at about 0.43 inches each; wider tables are scaled down."""
CHOSEN = "% rows: "
"""Prefix of the comment of `table.tex` that lists the labels of the chosen rows."""


def to_markdown(leaderboard: Leaderboard) -> str:
    """Return `table.md`, with a column per task."""
    table = columns(leaderboard, [task.label for task in leaderboard.tasks], mean_decimals=2)
    rows = _styled_rows(table, {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}, markdown)
    title, conditions = map(markdown, heading(leaderboard))
    names = [markdown(column.name) for column in table]
    notes = (
        f"{unit(leaderboard)}. **Bold**: best of its column; <u>underlined</u>: second. {DASH}: {GAPS}. "
        f"Rows without a rank lack a task.{common_note(leaderboard)} "
        f"Trainable parameters without and with the head.{best_epoch_note(leaderboard)}"
        f"{markdown(origin_notes(leaderboard))}"
    )
    lines = [f"**{title}**  ", f"{conditions}.", "", markdown_table(names, rows, "rll" + "r" * (len(table) - 3))]
    return "\n".join([*lines, "", notes, ""])


def to_latex(leaderboard: Leaderboard, is_choice: bool = False) -> str:
    r"""Return `table.tex`: a floating table that needs the packages booktabs and graphicx, and cites `papers.bib`.

    A document that defines `\tablecaption` before it reads the file has its own caption.

    is_choice: the rows are those of `report --methods`; a comment lists them, for `chosen_rows`.
    """
    labels = [task_name(leaderboard.id.suite, task) for task in leaderboard.tasks]
    table = [column for column in columns(leaderboard, labels, mean_decimals=2) if column.role != "spec"]
    rows = _styled_rows(table, {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "": "{}"}, latex)
    citations = [rf"~\cite{{{','.join(row['papers'])}}}" if row["papers"] else "" for row in leaderboard.rows]
    rows = [[cells[0], cells[1] + cite, *cells[2:]] for cells, cite in zip(rows, citations, strict=True)]
    title, conditions = map(latex, heading(leaderboard))
    caption = (
        rf"{title}; {conditions}. {latex(unit(leaderboard))}; \textbf{{bold}}: best of its column; "
        rf"\underline{{underlined}}: second; --: {GAPS}.{latex(common_note(leaderboard))} "
        rf"Trainable parameters without and with the head.{latex(best_epoch_note(leaderboard))}"
    )
    names = [latex(column.name) for column in table]
    is_wide = len(table) > WIDEST
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}; \bibliography{papers}; \newcommand{\tablecaption}{your caption}",
            *([CHOSEN + json.dumps([row["label"] for row in leaderboard.rows])] if is_choice else []),
            r"\begin{table*}[t]",
            r"\centering\small\setlength{\tabcolsep}{3pt}",
            rf"\providecommand{{\tablecaption}}{{{caption}}}",
            r"\caption{\tablecaption}",
            rf"\label{{tab:{leaderboard.id.slug.replace('_', '-')}}}",
            *([r"\resizebox{\textwidth}{!}{%"] if is_wide else []),
            rf"\begin{{tabular}}{{rl{'r' * (len(table) - 2)}}}",
            r"\toprule",
            *_group_heads(table),
            " & ".join([*names[:2], *(rf"\rotatebox{{90}}{{{name}}}" for name in names[2:])]) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}" + "}" * is_wide,
            r"\end{table*}",
            *(f"% {note}" for note in leaderboard.origins),
            "",
        ]
    )


def chosen_rows(table: str) -> list[str]:
    """Return the labels of the chosen rows of a `table.tex`; empty if it has all rows."""
    found = re.search(rf"^{CHOSEN}(\[.*\])$", table, re.MULTILINE)
    try:
        return [str(label) for label in json.loads(found[1])] if found else []
    except ValueError:  # edited
        return []


def task_name(suite: str, task: TaskColumn) -> str:
    """Return the short name of an official task or the name of another, and what follows the name in its label."""
    official = suite_tasks(suite).get(task.name) if suite in SUITES else None
    return (official.short if official and official.short else task.name) + task.label[len(task.name) :]


def _styled_rows(table: Sequence[Column], styles: dict[str, str], escape: Callable[[str], str]) -> list[Sequence[str]]:
    """Return the escaped cells row by row, with the best two of each column marked."""
    styled = [
        [styles[mark].format(escape(cell)) for mark, cell in zip(marks(column), column.cells, strict=True)]
        for column in table
    ]
    return list(zip(*styled, strict=True))


def _group_heads(table: Sequence[Column]) -> list[str]:
    """Return a line with the names of the task groups; empty if there are fewer than two."""
    spans: list[tuple[str, int, int]] = []
    for name, members in groupby(enumerate(table, start=1), key=lambda member: member[1].group):
        places = [place for place, _ in members]
        spans.append((name, places[0], places[-1]))
    named = [span for span in spans if span[0]]
    if len(named) < 2:
        return []
    cells = [rf"\multicolumn{{{last - first + 1}}}{{c}}{{{latex(name)}}}" for name, first, last in spans]
    rules = "".join(rf"\cmidrule(lr){{{first}-{last}}}" for _, first, last in named)
    return [" & ".join(cells) + r" \\", rules]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Return a Markdown table of escaped cells; `align` has one letter per column, l or r."""
    rule = ["--:" if side == "r" else "---" for side in align]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))
