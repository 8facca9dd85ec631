"""Shift records: written and read unchanged, refused if they contradict themselves."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from shifts import TESTS, make_shift
from vtab_peft.benchmark.storage.shifts import (
    SCHEMA,
    Outcome,
    Shift,
    WiseFt,
    accuracies,
    load_shift,
    load_shifts,
    path_of,
    save_shift,
)
from vtab_peft.datasets.reading import InvalidFile
from vtab_peft.datasets.schema import Invalid

KEY = "0123456789abcdef"


def shift(**changes: Any) -> Shift:
    return msgspec.structs.replace(make_shift(KEY, "5e" * 32), **changes)


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert load_shifts(tmp_path) == ({}, [])
    assert load_shift(save_shift(tmp_path, shift())) == shift()
    assert load_shifts(tmp_path) == ({KEY: shift()}, [])


def test_corrupted_is_the_mean_over_all_corruptions() -> None:
    assert accuracies(TESTS) == pytest.approx(
        {"clean": 0.9, "jpeg": 0.6, "contrast": 0.3, "sketch": 0.25, "corrupted": 0.5, "gap": 0.4}
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"tests": [*TESTS, TESTS[1]]},
        {"tests": TESTS[1:]},
        {"tests": [TESTS[0], TESTS[4]]},
        {"tests": [*TESTS[:4], Outcome("sketch", 0, "a4", 4, 5)]},
        {"tests": [*TESTS, Outcome("jpeg", 6, "a5", 4, 1)]},
        {"wise_ft": WiseFt(0.5, KEY, [], TESTS[:1])},
        {"wise_ft": WiseFt(1.5, KEY, [], TESTS)},
        {"schema": SCHEMA + 1},
    ],
)
def test_contradictions_are_not_written(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        save_shift(tmp_path, shift(**changes))
    assert not path_of(tmp_path, KEY).exists()


def test_damaged_records_are_named(tmp_path: Path) -> None:
    save_shift(tmp_path, shift())
    other = path_of(tmp_path, "f" * 16)
    other.write_bytes(path_of(tmp_path, KEY).read_bytes())
    with pytest.raises(InvalidFile):
        load_shift(other)
    found, (problem,) = load_shifts(tmp_path)
    assert list(found) == [KEY]
    assert str(other) in problem
