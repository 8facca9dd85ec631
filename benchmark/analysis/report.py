"""Files of an analysis: Markdown for people, CSV and JSON for programs."""

from collections.abc import Iterable, Sequence
from math import degrees
from statistics import fmean
from typing import Any

from ..escaping import csv_text, markdown
from ..reporting.tables import DASH
from ..reporting.text_table import text_table
from .angles import Group
from .bounds import Bound
from .spectra import Size

Table = list[dict[str, Any]]

ABOUT_ANGLES = """\
## Angles

Angles of all pairs of vectors within one matrix, over all blocks. `spread` is the root mean square cosine times the
square root of the dimension: 0 for orthogonal vectors, 1 for random directions, more if vectors are aligned.
`distance` is the Kolmogorov-Smirnov distance from random directions: 0.5 for orthogonal vectors. `null` is the range of
95 % of Gaussian matrices with the same shapes. `off 90°` is the root mean square distance from 90 degrees; `by chance`
is its value for random directions. Vectors of length zero are excluded."""
ABOUT_SIZES = """\
## Norms and ranks

Mean (smallest to largest) over the matrices. `update` is the merged weight minus the pretrained weight, for methods
that can be merged. Effective rank: exp of the entropy of the normalised singular values (Roy and Vetterli, 2007).
Stable rank: (Frobenius / spectral)². `of W`: Frobenius norm divided by that of the pretrained weight."""
ABOUT_BOUNDS = """\
## Terms of the bound

Means over the modules of the terms of (g / m) E|Σ ξᵢ xᵢ|. g is the gain of a module, the maximum factor by which it
lengthens its input (an upper bound if it has an activation), m the number of training images, xᵢ the mean of the tokens
that the module reads, and ξᵢ a random sign. `Jensen` is (Σ|xᵢ|²)^½, an upper bound of the expectation."""


ANGLE_COLUMNS = {
    **{"of": "{of}", "vectors": "{vectors}", "D": "{dimension}", "pairs": "{pairs:,}"},
    **{"off 90°": "{off_90_degrees:.2f}", "by chance": "{by_chance}", "spread": "{spread:.3f}"},
    "null of spread": "{null_spread_low:.3f}-{null_spread_high:.3f}",
    "distance": "{distance:.3f}",
    "null of distance": "{null_distance_low:.3f}-{null_distance_high:.3f}",
}
"""Heading -> format string of a row; likewise below."""
SIZE_COLUMNS = {
    **{"of": "{of}", "matrix": "{what}, {when}", "n": "{matrices}"},
    "spectral": "{spectral:.3g} ({spectral_low:.3g}-{spectral_high:.3g})",
    "Frobenius": "{frobenius:.3g} ({frobenius_low:.3g}-{frobenius_high:.3g})",
    "effective rank": "{effective_rank:.3g} ({effective_rank_low:.3g}-{effective_rank_high:.3g})",
    "stable rank": "{stable_rank:.3g} ({stable_rank_low:.3g}-{stable_rank_high:.3g})",
    "of W": "{of_weight}",
}
BOUND_COLUMNS = {
    **{"of": "{of}", "modules": "{modules}", "m": "{m}", "g": "{gain:.4g}", "E": "{expectation:.4g}"},
    **{"Jensen": "{at_most:.4g}", "bound": "{bound:.4g}"},
}


def angle_rows(groups: Iterable[Group]) -> Table:
    """Return one row per group of vectors."""
    return [
        {
            **{"of": g.of, "side": g.side, "when": g.when, "dimension": g.angles.dimension, "pairs": g.angles.pairs},
            **{"left_out": g.angles.left_out, "mean_degrees": g.angles.mean, "off_90_degrees": g.angles.off_90},
            **{"spread": g.angles.spread, "distance": g.angles.distance, "null_draws": g.null.draws},
            **dict(zip(("null_spread_low", "null_spread_high"), g.null.spread, strict=True)),
            **dict(zip(("null_distance_low", "null_distance_high"), g.null.distance, strict=True)),
        }
        for g in groups
    ]


def size_rows(sizes: Sequence[Size]) -> Table:
    """Return one row for each run, matrix and state: means and ranges over the blocks."""
    groups: dict[tuple[str, str, str], list[Size]] = {}
    for size in sizes:
        groups.setdefault((size.of, size.what, size.when), []).append(size)
    rows = []
    for (of, what, when), members in groups.items():
        row: dict[str, Any] = {"of": of, "what": what, "when": when, "matrices": len(members)}
        for name in ("spectral", "frobenius", "effective_rank", "stable_rank", "relative"):
            values = [value for size in members if (value := getattr(size, name)) is not None]
            row[name] = fmean(values) if values else None
            row[f"{name}_low"], row[f"{name}_high"] = (min(values), max(values)) if values else (None, None)
        rows.append(row)
    return rows


def bound_rows(bounds: Sequence[tuple[str, Sequence[Bound]]]) -> Table:
    """Return one row per run that has bounds: means over its modules."""
    names = ("gain", "expectation", "at_most", "bound")
    return [
        {"of": of, "modules": len(modules), "m": modules[0].inputs}
        | {name: fmean(getattr(module, name) for module in modules) for name in names}
        for of, modules in bounds
        if modules
    ]


def to_csv(rows: Table) -> str:
    """Return at least one row as CSV with the columns of the first."""
    cells = (["" if value is None else rounded(value) for value in row.values()] for row in rows)
    return csv_text([list(rows[0]), *cells])


def rounded(value: Any) -> Any:
    """Round all nested floats to six digits, since the last ones differ between processors."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def to_text(heading: str, angles: Table, sizes: Table, bounds: Table, style: str = "markdown") -> str:
    """Return the tables; sections without rows are skipped.

    style: "markdown" for `analysis.md`, "simple" for a terminal.
    """
    tables = ((angles, ANGLE_COLUMNS), (sizes, SIZE_COLUMNS), (bounds, BOUND_COLUMNS))
    blocks = ["# Analysis of trained adapters", markdown(heading) if style == "markdown" else heading]
    for about, (rows, columns) in zip((ABOUT_ANGLES, ABOUT_SIZES, ABOUT_BOUNDS), tables, strict=True):
        blocks += [about, _table(rows, columns, style)] if rows or columns is ANGLE_COLUMNS else []
    if style != "markdown":
        blocks = [block.lstrip("# ") for block in blocks]
    return "\n\n".join(blocks) + "\n"


def _table(rows: Table, columns: dict[str, str], style: str) -> str:
    lines = []
    for row in rows:
        texts = {"of_weight": DASH if row.get("relative") is None else f"{100 * row['relative']:.1f} %"}
        if "dimension" in row:
            texts["vectors"] = ", ".join(filter(None, (row["side"], row["when"])))
            texts["by_chance"] = f"{degrees(row['dimension'] ** -0.5):.2f}"
        lines.append([column.format_map(row | texts) for column in columns.values()])
    align = "".join("l" if name in ("of", "vectors", "matrix") else "r" for name in columns)
    return text_table(list(columns), lines, align, style)
