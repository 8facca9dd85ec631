"""Results on disk: one JSON per run, named by the key of its spec.

    results/runs/<backbone>/<suite>/<task>/<method>/<key>.json      the truth
    results/runs/.../<key>.npz                                      its test predictions (not in git)
    results/runs/.../<key>.safetensors                              its adapter and head, if kept (not in git)
    results/failed/<key>.json                                       the traceback of a cell that failed
    results/damaged/...                                             files set aside because they cannot be trusted
    results/chosen/...                                              what `tune` chose, derived from its trials

The predictions and the adapter are written first; the JSON, holding the predictions' SHA-256, is the commit point: a
run exists when its JSON does.  `<key>.2.json` is a repetition of the same run.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..datasets.atomic import replacing
from .spec import PROTOCOL, RunSpec, canonical_json

SCHEMA = 1
"""Version of the record's layout (not of the protocol, which is in the key)."""

_NAME = re.compile(r"(?P<key>[0-9a-f]{16})(?:\.(?P<repetition>[2-9]|[1-9][0-9]+))?\.json")


class StoreError(Exception):
    """A results folder that cannot be used; the message says what, where, and what to do."""


class Damaged(StoreError):
    """A record that contradicts itself or lacks something; its cell has to be run again."""


def write_atomically(path: Path, data: bytes) -> None:
    """A reader sees all of the file or nothing.

    Raises:
        StoreError: the folder cannot be written (read-only, full disk); nothing is left behind.
    """
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        hint = "free space or give another --results folder"
        raise StoreError(f"cannot write {path}: {error.strerror}; {hint}") from None


def to_text(record: dict[str, Any]) -> str:
    """A record as people read and diff it: indented, sorted keys, short lists on one line."""
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
    flat = re.compile(r"\[\n[^\[\]{}\"]*\]")  # a line end is never inside a string, so strings stay as they are
    return flat.sub(lambda match: " ".join(match.group().split()), text) + "\n"


@dataclass(frozen=True)
class Store:
    """A results folder."""

    root: Path

    def folder(self, spec: RunSpec) -> Path:
        parts = (spec.backbone.name, spec.task.suite, spec.task.name, spec.method.name)
        return self.root.joinpath("runs", *(re.sub(r"^\.+|[^\w.+-]", "_", part) for part in parts))

    def path(self, spec: RunSpec, repetition: int = 1) -> Path:
        return self.folder(spec) / (spec.key() + ("" if repetition == 1 else f".{repetition}") + ".json")

    def has(self, spec: RunSpec) -> bool:
        return self.path(spec).exists()

    def get(self, spec: RunSpec) -> dict[str, Any] | None:
        """The latest record of a run, or None."""
        latest = [path for path in self.repetitions(spec) if path.exists()]
        return self.load(latest[-1]) if latest else None

    def repetitions(self, spec: RunSpec) -> list[Path]:
        """The files of a run, oldest first; empty when it has not been run."""
        found: list[Path] = []
        while (path := self.path(spec, len(found) + 1)).exists():
            found.append(path)
        return found

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
    ) -> Path:
        """Store a finished run; an existing one is never overwritten, the new one becomes its next repetition.

        predictions: [n] class indices in the order of the evaluated split.
        correct: [n] bool, whether each is right; what paired comparisons need, and no part of the hash.
        adapter: a safetensors file, if it was to be kept.
        """
        path = self.path(spec, len(self.repetitions(spec)) + 1)
        classes = predictions.astype("<u2")
        buffer = io.BytesIO()
        if correct is None:
            np.savez_compressed(buffer, predictions=classes)
        else:
            np.savez_compressed(buffer, predictions=classes, correct=correct)
        write_atomically(path.with_suffix(".npz"), buffer.getvalue())
        if adapter is None:  # what a run that died before its commit point may have left
            path.with_suffix(".safetensors").unlink(missing_ok=True)
        else:
            write_atomically(path.with_suffix(".safetensors"), adapter)
        record = {
            "schema": SCHEMA,
            "protocol": PROTOCOL,
            "key": spec.key(),
            "spec": spec.to_json(),
            "predictions_sha256": hashlib.sha256(classes.tobytes()).hexdigest(),
            **record,
        }
        write_atomically(path, to_text(record).encode())
        self.failure(spec).unlink(missing_ok=True)
        return path

    def failure(self, spec: RunSpec) -> Path:
        return self.root / "failed" / f"{spec.key()}.json"

    def diverged(self, spec: RunSpec) -> bool:
        """Whether the last attempt ended with a loss that was not finite, as it would again."""
        path = self.failure(spec)
        return path.exists() and json.loads(path.read_text(encoding="utf-8"))["reason"].startswith("Diverged")

    def chosen(self, spec: RunSpec) -> Path:
        """Where the choice of settings for the task and method of a trial lies."""
        return self.root / "chosen" / self.folder(spec).relative_to(self.root / "runs")

    def put_failure(self, spec: RunSpec, reason: str, traceback: str) -> Path:
        record = {"schema": SCHEMA, "key": spec.key(), "spec": spec.to_json(), "reason": reason, "traceback": traceback}
        write_atomically(self.failure(spec), to_text(record).encode())
        return self.failure(spec)

    def load(self, path: Path) -> dict[str, Any]:
        """A record whose key was recomputed and agrees with its name.

        Raises:
            Damaged: its content, key and name do not fit together.
            StoreError: it cannot be read, or was written by a newer version.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            schema, protocol = record["schema"], record["protocol"]
            if schema > SCHEMA or protocol > PROTOCOL:
                raise StoreError(f"{path} was written by a newer vtab-peft (protocol {protocol}); update this one")
            spec = RunSpec.from_json(record["spec"])
            named = _NAME.fullmatch(path.name)
            if named is None or not spec.key() == record["key"] == named["key"]:
                raise ValueError("its key does not match its spec and name")
            if not 0 <= record["result"]["accuracy"] <= 1:
                raise ValueError("its accuracy is not in [0, 1]")
            _row(path, record)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise Damaged(f"{path} is damaged: {what}") from None
        return record

    def records(self, complaints: list[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
        """All records, sorted by path; a damaged file is set aside in `damaged/` and named in `complaints`."""
        for path in sorted((self.root / "runs").rglob("*.json")):
            try:
                yield path, self.load(path)
            except Damaged as error:
                aside = self._set_aside(path)
                complaints.append(f"{error}; set aside as {aside}; run the same command again to fill the gap")
            except StoreError as error:
                complaints.append(f"{error}; left where it is")

    def _set_aside(self, path: Path) -> Path:
        """Move a file to `damaged/`, beside what was set aside under the same name before."""
        first = self.root / "damaged" / path.relative_to(self.root / "runs")
        aside, number = first, 1
        while aside.exists():
            number += 1
            aside = first.with_name(f"{first.name}.{number}")
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.replace(aside)
        except OSError as error:
            raise StoreError(f"{path} is damaged and cannot be moved to {aside}: {error.strerror}") from None
        return aside

    def frame(self, complaints: list[str]) -> pd.DataFrame:
        """One row per run (its latest repetition), sorted by key; the columns are `COLUMNS`."""
        latest: dict[str, dict[str, Any]] = {}
        for path, record in self.records(complaints):
            row = _row(path, record)
            if row["key"] not in latest or row["repetition"] > latest[row["key"]]["repetition"]:
                latest[row["key"]] = row
        return pd.DataFrame([latest[key] for key in sorted(latest)], columns=list(COLUMNS))


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
what `tune` was given, otherwise `spec`; `configurations` is how many it tried; `oracle_...` needs `--oracle`; `origin`
is JSON text of the record's provenance: when, where and with which versions it was made."""


def _row(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    spec, result, facts = record["spec"], record["result"], record["facts"]
    row = {
        "key": record["key"],
        "repetition": int(repetition) if (repetition := path.name.split(".")[1]) != "json" else 1,
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
        "device": record["provenance"]["device"],
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


def _normalisation(mean: list[float], std: list[float]) -> str:
    return f"mean {'/'.join(f'{m:g}' for m in mean)} std {'/'.join(f'{s:g}' for s in std)}"
