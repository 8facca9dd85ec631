"""Shift records: the accuracies of a stored run's model on shifted tests, one JSON file each.

    results/shift/<run ID>.json

The run ID and the hash of the run's predictions bind a record to the model.  The record of the run itself never
changes.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated

import msgspec

from ...datasets.reading import InvalidFile
from ...datasets.schema import Count, Invalid, Positive, from_json
from .layout import Accuracy, Provenance
from .side_records import RecordKind

SCHEMA = 1
"""Version of the record's layout."""


class Outcome(msgspec.Struct, frozen=True):
    """The result of a model on one test."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][\w.+-]{0,99}\Z")]
    """Corruption, further list, or `clean`."""
    severity: Annotated[int, msgspec.Meta(ge=0, le=5)]
    """0 of further lists and of `clean`."""
    data: str
    """Hash of the test, see `ShiftedTest.data`."""
    images: Positive
    correct: Count

    @property
    def accuracy(self) -> float:
        """Accuracy in [0, 1]."""
        return self.correct / self.images


def accuracies(tests: Iterable[Outcome]) -> dict[str, float]:
    """Return the accuracy on each test: the mean over severities of a corruption, and of all corruptions, `corrupted`.

    `gap` is `clean` minus `corrupted`.
    """
    by_name: dict[str, list[float]] = {}
    for test in tests:
        by_name.setdefault(test.name, []).append(test.accuracy)
    found = {name: fmean(values) for name, values in by_name.items()}
    mean = fmean(found[test.name] for test in tests if test.severity)
    return found | {"corrupted": mean, "gap": found["clean"] - mean}


class WiseFt(msgspec.Struct, frozen=True):
    """The model between the pretrained and the merged weights."""

    alpha: Accuracy
    """Weight of the merged weights: the best on val."""
    chosen_by: str
    """ID of the run that never trained on val, whose model chose alpha."""
    val: list[tuple[Accuracy, Accuracy]]
    """Each alpha with its accuracy on val."""
    tests: list[Outcome]


class Shift(msgspec.Struct, frozen=True):
    """A shift record."""

    schema: Count
    key: str
    """Run ID."""
    predictions_sha256: str
    """That of the run's record."""
    tests: list[Outcome]
    """One per test; `clean` has the test images that are corrupted.  Empty if only alpha was chosen so far."""
    provenance: Provenance
    wise_ft: WiseFt | None = None


def path_of(root: Path, run_id: str) -> Path:
    """Return the path of a run's shift record in a results folder."""
    return root / "shift" / f"{run_id}.json"


def _parse(data: bytes, path: Path) -> Shift:
    shift = from_json(data, Shift)
    if shift.schema > SCHEMA:
        raise Invalid("is from a newer version", "schema")
    if shift.key != path.stem:
        raise Invalid("is not the run ID in the file name", "key")
    for tests in (shift.tests, shift.wise_ft.tests if shift.wise_ft else []):
        if any(test.correct > test.images for test in tests):
            raise Invalid("counts more correct images than images", "tests")
        names = {(test.name, test.severity) for test in tests}
        if len(names) < len(tests):
            raise Invalid("has a test twice", "tests")
        if names and (("clean", 0) not in names or not any(severity for _, severity in names)):
            raise Invalid("lacks the clean test or every corruption", "tests")
    return shift


SHIFTS = RecordKind("shift/*.json", _parse, "run `vtab-peft shift` again")
load_shift = SHIFTS.load


def save_shift(root: Path, shift: Shift) -> Path:
    """Write a record in place of an earlier one of the run; errors as `RecordKind.save`.

    What only the earlier one of the same model has is kept, outcomes of other tests and WiSE-FT: another machine may
    lack a list, and another command may have stored outcomes meanwhile.
    """
    path = path_of(root, shift.key)
    try:
        stored = load_shift(path) if path.exists() else None
    except InvalidFile:
        stored = None
    return SHIFTS.save(path, _merged(shift, stored))


def _merged(new: Shift, stored: Shift | None) -> Shift:
    if stored is None or stored.predictions_sha256 != new.predictions_sha256:
        return new
    wise = new.wise_ft or stored.wise_ft
    if wise and stored.wise_ft and wise.alpha == stored.wise_ft.alpha:
        wise = msgspec.structs.replace(wise, tests=_united(wise.tests, stored.wise_ft.tests))
    return msgspec.structs.replace(new, tests=_united(new.tests, stored.tests), wise_ft=wise)


def _united(new: Sequence[Outcome], stored: Sequence[Outcome]) -> list[Outcome]:
    known = {(test.name, test.severity) for test in new}
    return [*new, *(test for test in stored if (test.name, test.severity) not in known)]


def load_shifts(root: Path) -> tuple[dict[str, Shift], list[str]]:
    """Return run ID -> record of a results folder, and a message for each that cannot be read."""
    found, problems = SHIFTS.load_all(root)
    return {shift.key: shift for shift in found.values()}, problems
