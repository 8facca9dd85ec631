"""The folder of golden numbers: whole, small, used, and true to what the registry claims."""

import json
import re
from pathlib import Path

from golden_cases import FOLDER, MANIFEST
from vtab_peft.methods import METHODS

COVERS: dict[str, list[str]] = json.loads((FOLDER / "covers.json").read_text())
"""Method -> the cases that its mathematics is compared with."""


def test_every_case_has_its_source() -> None:
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(MANIFEST)
    for name, entry in MANIFEST.items():
        assert entry["equation"], name
        assert entry["source_repo"], name


def test_the_folder_stays_below_8_mb() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 8e6


def test_every_case_is_computed_by_some_test() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_golden_*.py"))
    named = set(re.findall(r'"([a-z0-9_]+)"', tests))
    assert set(MANIFEST) <= named, "golden numbers that nobody compares with"


def test_methods_that_claim_golden_evidence_have_it_and_no_others() -> None:
    """What peft computes is compared with numbers that its code gave before."""
    assert set(COVERS) == {name for name, method in METHODS.items() if method.evidence in ("golden", "peft")}
    for name, cases in COVERS.items():
        assert any(not MANIFEST[case]["source_repo"].startswith("none") for case in cases), name


def test_every_official_case_belongs_to_a_method() -> None:
    official = {case for case, entry in MANIFEST.items() if not entry["source_repo"].startswith("none")}
    assert official == {case for cases in COVERS.values() for case in cases}
