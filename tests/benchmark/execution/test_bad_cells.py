"""Cells that take their process down: a segmentation fault, a hang; in real processes, at the cost of that one cell."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.execution import worker_process as executor

pytestmark = pytest.mark.slow

PLUGIN = """
import ctypes, os, time
from dataclasses import dataclass
from vtab_peft.methods.base import Method, method


@dataclass(frozen=True)
class Bad(Method):
    title, paper, equation, targets, evidence = "Bad", None, "", "", "closed form"

    def expected_params(self, vit):
        return 0


@method("crashes")
class Crashes(Bad):
    def inject(self, vit):
        ctypes.string_at(0)


@method("hangs")
class Hangs(Bad):
    def inject(self, vit):
        print("hanging", flush=True)
        time.sleep(3600)
"""


@pytest.fixture
def ask(make_task: Callable[..., Path], tmp_path: Path) -> Callable[..., list[str]]:
    (tmp_path / "bad.py").write_text(PLUGIN)
    task = make_task()

    def ask(*methods: str) -> list[str]:
        base = ["run", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1"]
        where = ["--tasks", str(task), "--results", str(tmp_path / "results"), "--plugin", str(tmp_path / "bad.py")]
        return [*base, *where, "--seeds", "0", "--methods", *methods]

    return ask


def test_a_crash_and_a_hang_cost_their_cells_and_no_other(
    ask: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(executor, "HANG_TIMEOUT_S", 30.0)  # a new worker imports torch in this time
    assert main(ask("crashes", "linear", "hangs", "bitfit")) == 1
    said = capfd.readouterr().err
    assert "crashes · seed 0: FAILED: the worker was killed by signal 11" in said
    assert "hangs · seed 0: FAILED: the worker was silent for 30 s" in said
    results = tmp_path / "results"
    stored = [json.loads(path.read_text())["spec"]["method"]["name"] for path in (results / "runs").rglob("*.json")]
    failed = [json.loads(path.read_text())["spec"]["method"]["name"] for path in (results / "failed").iterdir()]
    assert (sorted(stored), sorted(failed)) == (["bitfit", "linear"], ["crashes", "hangs"])
    assert not (results / "claims").exists()


@pytest.mark.parametrize(("grace", "signals"), [("1", 1), ("600", 2)])
def test_a_cell_that_does_not_end_is_given_up_after_the_grace_or_at_a_second_signal(
    grace: str, signals: int, ask: Callable[..., list[str]], tmp_path: Path
) -> None:
    code = "import sys; from vtab_peft.benchmark.cli import main; sys.exit(main())"
    run = subprocess.Popen(
        [sys.executable, "-c", code, *ask("hangs", "linear"), "--grace", grace],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "hanging\n"
    for _ in range(signals):
        os.killpg(run.pid, signal.SIGTERM)
        time.sleep(0.5)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 143
    assert "Traceback" not in err
    assert not [path for path in (tmp_path / "results").rglob("*") if path.is_file()], "a claim or a part of a file"
