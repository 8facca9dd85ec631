"""Find adapter checkpoints by the beginning of a run ID or by path."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...datasets.first_of import first_of
from ...datasets.reading import expanded, read_json
from ..storage.json_io import StoreError
from ..storage.layout import LARGEST_RECORD
from ..storage.schema import repetition_of
from ..storage.store import Store

EXPORTED = "adapter.safetensors"
"""File name of an exported adapter."""
SHOWN = 6
"""Number of runs listed in a message."""


def find_adapter(text: str, results: Path) -> Path:
    """Return the safetensors file of a run, its latest repetition, or of a path.

    Args:
        text: Beginning of a run ID, a file, or a folder made by `export --as adapter`.

    Raises:
        StoreError: Nothing matches, several runs match, or the run was stored without its adapter.
    """
    path = expanded(text)
    if path.is_dir() and (path / EXPORTED).is_file():
        return path / EXPORTED
    if path.suffix in (".safetensors", ".json"):
        return _beside(path)
    runs = sorted((results / "runs").rglob("*.json"))
    found = files_of_run(text, runs, results)
    if text and not found and path.is_dir():
        raise StoreError(
            f"{path} has no {EXPORTED}: give a folder made by `vtab-peft export --as adapter`; "
            "load merged models with timm and peft folders with peft"
        )
    if not found and not results.is_dir():
        raise StoreError(f"there is no results folder {results} and no file {text}; set --results to another folder")
    if not found:
        raise StoreError(f"no run in {results} begins with {text!r}, and no such file exists.{_suggested(text, runs)}")
    return _beside(max(found, key=repetition_of))


def files_of_run(text: str, files: Sequence[Path], results: Path) -> list[Path]:
    """Return the JSON files of the run whose ID begins with `text`; empty if there is none.

    Raises:
        StoreError: Several runs begin with it.
    """
    matches = [file for file in files if text and file.name.startswith(text)]
    if (runs := len({file.name[:16] for file in matches})) > 1:
        raise StoreError(f"{runs} runs in {results} begin with {text!r}; give more of the run ID:{_shown(matches)}")
    return matches


def _beside(path: Path) -> Path:
    """Return the adapter of a record."""
    file = path.with_suffix(".safetensors")
    if not file.is_file():
        missing = path if not path.exists() else file
        raise StoreError(f"{missing} does not exist; train the run with --save-adapters (of `vtab-peft run` or `tune`)")
    return file


def _suggested(text: str, runs: Sequence[Path]) -> str:
    stored = [run for run in runs if run.with_suffix(".safetensors").is_file()]
    if not stored:
        return " No run there has its adapter: train with --save-adapters (`vtab-peft run` or `tune`)"
    near = set(difflib.get_close_matches(text, [run.stem[:16] for run in stored], n=3, cutoff=0.6))
    likely = [run for run in stored if run.stem[:16] in near or text in run.parts[-4:]]
    return f" {'Did you mean' if likely else 'Runs with an adapter'}:{_shown(likely or stored)}"


def _shown(runs: Sequence[Path]) -> str:
    lines = [f"{run.name.removesuffix('.json')}  {' · '.join(run.parts[-5:-1])}" for run in runs]
    return "\n  " + first_of(lines, SHOWN, "\n  ")


def record_of(file: Path) -> dict[str, Any] | None:
    """Return the record beside an adapter file; None for an exported adapter.

    Raises:
        InvalidFile: The record is damaged.
        StoreError: It cannot be read, or was written by a newer version.
    """
    path = file.with_suffix(".json")
    if not path.is_file():
        return None
    Store(path.parent).load(path)  # checks it
    return read_json(path, dict[str, Any], LARGEST_RECORD)
