"""Every stored result keeps its run ID, its table and its place, and one of them is repeated.

The data are what `record()` in tests/support/freeze.py wrote: `python tests/support/freeze.py`.
"""

import hashlib
import json
import shutil
from pathlib import Path

import freeze
import pytest

REPEATED = "toy_vit/toy/count/linear/93c4078e7cb3d820.json"
"""Trains in a second."""

LISTED = 1103
LIST_SHA256 = "698a22fbe657f2c2e22b595844bd71640c6f73f63cec732806fe75c9e1f88af3"


@pytest.fixture(scope="module")
def listed() -> list[str]:
    """Paths of the frozen records; each file is named by its key."""
    return (freeze.FROZEN / "runs.txt").read_text(encoding="utf-8").splitlines()


def test_the_list_of_runs_is_the_frozen_one(listed: list[str]) -> None:
    assert len(listed) == LISTED
    assert hashlib.sha256("\n".join(listed).encode()).hexdigest() == LIST_SHA256


def test_every_stored_spec_derives_to_the_run_id_that_names_it(listed: list[str]) -> None:
    derived = freeze.stored_runs()
    assert not set(listed) - set(derived), "a stored result is gone or has moved"
    for path, key in derived.items():
        stored = json.loads((freeze.RESULTS / "runs" / path).read_text(encoding="utf-8"))["key"]
        assert key == stored == Path(path).name.partition(".")[0], path


def test_the_place_of_every_record_is_derived_from_its_spec(listed: list[str]) -> None:
    assert all(freeze.place_of(path) == path.rpartition("/")[0] for path in listed)


def test_committed_tables_are_the_frozen_ones() -> None:
    """Results may grow: then the tables of the boards that grew are frozen anew, in the commit that adds the runs."""
    committed = {name: freeze.sha256(data) for name, data in freeze.committed_tables().items()}
    frozen = freeze.frozen("tables")
    assert {name: committed.get(name) for name in frozen} == frozen


def test_stored_runs_give_the_bytes_of_the_committed_tables() -> None:
    rebuilt = freeze.tables()
    assert rebuilt == freeze.committed_tables()
    assert set(freeze.frozen("tables")) <= set(rebuilt)


@pytest.mark.slow
def test_a_stored_result_is_repeated_with_its_losses(tmp_path: Path) -> None:
    """Through the command line, data and training included; another processor may differ in the last digits."""
    first = tmp_path / "runs" / REPEATED
    first.parent.mkdir(parents=True)
    shutil.copy(freeze.RESULTS / "runs" / REPEATED, first)
    freeze.repeat(first.stem, tmp_path)
    before, now = (json.loads(path.read_text()) for path in (first, first.with_suffix(".2.json")))
    assert now["key"] == before["key"]
    assert now["result"]["loss_curve"] == pytest.approx(before["result"]["loss_curve"], rel=1e-4)
    assert now["result"]["accuracy"] == pytest.approx(before["result"]["accuracy"], abs=0.01)
    fields, known = freeze.paths(now), freeze.frozen("formats")["record"]
    assert set(known["always"]) <= fields
    assert freeze.paths(before) <= fields
