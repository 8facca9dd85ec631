"""What tables know of a run: one row of columns, read from its record."""

import re
from pathlib import Path
from typing import Any

from ..spec import canonical_json

COLUMNS = (
    *("key", "repetition", "path", "split", "seed"),
    *("backbone", "backbone_sha256", "suite", "task", "task_version", "data", "provenance", "group", "classes"),
    *("method", "spec", "asked", "title", "method_version", "plugin", "args"),
    *("recipe", "recipe_base", "tuned", "configurations", "lr"),
    *("normalisation", "interpolation", "image_size"),
    *("accuracy", "trainable_params", "head_params", "total_params"),
    *("train_seconds", "eval_seconds", "images_per_second", "peak_bytes", "adapter_bytes", "device"),
    *("oracle_accuracy", "oracle_epoch", "origin"),
)
"""Of `Store.frame`: accuracy in [0, 1]; `trainable_params` without the head, `head_params` the head alone;
`args` is JSON text with every hyper-parameter, also those that `spec` leaves out because they are defaults; `asked` is
what `tune` was given, otherwise `spec`; `configurations` is how many it tried; `device` tells how many cells shared
it at a time; `oracle_...` needs `--oracle`; `origin` is JSON text of the record's provenance: when, where and with
which versions it was made."""


OPTIONAL = ("plugin", "configurations", "oracle_accuracy", "oracle_epoch")
"""Columns that may be None."""

KINDS: dict[str, type] = {
    **dict.fromkeys(COLUMNS, str),
    **dict.fromkeys(("repetition", "seed", "task_version", "classes", "method_version", "configurations"), int),
    **dict.fromkeys(("image_size", "trainable_params", "head_params", "total_params"), int),
    **dict.fromkeys(("peak_bytes", "adapter_bytes", "oracle_epoch"), int),
    **dict.fromkeys(("lr", "accuracy", "train_seconds", "eval_seconds", "images_per_second"), float),
    "oracle_accuracy": float,
    "tuned": bool,
}
"""What a column holds; a whole number will do for a float."""

TOO_LARGE = 2**63
"""For a 64-bit column.  Comparing with it also finds infinity and what is no number."""


def repetition_of(path: Path) -> int:
    """Which repetition of its run a record's file is, from 1."""
    middle = path.name.split(".")[1]
    return int(middle) if middle.isdecimal() else 1


def row_of(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Raises `ValueError`, `KeyError`, `TypeError`, `AttributeError` when the record is not one."""
    row = _row(path, record)
    for name, value in row.items():
        if value is None and name in OPTIONAL:
            continue
        right = type(value) is KINDS[name] or (KINDS[name] is float and type(value) is int)
        if not right or (isinstance(value, int | float) and not abs(value) < TOO_LARGE):
            raise ValueError(f"{name} is {value!r:.60}")
    return row


def _row(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    spec, result, facts = record["spec"], record["result"], record["facts"]
    row = {
        "key": record["key"],
        "repetition": repetition_of(path),
        "path": str(path),
        "backbone": spec["backbone"]["name"],
        "backbone_sha256": spec["backbone"]["sha256"],
        "task": spec["task"]["name"],
        "task_version": spec["task"]["version"],
        "method": spec["method"]["name"],
        "method_version": spec["method"]["version"],
        "args": canonical_json(spec["method"]["args"]),
        "recipe": spec["recipe"]["name"],
        "normalisation": _normalisation(spec["mean"], spec["std"]),
        "device": _device(record["provenance"]),
        "asked": spec["method"].get("asked") or spec["method"]["spec"],
        "configurations": facts.get("tuning", {}).get("configurations"),
        **{name: result.get(name) for name in ("oracle_accuracy", "oracle_epoch")},
        "origin": canonical_json(record["provenance"]),
    }
    for source, names in (
        (spec, ("split", "seed", "recipe_base", "interpolation")),
        (spec["task"], ("suite", "data", "provenance")),
        (spec["method"], ("spec", "plugin")),
        (spec["recipe"], ("tuned", "lr", "image_size")),
        (facts, ("group", "classes", "title")),
        (result, COLUMNS[COLUMNS.index("accuracy") : COLUMNS.index("device")]),
    ):
        row.update((name, source[name]) for name in names)
    return row


def _device(origin: dict[str, Any]) -> str:
    """Return the device and how many runs shared it, so that only comparable times are compared."""
    runs = origin["concurrent_runs"] if "concurrent_runs" in origin else _concurrent_runs_from_argv(origin)
    return f"{origin['device']}, shared by {runs}" if runs > 1 else origin["device"]


def _concurrent_runs_from_argv(origin: dict[str, Any]) -> int:
    """Read the number of concurrent runs from the command, for records without the field."""
    typed = " ".join(map(str, origin.get("argv", ())))
    if workers := re.search(r"--workers[ =](\d+)", typed):
        return int(workers[1])
    if share := re.search(r"--gpus-per-(?:cell|run)[ =](0?\.\d*[1-9])", typed):
        return round(1 / float(share[1]))
    return 1


def error_type_of(failure: dict[str, Any]) -> str:
    """Return the exception's class name; records without the field begin their reason with it."""
    return failure.get("error_type") or failure["reason"].partition(":")[0]


def _normalisation(mean: list[float], std: list[float]) -> str:
    return f"mean {'/'.join(f'{m:g}' for m in mean)} std {'/'.join(f'{s:g}' for s in std)}"
