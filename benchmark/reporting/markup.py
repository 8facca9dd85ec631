"""Leaderboards as Markdown, for the web, and as LaTeX, for papers.

The best of a column is bold and the second best underlined, judged by what is printed, so that equal numbers look
equal.  No name can break the markup: everything that is not ours is escaped.
"""

import re
from collections.abc import Callable, Sequence

from .leaderboards import Leaderboard
from .tables import DASH, GAPS, Column, columns, common_note, heading, marks, oracle_note, unit

WIDEST = 16
"""Columns of a LaTeX table that a page takes at its own size (ours: 16 of about 0.43 in); more are scaled down."""


def to_markdown(board: Leaderboard) -> str:
    """`table.md`: every task; reads well on the web and as plain text."""
    parts = columns(board, [task.label for task in board.tasks], mean_decimals=2)
    rows = _styled(parts, {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}, markdown)
    head, conditions = (markdown(line) for line in heading(board))
    names = [markdown(part.name) for part in parts]
    rule = ["--:", "---", "---", *["--:"] * (len(parts) - 3)]
    return "\n".join(
        [
            f"**{head}**  ",
            f"{conditions}.",
            "",
            *("| " + " | ".join(line) + " |" for line in (names, rule, *rows)),
            "",
            f"{unit(board)}. **Bold**: best of its column; <u>underlined</u>: second. {DASH}: {GAPS}. "
            f"Rows without a rank lack a task.{common_note(board)} "
            f"Trainable parameters without and with the head.{oracle_note(board)}",
            "",
        ]
    )


def to_latex(board: Leaderboard) -> str:
    """`table.tex`: a float for a paper; needs the packages booktabs and graphicx."""
    labels = [task.label for task in board.tasks]
    parts = [part for part in columns(board, labels, mean_decimals=2) if part.role != "spec"]
    rows = _styled(parts, {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "": "{}"}, latex)
    head, conditions = (latex(line) for line in heading(board))
    names = [latex(part.name) for part in parts]
    wide = len(parts) > WIDEST
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table*}[t]",
            r"\centering\small\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{head}; {conditions}. {latex(unit(board))}; \textbf{{bold}}: best of its column; "
            rf"\underline{{underlined}}: second; --: {GAPS}.{latex(common_note(board))} "
            rf"Trainable parameters without and with the head.{latex(oracle_note(board))}}}",
            rf"\label{{tab:{board.board.slug.replace('_', '-')}}}",
            *([r"\resizebox{\textwidth}{!}{%"] if wide else []),
            rf"\begin{{tabular}}{{rl{'r' * (len(parts) - 2)}}}",
            r"\toprule",
            *_group_heads(parts),
            " & ".join([*names[:2], *(rf"\rotatebox{{90}}{{{name}}}" for name in names[2:])]) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}" + "}" * wide,
            r"\end{table*}",
            "",
        ]
    )


def _styled(parts: Sequence[Column], styles: dict[str, str], escape: Callable[[str], str]) -> list[tuple[str, ...]]:
    """The cells, row by row, escaped and with the best two of each column marked."""
    cells = [
        [styles[mark].format(escape(cell)) for mark, cell in zip(marks(part), part.cells, strict=True)]
        for part in parts
    ]
    return list(zip(*cells, strict=True))


def _group_heads(parts: Sequence[Column]) -> list[str]:
    """A line naming the groups above their tasks, where there is more than one."""
    spans: list[tuple[str, int, int]] = []
    for place, part in enumerate(parts, start=1):
        if spans and spans[-1][0] == part.group:
            spans[-1] = (part.group, spans[-1][1], place)
        else:
            spans.append((part.group, place, place))
    named = [span for span in spans if span[0]]
    if len(named) < 2:
        return []
    cells = [rf"\multicolumn{{{last - first + 1}}}{{c}}{{{latex(name)}}}" for name, first, last in spans]
    rules = "".join(rf"\cmidrule(lr){{{first}-{last}}}" for _, first, last in named)
    return [" & ".join(cells) + r" \\", rules]


def markdown(text: str) -> str:
    """One line of plain text with nothing in it that Markdown or HTML would read as markup."""
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|*_`\[\]~$])", r"\\\1", safe)


LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"±": r"$\pm$", "·": r"$\cdot$", "×": r"$\times$", DASH: "--", "…": r"\ldots{}"},
    **{"†": r"\dag{}", "²": r"$^2$", "³": r"$^3$"},
}
ACCENTED = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ"
"""What every LaTeX sets in its own fonts, whatever packages a paper has."""


def latex(text: str) -> str:
    """One line of plain text as LaTeX would set it; a question mark for a character that its own fonts lack."""
    plain = (character if character.isascii() or character in ACCENTED else "?" for character in text)
    return "".join(LATEX.get(real, safe) for real, safe in zip(text, plain, strict=True))
