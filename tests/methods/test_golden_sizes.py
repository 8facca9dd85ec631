"""Test that the golden tests read every size from the case, on a set with other sizes."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from synthetic_cases import CASES, TESTS


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=TESTS.parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_golden_tests_run_on_a_set_with_other_sizes(tmp_path: Path) -> None:
    recorded = run(str(TESTS / "support" / "synthetic_cases.py"), str(tmp_path))
    assert recorded.returncode == 0, recorded.stdout
    tests, report = (tmp_path / "tests.txt").read_text().split("\n"), tmp_path / "report.xml"
    assert len(tests) >= len(CASES)

    pytest_run = ("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}")
    compared = run(*pytest_run, *tests, VTAB_PEFT_GOLDEN=str(tmp_path))
    assert compared.returncode == 0, compared.stdout
    suite = ElementTree.parse(report).getroot()[0]
    assert (int(suite.attrib["tests"]), int(suite.attrib["skipped"])) == (len(tests), 0)

    with np.load(tmp_path / "lora.npz") as case:
        arrays = dict(case)
    arrays["y"][0, 0, 0] += 1e-6
    np.savez(tmp_path / "lora.npz", **arrays)
    wrong = run(*pytest_run, *(test for test in tests if "[lora]" in test), VTAB_PEFT_GOLDEN=str(tmp_path))
    assert wrong.returncode == 1, wrong.stdout
