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


def test_a_chosen_alpha_is_stored_before_any_test(tmp_path: Path) -> None:
    chosen = shift(tests=[], wise_ft=WiseFt(0.5, KEY, [(0.5, 0.9)], []))
    assert load_shift(save_shift(tmp_path, chosen)) == chosen


def test_what_only_the_earlier_record_of_a_model_has_is_kept(tmp_path: Path) -> None:
    better = [msgspec.structs.replace(TESTS[0], correct=10), *TESTS[1:-1]]
    path = save_shift(tmp_path, shift())
    save_shift(tmp_path, shift(tests=better, wise_ft=None))
    assert load_shift(path) == shift(tests=[*better, TESTS[-1]])
    other = shift(tests=better, wise_ft=None, predictions_sha256="a1" * 32)
    assert load_shift(save_shift(tmp_path, other)) == other
    path.write_bytes(b"damaged")
    assert load_shift(save_shift(tmp_path, shift())) == shift()


def test_damaged_records_are_named(tmp_path: Path) -> None:
    save_shift(tmp_path, shift())
    other = path_of(tmp_path, "f" * 16)
    other.write_bytes(path_of(tmp_path, KEY).read_bytes())
    with pytest.raises(InvalidFile):
        load_shift(other)
    found, (problem,) = load_shifts(tmp_path)
    assert list(found) == [KEY]
    assert str(other) in problem
