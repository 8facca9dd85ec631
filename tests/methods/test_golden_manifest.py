"""Test the set of official numbers: complete, small, used, and in line with what the methods claim."""

import json
import re
from pathlib import Path

import pytest
from golden_cases import FOLDER, MANIFEST, OWN_FOLDER
from vtab_peft.benchmark.reporting.method_evidence import load
from vtab_peft.methods import METHODS, parse

OWN_MANIFEST = json.loads((OWN_FOLDER / "manifest.json").read_text())

EVIDENCE = load()
"""Method -> grade, code and cases, as `methods/evidence.csv` claims."""

TESTS = Path(__file__).parents[1]


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


def repository(case: str) -> str:
    """Return owner/name@commit of the code that computed a case, empty for our own derivations."""
    entry = OWN_MANIFEST[case]
    return f"{entry['source_repo']}@{entry['source_commit'][:7]}" if has_official_code(case) else ""


def authors(name: str) -> str | None:
    """Return the repository of a method's authors; peft counts as a reference implementation of all that it holds."""
    paper = METHODS[name].paper
    return None if paper is None or paper.code == "huggingface/peft" else paper.code


def test_each_method_claims_the_grade_of_the_table() -> None:
    assert {name: cls.evidence for name, cls in METHODS.items()} == {name: e.grade for name, e in EVIDENCE.items()}


@pytest.mark.parametrize("name", EVIDENCE)
def test_each_grade_follows_from_its_files(name: str) -> None:
    claimed = EVIDENCE[name]
    files = [case for case in claimed.cases if case.endswith(".py")]
    cases = [case for case in claimed.cases if not case.endswith(".py")]
    compared = {repository(case) for case in cases} - {""}
    trained = [json.loads((TESTS / "golden" / "trajectories" / f"{t}.json").read_text()) for t in claimed.trajectories]
    trainers = {found["authors_code"].partition(":")[0] for found in trained}
    compared |= trainers
    for file in files:
        assert name.partition("_")[0] in (TESTS / "methods" / file).read_text()
    of_authors = {source for source in compared if source.partition("@")[0] == authors(name)}
    assert {parse(found["method"]).spec().partition("(")[0] for found in trained} <= {name}
    if trainers & of_authors:
        grade = "authors' training"
    elif compared:
        grade = "authors' module" if of_authors else "reference implementation"
    else:
        grade = "paper only" if claimed.cases else "closed form"
    assert claimed.grade == grade
    assert set(claimed.sources) == (of_authors or compared)


def test_every_case_and_trajectory_belongs_to_a_method() -> None:
    claimed = {case for evidence in EVIDENCE.values() for case in evidence.cases if not case.endswith(".py")}
    assert claimed == set(OWN_MANIFEST)
    stored = {path.stem for path in (TESTS / "golden" / "trajectories").glob("*.json")}
    assert stored >= {name for evidence in EVIDENCE.values() for name in evidence.trajectories}
