"""Which kept cell a person means: by the beginning of its key in a results folder, or by the path of its file."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from ..storage.json_io import StoreError
from ..storage.schema import repetition_of
from ..storage.store import Store

EXPORTED = "adapter.safetensors"
"""Name of the file that an exported adapter's folder holds."""
SHOWN = 6
"""Cells named in a message (ours)."""


def find_adapter(text: str, results: Path) -> Path:
    """The .safetensors file that KEY_OR_PATH means; of a repeated run that of the latest repetition.

    Raises:
        StoreError: nothing is there, several cells begin like that, or the cell was stored without its adapter.
    """
    path = Path(text)
    if path.is_dir() and (path / EXPORTED).is_file():
        return path / EXPORTED
    if path.suffix in (".safetensors", ".json"):
        return _beside(path)
    runs = sorted((results / "runs").rglob("*.json"))
    own = of_one_cell(text, runs, results)
    if text and not own and path.is_dir():
        raise StoreError(
            f"{path} holds no {EXPORTED}: give a folder that `vtab-peft export --as adapter` made; merged models are "
            "for timm, peft folders for peft"
        )
    if not own:
        raise StoreError(
            f"no cell in {results} begins with {text!r}, and no such file is there.{_suggested(text, runs)}"
        )
    return _beside(max(own, key=repetition_of))


def of_one_cell(text: str, files: Sequence[Path], results: Path) -> list[Path]:
    """Those of the JSON files in a results folder that are of the cell whose key begins with `text`; none or more.

    Raises:
        StoreError: several cells begin like that.
    """
    fitting = [file for file in files if text and file.name.startswith(text)]
    if (keys := len({file.name[:16] for file in fitting})) > 1:
        raise StoreError(f"{keys} cells in {results} begin with {text!r}; say more of the key:{_shown(fitting)}")
    return fitting


def _beside(path: Path) -> Path:
    """The adapter that belongs to a record."""
    file = path.with_suffix(".safetensors")
    if not file.is_file():
        missing = path if not path.exists() else file
        raise StoreError(f"{missing} is not there; train the cell with --keep-adapters (of `vtab-peft run` or `tune`)")
    return file


def _suggested(text: str, runs: Sequence[Path]) -> str:
    kept = [run for run in runs if run.with_suffix(".safetensors").is_file()]
    if not kept:
        return " No cell there kept its adapter: train with --keep-adapters (`vtab-peft run` or `tune`)"
    near = set(difflib.get_close_matches(text, [run.stem[:16] for run in kept], n=3, cutoff=0.6))
    likely = [run for run in kept if run.stem[:16] in near or text in run.parts[-4:]]
    return f" {'Did you mean' if likely else 'Cells with an adapter'}:{_shown(likely or kept)}"


def _shown(runs: Sequence[Path]) -> str:
    lines = [f"\n  {run.name.removesuffix('.json')}  {' · '.join(run.parts[-5:-1])}" for run in runs[:SHOWN]]
    return "".join(lines) + (f"\n  and {len(runs) - SHOWN} more" if len(runs) > SHOWN else "")


def record_of(file: Path) -> dict | None:
    """The record that lies beside a kept cell's file; None where there is none, as for an exported adapter.

    Raises:
        StoreError: it is damaged.
    """
    path = file.with_suffix(".json")
    return Store(path.parent).load(path) if path.is_file() else None
