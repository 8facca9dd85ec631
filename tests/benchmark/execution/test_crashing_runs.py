"""Runs that crash or hang their process, in real processes, with one worker and with several."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.execution.local_pool import SupervisedWorker
from vtab_peft.benchmark.plan import PlannedRun
from vtab_peft.benchmark.storage.store import Store

pytestmark = pytest.mark.slow

PLUGIN = """
import ctypes, os, time
from dataclasses import dataclass
from vtab_peft.methods.base import Method, method


@dataclass(frozen=True)
class Bad(Method):
    title, paper, equation, targets, evidence = "Bad", None, "", "", "closed form"

    def expected_params(self, vit):
        return 1  # the plan refuses methods that train nothing


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
def command(make_task: Callable[..., Path], tmp_path: Path) -> Callable[..., list[str]]:
    (tmp_path / "bad.py").write_text(PLUGIN)
    task = make_task()

    def command(*methods: str) -> list[str]:
        base = ["run", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1"]
        where = ["--tasks", str(task), "--results", str(tmp_path / "results"), "--plugin", str(tmp_path / "bad.py")]
        return [*base, *where, "--seeds", "0", "--methods", *methods]

    return command


@pytest.mark.parametrize(
    ("workers", "bad"), [("1", {"crashes": "signal 11", "hangs": "10 s"}), ("2", {"crashes": "signal 11"})]
)
def test_crashes_and_hangs_fail_only_their_runs(
    workers: str,
    bad: dict[str, str],
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """bad: method -> part of the reason."""
    ask = SupervisedWorker._ask

    def ask_briefly(self: SupervisedWorker, request: Any, timeout: float) -> Any:
        hangs = isinstance(request, PlannedRun) and request.spec.method.name == "hangs"
        return ask(self, request, 10.0 if hangs else timeout)

    monkeypatch.setattr(SupervisedWorker, "_ask", ask_briefly)
    assert main([*command(*bad, "linear", "bitfit"), "--workers", workers]) == 1
    results = tmp_path / "results"
    stored = [json.loads(path.read_text())["spec"]["method"]["name"] for path in (results / "runs").rglob("*.json")]
    assert sorted(stored) == ["bitfit", "linear"]
    failed = {failure.spec.method.name: failure for failure in Store(results).load_failures()[0]}
    assert failed.keys() == bad.keys()
    for name, failure in failed.items():
        assert failure.error_type == "WorkerLost"
        assert bad[name] in failure.reason
    assert not (results / "claims").exists()


@pytest.mark.parametrize(("grace", "count"), [("1", 1), ("600", 2)])
def test_a_hanging_run_is_ended_after_the_grace_time(
    grace: str, count: int, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    code = "import sys; from vtab_peft.benchmark.cli import main; sys.exit(main())"
    run = subprocess.Popen(
        [sys.executable, "-c", code, *command("hangs", "linear"), "--grace", grace],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "hanging\n"
    for _ in range(count):
        os.killpg(run.pid, signal.SIGTERM)
        time.sleep(0.5)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 143
    assert "Traceback" not in err
    assert not [path for path in (tmp_path / "results").rglob("*") if path.is_file()], (
        "a lock or a partial file is left"
    )
