"""An analysis as files: tables for people and for programs.  Numbers have four digits; the JSON holds every matrix."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from math import degrees
from statistics import fmean
from typing import Any

from tabulate import tabulate

from ..reporting.tables import DASH
from .angles import Group
from .bounds import Bound
from .spectra import Size

Rows = list[dict[str, Any]]

ABOUT_ANGLES = """\
All pairs of vectors within one matrix, pooled over the blocks. `spread` is the root mean square cosine times the root
of the dimension: 0 for orthogonal vectors, 1 for random directions, more where vectors point the same way.
`distance` is Kolmogorov and Smirnov's from random directions: 0.5 for orthogonal vectors. Beside both stands what
95 % of Gaussian matrices of the same shapes give. `off 90°` is the root mean square distance from 90 degrees, and what
it is by chance. Vectors of length zero have no direction and are left out."""
ABOUT_SIZES = """\
Means over the matrices (smallest to largest). `update` is the merged weight minus the pretrained one, which only
methods that can be merged have. Effective rank: exp of the entropy of the singular values as shares of their sum (Roy
and Vetterli, 2007); stable rank: (Frobenius / spectral)². `of W`: Frobenius norm over that of the pretrained weight."""
ABOUT_BOUNDS = """\
Terms of (g / m) E|Σ ξᵢ xᵢ|, means over the modules: g, the most by which a module lengthens its input (with an
activation in between, a bound of that), m training images, each the mean of the tokens that the module reads, and
random signs ξ. `Jensen` is (Σ|xᵢ|²)^½, which the expectation cannot exceed."""


def angle_rows(groups: Iterable[Group]) -> Rows:
    return [
        {
            **{"of": g.of, "side": g.side, "when": g.when, "dimension": g.angles.dimension, "pairs": g.angles.pairs},
            **{"left_out": g.angles.left_out, "mean_degrees": g.angles.mean, "off_90_degrees": g.angles.deviation},
            **{"spread": g.angles.spread, "distance": g.angles.distance, "null_draws": g.null.draws},
            **{f"null_spread_{end}": value for end, value in zip(("low", "high"), g.null.spread, strict=True)},
            **{f"null_distance_{end}": value for end, value in zip(("low", "high"), g.null.distance, strict=True)},
        }
        for g in groups
    ]


def size_rows(sizes: Sequence[Size]) -> Rows:
    """One for each kind of matrix."""
    kinds = list(dict.fromkeys((size.of, size.what, size.when) for size in sizes))
    rows = []
    for of, what, when in kinds:
        own = [size for size in sizes if (size.of, size.what, size.when) == (of, what, when)]
        row: dict[str, Any] = {"of": of, "what": what, "when": when, "matrices": len(own)}
        for name in ("spectral", "frobenius", "effective_rank", "stable_rank", "relative"):
            values = [getattr(size, name) for size in own if getattr(size, name) is not None]
            row[name] = fmean(values) if values else None
            row[f"{name}_low"], row[f"{name}_high"] = (min(values), max(values)) if values else (None, None)
        rows.append(row)
    return rows


def bound_rows(bounds: Sequence[tuple[str, Sequence[Bound]]]) -> Rows:
    """One for each cell that has any."""
    return [
        {
            **{"of": of, "modules": len(own), "m": own[0].inputs},
            **{name: fmean(getattr(one, name) for one in own) for name in ("gain", "expectation", "at_most", "bound")},
        }
        for of, own in bounds
        if own
    ]


def to_csv(rows: Rows) -> str:
    """Rows, one or more, under the names of the first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None else rounded(value) for name, value in row.items()})
    return text.getvalue()


def rounded(value: Any) -> Any:
    """Floats to six digits, wherever they are: what a processor leaves open in the last ones is not written."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def to_markdown(heading: Sequence[str], angles: Rows, sizes: Rows, bounds: Rows) -> str:
    """Sizes and bounds are left out where there are none."""
    parts = ["# Analysis of trained cells", *heading, "## Angles", ABOUT_ANGLES]
    parts.append(
        _table(
            angles,
            {
                "of": lambda r: r["of"],
                "vectors": lambda r: f"{r['side']}{', ' + r['when'] if r['when'] else ''}",
                "D": lambda r: str(r["dimension"]),
                "pairs": lambda r: f"{r['pairs']:,}",
                "off 90°": lambda r: f"{r['off_90_degrees']:.2f}",
                "by chance": lambda r: f"{degrees(r['dimension'] ** -0.5):.2f}",
                "spread": lambda r: f"{r['spread']:.3f}",
                "null": lambda r: f"{r['null_spread_low']:.3f}-{r['null_spread_high']:.3f}",
                "distance": lambda r: f"{r['distance']:.3f}",
                "its null": lambda r: f"{r['null_distance_low']:.3f}-{r['null_distance_high']:.3f}",
            },
        )
    )
    columns: dict[str, Callable[[dict[str, Any]], str]]
    if sizes:
        parts += ["## Norms and ranks", ABOUT_SIZES]
        columns = {
            "of": lambda r: r["of"],
            "matrix": lambda r: f"{r['what']}, {r['when']}",
            "n": lambda r: str(r["matrices"]),
            "spectral": lambda r: _range(r, "spectral"),
            "Frobenius": lambda r: _range(r, "frobenius"),
            "effective rank": lambda r: _range(r, "effective_rank"),
            "stable rank": lambda r: _range(r, "stable_rank"),
            "of W": lambda r: DASH if r["relative"] is None else f"{100 * r['relative']:.1f} %",
        }
        parts.append(_table(sizes, columns))
    if bounds:
        parts += ["## Terms of the bound", ABOUT_BOUNDS]
        columns = {
            "of": lambda r: r["of"],
            "modules": lambda r: str(r["modules"]),
            "m": lambda r: str(r["m"]),
            "g": lambda r: f"{r['gain']:.4g}",
            "E": lambda r: f"{r['expectation']:.4g}",
            "Jensen": lambda r: f"{r['at_most']:.4g}",
            "bound": lambda r: f"{r['bound']:.4g}",
        }
        parts.append(_table(bounds, columns))
    return "\n\n".join(parts) + "\n"


def _range(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.3g} ({row[f'{name}_low']:.3g}-{row[f'{name}_high']:.3g})"


def _table(rows: Rows, columns: dict[str, Callable[[dict[str, Any]], str]]) -> str:
    cells = [[form(row).replace("|", r"\|") for form in columns.values()] for row in rows]
    words = sum(name in ("of", "vectors", "matrix") for name in columns)
    align = ["left"] * words + ["right"] * (len(columns) - words)
    return tabulate(cells, list(columns), "pipe", colalign=align, disable_numparse=True)
