"""Test the set of official numbers: complete, small, used, and in line with what the methods claim."""

import json
import re
from pathlib import Path

import pytest
from golden_cases import FOLDER, MANIFEST, OWN_FOLDER
from vtab_peft.methods import METHODS

OWN_MANIFEST = json.loads((OWN_FOLDER / "manifest.json").read_text())

COVERS: dict[str, list[str]] = json.loads((OWN_FOLDER / "covers.json").read_text())
"""Method -> the cases that its mathematics is compared with."""


def compared_cases() -> set[str]:
    """Return the names in quotes in the golden tests, which include every case that some test computes."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_golden_*.py"))
    return set(re.findall(r'"([a-z0-9_]+)"', tests))


def has_official_code(case: str) -> bool:
    return not OWN_MANIFEST[case]["source_repo"].startswith("none")


def test_every_case_has_its_source() -> None:
    assert {path.stem for path in OWN_FOLDER.glob("*.npz")} == set(OWN_MANIFEST)
    for name, entry in OWN_MANIFEST.items():
        assert entry["equation"], name
        assert entry["source_repo"], name


def test_folder_stays_below_20_mb() -> None:
    assert sum(path.stat().st_size for path in OWN_FOLDER.iterdir()) < 20e6


def test_every_case_is_computed_by_some_test() -> None:
    assert set(OWN_MANIFEST) <= compared_cases()


def test_other_cases_of_the_folder() -> None:
    """List the cases that no test computes, such as those of methods to come."""
    if others := sorted(set(MANIFEST) - compared_cases()):
        pytest.skip(f"{FOLDER} holds {len(others)} cases of no registered method: {', '.join(others)}")


def test_methods_that_claim_official_numbers_have_them() -> None:
    """Methods computed by peft are compared with stored numbers of peft."""
    assert set(COVERS) == {name for name, method in METHODS.items() if method.evidence in ("golden", "peft")}
    for name, cases in COVERS.items():
        assert any(has_official_code(case) for case in cases), name


def test_every_official_case_belongs_to_a_method() -> None:
    official = {case for case in OWN_MANIFEST if has_official_code(case)}
    assert official == {case for cases in COVERS.values() for case in cases}
