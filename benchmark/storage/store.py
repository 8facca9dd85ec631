"""Results on disk: one JSON file per run, named by the run ID.

    results/runs/<backbone>/<suite>/<task>/<method>/<run ID>.json   the record
    results/runs/.../<run ID>.npz                                   predictions, and logits if kept
    results/runs/.../<run ID>.safetensors                           adapter and head, if kept (not in git)
    results/failed/<run ID>.json                                    the traceback of a failed run
    results/damaged/...                                             quarantined files
    results/chosen/...                                              settings chosen by `tune`, derived from its trials

Predictions and adapter are written first.  The JSON file holds the SHA-256 of the predictions and is the commit point:
a run exists if its JSON file does.  `<run ID>.2.json` is a repetition; the one with the highest number counts.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...datasets.atomic_io import PREFIX, remove_temp_files
from ...datasets.reading import InvalidFile
from ..spec import PROTOCOL, RunSpec
from .commit import commit
from .garbage import without_collection
from .json_io import StoreError, to_text, unwritable, write_atomically
from .layout import LARGEST_CLASSES
from .predictions import PredictionsDamaged, PredictionsMissing, read_predictions
from .schema import (
    RECORD_NAME,
    SCHEMA,
    Failure,
    Run,
    parse_failure,
    parse_run,
    read_failure,
    read_run,
    repetition_of,
)


@dataclass(frozen=True)
class Store:
    """A results folder."""

    root: Path

    def folder(self, spec: RunSpec) -> Path:
        """Return the folder of a run's files."""
        return self.root.joinpath("runs", *(re.sub(r"^\.+|[^\w.+-]", "_", part) for part in _folder_names(spec)))

    def path(self, spec: RunSpec, repetition: int = 1) -> Path:
        """Return the path of a run's record."""
        return self.folder(spec) / (spec.run_id() + ("" if repetition == 1 else f".{repetition}") + ".json")

    def has(self, spec: RunSpec) -> bool:
        """Return True if the run is stored."""
        return bool(self.repetitions(spec))

    def finished(self, specs: Iterable[RunSpec]) -> set[str]:
        """Return the run IDs of the stored runs among `specs`.  Each folder is listed once, because NFS is slow."""
        wanted: dict[tuple[str, ...], list[RunSpec]] = {}
        for spec in specs:
            wanted.setdefault(_folder_names(spec), []).append(spec)
        found: set[str] = set()
        for group in wanted.values():
            found |= {run_id for run_id, _ in _records(self.folder(group[0]))} & {spec.run_id() for spec in group}
        return found

    def latest(self, spec: RunSpec) -> tuple[Run | None, list[str]]:
        """Load the latest valid repetition of a run; damaged records are quarantined and reported in the list.

        Raises:
            StoreError: A record cannot be read or quarantined, or was written by a newer version.
        """
        problems: list[str] = []
        for path in reversed(self.repetitions(spec)):
            run = self.load_valid(path)
            if isinstance(run, Run):
                return run, problems
            problems.append(run)
        return None, problems

    def repetitions(self, spec: RunSpec) -> list[Path]:
        """Return the records of a run, oldest first; numbers may be missing."""
        folder, wanted = self.folder(spec), spec.run_id()
        return sorted((folder / name for run_id, name in _records(folder) if run_id == wanted), key=repetition_of)

    def next_repetition(self, spec: RunSpec) -> int:
        """Return the highest stored repetition plus one."""
        return max(map(repetition_of, self.repetitions(spec)), default=0) + 1

    def has_adapter(self, spec: RunSpec) -> bool:
        """Return True if the latest repetition of a run has its adapter."""
        found = self.repetitions(spec)
        return bool(found) and found[-1].with_suffix(".safetensors").exists()

    def has_logits(self, spec: RunSpec) -> bool:
        """Return True if the latest repetition of a run has its logits."""
        found = self.repetitions(spec)
        with suppress(PredictionsMissing, PredictionsDamaged):
            return bool(found) and "logits" in read_predictions(found[-1].with_suffix(".npz"))
        return False

    def save(
        self,
        spec: RunSpec,
        record: dict[str, Any],
        predictions: np.ndarray,
        correct: np.ndarray | None = None,
        adapter: bytes | None = None,
        repetition: int | None = None,
        *,
        logits: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> Path:
        """Store a finished run and return the path of its record; existing records are never overwritten.

        Args:
            predictions: [n] class indices in the order of the evaluated split.
            correct: [n] bool, True for correct predictions; needed for paired comparisons, not part of the hash.
            adapter: Content of a safetensors file.
            logits: [n, classes] float16, see `Predictions`; given with `labels` [n].  Not part of the hash.
            repetition: Number of the repetition; if it is stored already, this run is dropped.  None: the next one.

        Raises:
            ValueError: A reader would refuse the record or the predictions; nothing is written.
            StoreError: The folder cannot be written; nothing of this run is left behind.
        """
        if predictions.ndim != 1 or not 0 <= predictions.min(initial=0) <= predictions.max(initial=0) < LARGEST_CLASSES:
            raise ValueError(f"predictions must be one class from 0 to {LARGEST_CLASSES - 1:,} per image")
        path = self.path(spec, repetition or self.next_repetition(spec))
        optional = {"correct": correct, "logits": logits, "labels": None if labels is None else labels.astype("<u2")}
        arrays = {"predictions": predictions.astype("<u2"), **{n: a for n, a in optional.items() if a is not None}}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        record = {
            "schema": SCHEMA,
            "protocol": PROTOCOL,
            "key": spec.run_id(),
            "spec": spec.to_json(),
            "predictions_sha256": hashlib.sha256(arrays["predictions"].tobytes()).hexdigest(),
            **record,
        }
        data = to_text(record).encode()
        parse_run(data, path)
        try:
            self.failure_path(spec).unlink(missing_ok=True)  # first, so that a crash never leaves both
        except OSError as error:
            raise unwritable(self.failure_path(spec), error) from None
        if not path.exists():
            commit(path, data, {".npz": buffer.getvalue(), ".safetensors": adapter})
        return path

    def load(self, path: Path) -> Run:
        """Load a record and check it: the run ID is recomputed and must match the file name.

        Raises:
            InvalidFile: A field is not valid, or content, run ID and name do not match.
            StoreError: The file cannot be read, or was written by a newer version.
        """
        try:
            return read_run(path)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from None

    def load_valid(self, path: Path) -> Run | str:
        """Load a record; quarantine it if it is damaged and return the message.  Raises `StoreError` as `load`."""
        try:
            return self.load(path)
        except InvalidFile as error:
            moved = self.quarantine(path)
            return f"{error}; moved to {moved}; repeat the command that made it to run it again"

    @without_collection()
    def load_runs(self) -> tuple[list[Run], list[str]]:
        """Load the latest valid repetition of all runs, sorted by run ID, and a message for each bad record.

        Damaged records are quarantined.
        """
        latest: dict[str, Run] = {}
        problems: list[str] = []
        for path in self.record_paths():
            try:
                run = self.load_valid(path)
            except StoreError as error:
                run = f"{error}; the file was left unchanged"
            if isinstance(run, str):
                problems.append(run)
            elif run.run_id not in latest or run.repetition > latest[run.run_id].repetition:
                latest[run.run_id] = run
        return [latest[run_id] for run_id in sorted(latest)], problems

    def record_paths(self) -> list[Path]:
        """Return the JSON files of all runs, sorted."""
        found = []
        for folder, _, names in sorted(os.walk(self.root / "runs")):
            parent = Path(folder)
            found += [parent / name for name in sorted(names) if name.endswith(".json") and not name.startswith(PREFIX)]
        return found

    def quarantine(self, path: Path) -> Path:
        """Move a file to `damaged/` without replacing an earlier one, and return its new path."""
        first = self.root / "damaged" / path.relative_to(self.root / "runs")
        target, number = first, 1
        while target.exists():
            number += 1
            target = first.with_name(f"{first.name}.{number}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another command has just moved it
                path.replace(target)
        except OSError as error:
            raise StoreError(f"{path} is damaged and cannot be moved to {target}: {error.strerror}") from None
        return target

    def failure_path(self, spec: RunSpec) -> Path:
        """Return the path of the record of a run's failure."""
        return self.root / "failed" / f"{spec.run_id()}.json"

    def save_failure(self, spec: RunSpec, reason: str, traceback: str, error_type: str = "") -> Path:
        """Store why a run failed and return the path of the record."""
        record = {"schema": SCHEMA, "key": spec.run_id(), "spec": spec.to_json()}
        record |= {"reason": reason, "error_type": error_type, "traceback": traceback}
        data = to_text(record).encode()
        parse_failure(data, self.failure_path(spec))
        write_atomically(self.failure_path(spec), data)
        return self.failure_path(spec)

    def load_failure(self, spec: RunSpec) -> Failure | None:
        """Load why the last attempt of a run failed; None if it did not fail.  Raises `StoreError`."""
        path = self.failure_path(spec)
        return self.load_failure_at(path) if path.exists() else None

    def load_failure_at(self, path: Path) -> Failure:
        """Load the record of a failure.

        Raises:
            InvalidFile: The record is damaged, or belongs to another run.
            StoreError: It cannot be read.
            FileNotFoundError: The run has just succeeded.
        """
        try:
            return read_failure(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from None

    def diverged(self, spec: RunSpec) -> bool:
        """Return True if the last attempt ended with a loss that is not finite.  Raises `StoreError`."""
        try:
            failure = self.load_failure(spec)
        except InvalidFile:  # the next attempt replaces the record
            return False
        return failure is not None and failure.error_type == "Diverged"

    def load_failures(self) -> tuple[list[Failure], list[str]]:
        """Load the records of all failed runs, and return a message for each that cannot be read."""
        found: list[Failure] = []
        problems: list[str] = []
        for path in sorted((self.root / "failed").glob("*.json")):
            with suppress(FileNotFoundError):  # the run has just succeeded
                try:
                    found.append(self.load_failure_at(path))
                except (InvalidFile, StoreError) as error:
                    problems.append(f"{error}; delete it, and run it again")
        return found, problems

    def has_another_version(self, failed: RunSpec) -> bool:
        """Return True if the run is stored for another version or plug-in file of its method."""
        folder = self.folder(failed)
        for _, name in _records(folder):
            try:
                spec = read_run(folder / name).spec
            except (OSError, InvalidFile, StoreError):
                continue
            method = replace(spec.method, version=failed.method.version, plugin=failed.method.plugin)
            if replace(spec, method=method) == failed:
                return True
        return False

    def chosen(self, spec: RunSpec) -> Path:
        """Return the folder of the settings that `tune` chose for the task and method of a trial."""
        return self.root / "chosen" / self.folder(spec).relative_to(self.root / "runs")

    def remove_temp_files(self) -> None:
        """Remove the temporary files of killed processes."""
        for folder, _, _ in os.walk(self.root):
            with suppress(OSError):  # read-only, or just removed
                remove_temp_files(Path(folder))

    def require_results_folder(self) -> None:
        """Raise `ValueError` if the folder does not exist or holds no results."""
        if not any((self.root / name).is_dir() for name in ("runs", "failed", "claims")):
            there = f"{self.root} holds no results: it has no runs/"
            what = there if self.root.is_dir() else f"there is no results folder {self.root}"
            raise ValueError(f"{what}; set --results to another folder, or let `vtab-peft run` finish a run first")


def _folder_names(spec: RunSpec) -> tuple[str, str, str, str]:
    return spec.backbone.name, spec.task.suite, spec.task.name, spec.method.name


def _records(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield run ID and file name of each record in a folder; nothing if the folder does not exist."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(folder):  # noqa: PTH208 (only names are needed)
            if (match := RECORD_NAME.fullmatch(name)) is not None:
                yield match["run_id"], name
