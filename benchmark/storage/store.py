"""Results on disk: one JSON per run, named by the key of its spec.

    results/runs/<backbone>/<suite>/<task>/<method>/<key>.json      the truth
    results/runs/.../<key>.npz                                      its test predictions (not in git)
    results/runs/.../<key>.safetensors                              its adapter and head, if kept (not in git)
    results/failed/<key>.json                                       the traceback of a cell that failed
    results/damaged/...                                             files set aside because they cannot be trusted
    results/chosen/...                                              what `tune` chose, derived from its trials

The predictions and the adapter are written first; the JSON, holding the predictions' SHA-256, is the commit point: a
run exists when its JSON does.  `<key>.2.json` is a repetition of the same run; of several the highest number counts.
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
import pandas as pd

from ...datasets.atomic_io import remove_temp_files
from ..spec import PROTOCOL, RunSpec
from .json_io import (
    BROKEN,
    CorruptRecord,
    StoreError,
    content,
    create_new,
    from_text,
    to_text,
    unwritable,
    what_is_wrong,
    write_atomically,
)
from .schema import COLUMNS, error_type_of, repetition_of, row_of

SCHEMA = 1
"""Version of the record's layout (not of the protocol, which is in the key)."""

_NAME = re.compile(r"(?P<key>[0-9a-f]{16})(?:\.(?P<repetition>[2-9]|[1-9][0-9]+))?\.json")


@dataclass(frozen=True)
class Store:
    """A results folder."""

    root: Path

    def folder(self, spec: RunSpec) -> Path:
        return self.root.joinpath("runs", *(re.sub(r"^\.+|[^\w.+-]", "_", part) for part in _home(spec)))

    def path(self, spec: RunSpec, repetition: int = 1) -> Path:
        return self.folder(spec) / (spec.run_id() + ("" if repetition == 1 else f".{repetition}") + ".json")

    def has(self, spec: RunSpec) -> bool:
        return bool(self.repetitions(spec))

    def finished(self, specs: Iterable[RunSpec]) -> set[str]:
        """Keys of those that are stored.  Every folder is listed once: asking 50,000 times costs minutes over NFS."""
        specs = list(specs)
        homes = {_home(spec): spec for spec in specs}
        stored = {home: {key for key, _ in _records(self.folder(spec))} for home, spec in homes.items()}
        return {key for spec in specs if (key := spec.run_id()) in stored[_home(spec)]}

    def get(self, spec: RunSpec, complaints: list[str]) -> dict[str, Any] | None:
        """The latest sound record of a run, or None; damaged ones are set aside and named in `complaints`.

        Raises:
            StoreError: a record cannot be read or set aside, or was written by a newer version.
        """
        for path in reversed(self.repetitions(spec)):
            if (record := self.load_valid(path, complaints)) is not None:
                return record
        return None

    def repetitions(self, spec: RunSpec) -> list[Path]:
        """The files of a run, oldest first; empty when it has not been run.  Numbers lack where one was deleted."""
        own = spec.run_id()
        return sorted((path for key, path in _records(self.folder(spec)) if key == own), key=repetition_of)

    def next_repetition(self, spec: RunSpec) -> int:
        """One above the highest there is: the last to be run is the one that counts, whichever others were deleted."""
        return max(map(repetition_of, self.repetitions(spec)), default=0) + 1

    def has_adapter(self, spec: RunSpec) -> bool:
        """Whether the latest repetition of a run kept its adapter."""
        found = self.repetitions(spec)
        return bool(found) and found[-1].with_suffix(".safetensors").exists()

    def put(
        self,
        spec: RunSpec,
        record: dict[str, Any],
        predictions: np.ndarray,
        correct: np.ndarray | None = None,
        adapter: bytes | None = None,
        repetition: int | None = None,
    ) -> Path:
        """Store a finished run; an existing one is never overwritten.  Returns the record's file.

        predictions: [n] class indices in the order of the evaluated split.
        correct: [n] bool, whether each is right; what paired comparisons need, and no part of the hash.
        adapter: a safetensors file, if it was to be kept.
        repetition: which one it was begun as; if that was stored meanwhile, the stored one stays and this one is
            dropped.  None: the next one.
        """
        path = self.path(spec, repetition or self.next_repetition(spec))
        classes = predictions.astype("<u2")
        buffer = io.BytesIO()
        if correct is None:
            np.savez_compressed(buffer, predictions=classes)
        else:
            np.savez_compressed(buffer, predictions=classes, correct=correct)
        record = {
            "schema": SCHEMA,
            "protocol": PROTOCOL,
            "key": spec.run_id(),
            "spec": spec.to_json(),
            "predictions_sha256": hashlib.sha256(classes.tobytes()).hexdigest(),
            **record,
        }
        try:
            self.failure(spec).unlink(missing_ok=True)  # first, so that no death between leaves both
        except OSError as error:
            raise unwritable(self.failure(spec), error) from None
        self._commit(path, record, {".npz": buffer.getvalue(), ".safetensors": adapter})
        return path

    def _commit(self, path: Path, record: dict[str, Any], beside: dict[str, bytes | None]) -> None:
        """Files beside the record first, the record last, unless another process has just done the same.

        Its record stays then, with its files or with none: what lies beside a record is always of the same run.
        """
        if path.exists():
            return
        for suffix, data in beside.items():
            if data is None:  # what a run that died before its commit point may have left
                path.with_suffix(suffix).unlink(missing_ok=True)
            else:
                write_atomically(path.with_suffix(suffix), data)
        ours = {path.with_suffix(suffix): data for suffix, data in beside.items() if data is not None}
        if create_new(path, to_text(record).encode()):
            for file, data in ours.items():
                if content(file) != data:  # the other process wrote its own after ours
                    write_atomically(file, data)
        elif self.load(path)["predictions_sha256"] != record["predictions_sha256"]:
            for file, data in ours.items():
                if content(file) == data:
                    file.unlink(missing_ok=True)

    def failure(self, spec: RunSpec) -> Path:
        return self.root / "failed" / f"{spec.run_id()}.json"

    def diverged(self, spec: RunSpec) -> bool:
        """Whether the last attempt ended with a loss that was not finite, as it would again."""
        path = self.failure(spec)
        try:
            return error_type_of(from_text(path.read_text(encoding="utf-8"))) == "Diverged"
        except FileNotFoundError:
            return False
        except (OSError, *BROKEN) as error:
            raise StoreError(f"{path} cannot be read ({error}); delete it") from None

    def has_traceback(self, spec: RunSpec) -> bool:
        """Whether the record of a failure holds one; of a worker that was lost there is none."""
        try:
            return bool(from_text(self.failure(spec).read_text(encoding="utf-8"))["traceback"])
        except (OSError, *BROKEN):
            return False

    def failures(self, complaints: list[str]) -> Iterator[dict[str, Any]]:
        """The records of failed cells, by key; one that cannot be read is named in `complaints` and left there."""
        for path in sorted((self.root / "failed").glob("*.json")):
            try:
                record = from_text(path.read_text(encoding="utf-8"))
                if not RunSpec.from_json(record["spec"]).run_id() == record["key"] == path.stem:
                    raise ValueError("its key does not match its spec and name")
                if not isinstance(record["reason"], str):
                    raise ValueError("its reason is no text")
            except FileNotFoundError:
                continue  # the cell has just succeeded
            except (OSError, *BROKEN) as error:
                complaints.append(f"{path} is no record of a failure ({what_is_wrong(error)}); delete it")
            else:
                yield record

    def has_another_version(self, failed: RunSpec) -> bool:
        """Whether a cell that failed is stored under another version of its method, or with another plug-in file."""
        for _, path in _records(self.folder(failed)):
            try:
                spec = RunSpec.from_json(from_text(path.read_text(encoding="utf-8"))["spec"])
            except (OSError, *BROKEN):
                continue
            method = replace(spec.method, version=failed.method.version, plugin=failed.method.plugin)
            if replace(spec, method=method) == failed:
                return True
        return False

    def chosen(self, spec: RunSpec) -> Path:
        """Where the choice of settings for the task and method of a trial lies."""
        return self.root / "chosen" / self.folder(spec).relative_to(self.root / "runs")

    def put_failure(self, spec: RunSpec, reason: str, traceback: str, error_type: str = "") -> Path:
        """Record a failed run.  error_type: class name of the exception."""
        record = {
            "schema": SCHEMA,
            "key": spec.run_id(),
            "spec": spec.to_json(),
            "reason": reason,
            "error_type": error_type,
            "traceback": traceback,
        }
        write_atomically(self.failure(spec), to_text(record).encode())
        return self.failure(spec)

    def remove_temp_files(self) -> None:
        """Remove what killed processes left half-written, wherever it lies."""
        for folder in (self.root, *self.root.rglob("*/")):
            with suppress(OSError):  # a folder that cannot be written, or has just been removed
                remove_temp_files(folder)

    def load(self, path: Path) -> dict[str, Any]:
        """A record whose key was recomputed and agrees with its name.

        Raises:
            CorruptRecord: its content, key and name do not fit together.
            StoreError: it cannot be read, or was written by a newer version.
        """
        try:
            record = from_text(path.read_text(encoding="utf-8"))
            schema, protocol = record["schema"], record["protocol"]
            if schema > SCHEMA or protocol > PROTOCOL:
                raise StoreError(f"{path} was written by a newer vtab-peft (protocol {protocol}); update this one")
            spec = RunSpec.from_json(record["spec"])
            named = _NAME.fullmatch(path.name)
            if named is None or not spec.run_id() == record["key"] == named["key"]:
                raise ValueError("its key does not match its spec and name")
            if not 0 <= record["result"]["accuracy"] <= 1:
                raise ValueError("its accuracy is not in [0, 1]")
            row_of(path, record)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from None
        except BROKEN as error:
            raise CorruptRecord(f"{path} is damaged: {what_is_wrong(error)}") from None
        return record

    def records(self, complaints: list[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
        """All records, sorted by path; a damaged file is set aside in `damaged/` and named in `complaints`."""
        for path in sorted((self.root / "runs").rglob("*.json")):
            try:
                record = self.load_valid(path, complaints)
            except StoreError as error:
                complaints.append(f"{error}; left where it is")
            else:
                if record is not None:
                    yield path, record

    def load_valid(self, path: Path, complaints: list[str]) -> dict[str, Any] | None:
        """A record; None when it was damaged, and then its file is set aside.  Raises `StoreError` as `load` does."""
        try:
            return self.load(path)
        except CorruptRecord as error:
            aside = self.quarantine(path)
            complaints.append(f"{error}; set aside as {aside}; the command that made it fills the gap")
            return None

    def quarantine(self, path: Path) -> Path:
        """Move a file to `damaged/`, beside what was set aside under the same name before."""
        first = self.root / "damaged" / path.relative_to(self.root / "runs")
        aside, number = first, 1
        while aside.exists():
            number += 1
            aside = first.with_name(f"{first.name}.{number}")
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another command has just set it aside
                path.replace(aside)
        except OSError as error:
            raise StoreError(f"{path} is damaged and cannot be moved to {aside}: {error.strerror}") from None
        return aside

    def require_results_folder(self) -> None:
        """Raises `ValueError`: the folder is not there, or nothing that a sweep makes is in it."""
        if not any((self.root / name).is_dir() for name in ("runs", "failed", "claims")):
            what = "is no results folder" if self.root.is_dir() else "is not there"
            raise ValueError(f"{self.root} {what}: there is no runs/ in it; give another --results, or `run` first")

    def frame(self, complaints: list[str]) -> pd.DataFrame:
        """One row per run (its latest repetition), sorted by key; the columns are `COLUMNS`."""
        latest: dict[str, dict[str, Any]] = {}
        for path, record in self.records(complaints):
            row = row_of(path, record)
            if row["key"] not in latest or row["repetition"] > latest[row["key"]]["repetition"]:
                latest[row["key"]] = row
        return pd.DataFrame([latest[key] for key in sorted(latest)], columns=list(COLUMNS))


def _home(spec: RunSpec) -> tuple[str, str, str, str]:
    return spec.backbone.name, spec.task.suite, spec.task.name, spec.method.name


def _records(folder: Path) -> Iterator[tuple[str, Path]]:
    """(key, file) of the records in a folder; none where there is no folder."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 (names are all that is needed)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if (named := _NAME.fullmatch(name)) is not None:
            yield named["key"], folder / name
