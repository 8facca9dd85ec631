"""The processes that a method starts end with their worker; whatever it raises is recorded."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.engine.errors import LONGEST, is_oom
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.execution.local_pool import SupervisedWorker
from vtab_peft.benchmark.execution.messages import ConfigurationRefused, ResolveRequest, RunFailed, WorkerConfig
from vtab_peft.benchmark.execution.process import WorkerProcess
from vtab_peft.benchmark.execution.worker import reply_to
from vtab_peft.benchmark.storage.store import Store

REQUEST = ResolveRequest("vit_x", None, None, "fp32", ["linear"])


class Unprintable(Exception):
    def __str__(self) -> str:
        raise KeyError("no text")


class OtherBase(BaseException):
    pass


def looped() -> Exception:
    error = RuntimeError("a cycle of causes")
    error.__cause__ = ValueError("other")
    error.__cause__.__cause__ = error
    return error


RAISED = [
    BrokenPipeError("of the method"),
    KeyboardInterrupt(),
    SystemExit(0),
    GeneratorExit(),
    OtherBase("x"),
    EOFError("of the method"),
    Unprintable(),
    ExceptionGroup("several", [Unprintable(), ValueError("x")]),
    ValueError("half a pair \udc80"),
    ValueError("x" * 10_000_000),
    looped(),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_any_exception_of_a_method_is_a_failure(error: BaseException, fake: Any, store: Store) -> None:
    def run(*_: Any) -> Any:
        raise error

    def resolve(*_: Any) -> Any:
        raise error

    worker: Any = SimpleNamespace(run=run, resolve=resolve)
    planned: Any = SimpleNamespace(spec=fake.spec())
    reply = reply_to(planned, worker, lambda *_: None)
    assert isinstance(reply, RunFailed)
    assert reply.error_type == type(error).__name__
    assert reply.reason.startswith(f"{reply.error_type}: ")
    assert "in run" in reply.traceback
    assert len(reply.reason) < 2 * LONGEST
    store.save_failure(planned.spec, reply.reason, reply.traceback, reply.error_type)
    stored = store.load_failure(planned.spec)
    assert stored is not None
    assert (stored.reason, stored.traceback, stored.error_type) == (reply.reason, reply.traceback, reply.error_type)
    assert isinstance(reply_to(REQUEST, worker, lambda *_: None), ConfigurationRefused)
    assert not is_oom(error)


STARTS_CHILDREN = """
import os, subprocess, sys, time

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def start_children(folder):
    pids = [
        subprocess.Popen(SLEEP).pid,
        subprocess.Popen(SLEEP, start_new_session=True).pid,
        subprocess.Popen(SLEEP, process_group=0).pid,
        subprocess.Popen(SLEEP, env={}).pid,
    ]
    if (pid := os.fork()) == 0:  # a daemon: forked twice, in a session of its own
        os.setsid()
        if (pid := os.fork()) == 0:
            time.sleep(600)
        with open(f"{folder}/daemon", "w") as file:
            file.write(str(pid))
        os._exit(0)
    os.waitpid(pid, 0)
    pids.append(int(open(f"{folder}/daemon").read()))
    if (pid := os.fork()) == 0:
        time.sleep(600)
    with open(f"{folder}/pids.tmp", "w") as file:
        file.write(" ".join(map(str, [*pids, pid, os.getpid()])))
    os.rename(f"{folder}/pids.tmp", f"{folder}/pids")
"""


def wait_for(found: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "nothing within the time limit"
        time.sleep(0.05)
    return value


def pids_in(folder: Path) -> list[int]:
    path = folder / "pids"
    wait_for(path.exists)
    return [int(pid) for pid in path.read_text().split()]


def alive(pids: list[int]) -> list[psutil.Process]:
    found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def work_with_children(folder: str) -> None:
    os.setsid()
    exec(STARTS_CHILDREN, names := {})
    names["start_children"](folder)
    time.sleep(600)


def test_killing_a_worker_kills_its_descendants(tmp_path: Path) -> None:
    process = WorkerProcess(target=work_with_children, args=(str(tmp_path),), daemon=True)
    process.start()
    pids = pids_in(tmp_path)
    assert len(alive(pids)) == 7
    os.kill(pids[-1], signal.SIGKILL)  # by the system: the tree of processes is cut before they are looked for
    process.join()
    process.kill()
    wait_for(lambda: not alive(pids))


def test_a_worker_that_nobody_stopped_ends_with_its_parent() -> None:
    """Workers ignore SIGTERM, by which multiprocessing ends its children before it waits for them."""
    code = (
        "import signal, time\n"
        "from vtab_peft.benchmark.execution.process import WorkerProcess\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)  # inherited\n"
        "WorkerProcess(target=time.sleep, args=(600,), daemon=True).start()\n"
        "1 / 0\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr


def test_a_forked_child_does_not_hide_the_death_of_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the other end of the pipe, which therefore does not close."""
    killed: list[bool] = []

    def silent(seconds: float = 0) -> bool:
        time.sleep(seconds)
        return False

    def start(self: Any) -> None:
        self._busy, self._pipe = False, SimpleNamespace(send=lambda _: None, poll=silent)
        self.process = SimpleNamespace(
            exitcode=-9, is_alive=lambda: False, join=lambda timeout=None: None, kill=lambda: killed.append(True)
        )

    monkeypatch.setattr(SupervisedWorker, "_start", start)
    worker = SupervisedWorker(1, WorkerConfig(tmp_path, Numerics(1)))
    started = time.monotonic()
    reply: Any = worker.resolve(REQUEST)
    assert time.monotonic() - started < 60
    assert "signal 9" in reply.reason
    assert killed, "its descendants are not ended"


PLUGIN = (
    STARTS_CHILDREN
    + """
from vtab_peft.methods import METHODS, method
import torch

FOLDER = {folder!r}
torch.nn.functional.cross_entropy = lambda *_, **__: 1 / 0


@method("parent")
class Parent(METHODS["bitfit"]):
    title = "Parent"

    def inject(self, vit):
        start_children(FOLDER)
        {then}
        super().inject(vit)


@method("breaks_pipes")
class BreaksPipes(METHODS["bitfit"]):
    title = "Breaks pipes"

    def inject(self, vit):
        raise BrokenPipeError("of the method")
"""
)


@pytest.fixture
def command(make_task: Callable[..., Path], tmp_path: Path) -> Callable[..., list[str]]:
    """`command(then, *methods)`: a run with a plug-in whose method starts children, then executes `then`."""

    def command(then: str, *methods: str) -> list[str]:
        plugin = tmp_path / "plugin.py"
        plugin.write_text(PLUGIN.replace("{folder!r}", repr(str(tmp_path))).replace("{then}", then))
        base = ["run", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1"]
        where = ["--tasks", str(make_task()), "--results", str(tmp_path / "results"), "--plugin", str(plugin)]
        return [*base, *where, "--seeds", "0", "--methods", *methods]

    return command


@pytest.mark.slow
@pytest.mark.parametrize("end", ["normal", "SIGTERM", "SIGKILL of the parent", "SIGKILL of the worker"])
def test_children_end_with_a_sweep(end: str, command: Callable[..., list[str]], tmp_path: Path) -> None:
    then = "pass" if end == "normal" else "time.sleep(600)"
    code = "import sys; from vtab_peft.benchmark.cli import main; sys.exit(main())"
    if end == "SIGKILL of the worker":
        then = "os.kill(os.getpid(), 9)"
    run = subprocess.Popen([sys.executable, "-c", code, *command(then, "parent"), "--grace", "0"])
    pids = pids_in(tmp_path)
    if end == "SIGTERM":
        run.send_signal(signal.SIGTERM)
    elif end == "SIGKILL of the parent":
        run.kill()
    status = run.wait(timeout=300)
    assert status == {"normal": 1, "SIGTERM": 143, "SIGKILL of the parent": -9, "SIGKILL of the worker": 1}[end]
    wait_for(lambda: not alive(pids), seconds=30)


@pytest.mark.slow
def test_side_effects_of_a_plugin_reach_only_its_own_methods(command: Callable[..., list[str]], tmp_path: Path) -> None:
    """The plug-in breaks the loss function; `linear` of the suite runs before and after it, in clean processes."""
    methods = ["linear", "breaks_pipes", "bitfit", "parent"]
    assert main(command("pass", *methods)) == 1
    store = Store(tmp_path / "results")
    stored = {run.spec.method.name: run for run in store.load_runs()[0]}
    assert stored.keys() == {"linear", "bitfit"}
    assert all("plugins" not in run.provenance for run in stored.values())
    failed = {failure.spec.method.name: failure for failure in store.load_failures()[0]}
    assert {name: failure.error_type for name, failure in failed.items()} == {
        "breaks_pipes": "BrokenPipeError",
        "parent": "ZeroDivisionError",
    }
    assert all("plugin.py" in failure.traceback for failure in failed.values())
