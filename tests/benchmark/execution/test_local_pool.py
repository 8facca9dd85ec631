"""Supervision of local worker processes: death, hangs, downloads, shutdown."""

import multiprocessing
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vtab_peft.benchmark.engine import backbone
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.execution import local_pool
from vtab_peft.benchmark.execution.local_pool import LocalBackend, SupervisedWorker
from vtab_peft.benchmark.execution.messages import (
    ConfigurationRefused,
    ProgressUpdate,
    Resolved,
    ResolveRequest,
    RunFailed,
    RunFinished,
    WorkerConfig,
    WorkerLost,
)
from vtab_peft.benchmark.execution.worker import reply_to
from vtab_peft.benchmark.storage.json_io import StoreError
from vtab_peft.datasets.cache import CachedTask
from vtab_peft.datasets.few_shots import Draw, few_shot
from vtab_peft.datasets.reading import InvalidFile
from vtab_peft.datasets.task import SPLITS

REQUEST = ResolveRequest("vit_x", None, None, "fp32", ["linear"])
FINISHED = RunFinished(Path("x.json"), 0.5, 1.0, 100.0, None)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A supervisor without a process; the test writes to the other end of its pipe, `worker.remote`."""

    def start(self: Any) -> None:
        self._pipe, self.remote = multiprocessing.Pipe()
        self.process = SimpleNamespace(
            exitcode=-9, is_alive=lambda: True, join=lambda timeout=None: None, kill=lambda: None
        )
        self._busy = False
        self.starts = getattr(self, "starts", 0) + 1

    monkeypatch.setattr(SupervisedWorker, "_start", start)
    return SupervisedWorker(1, WorkerConfig(tmp_path, Numerics(1)))


@pytest.fixture
def run(fake: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(local_pool, "replace", lambda run, **_: run)
    return SimpleNamespace(spec=fake.spec(), seconds=1.0, data=SimpleNamespace(files={}), plugged_backbone=False)


def test_a_run_that_finishes_reports_its_progress(worker: Any, run: Any) -> None:
    update = ProgressUpdate("train", 1, 3)
    for message in (update, FINISHED):
        worker.remote.send(message)
    assert worker.run(run) == FINISHED
    assert worker.progress == update


def test_a_dead_worker_is_replaced_at_the_next_run(worker: Any, run: Any) -> None:
    worker.remote.close()
    lost = worker.run(run)
    assert isinstance(lost, WorkerLost)
    assert "signal 9" in lost.reason
    assert worker.starts == 1
    start = worker._start

    def start_and_answer() -> None:
        start()
        worker.remote.send(FINISHED)

    worker._start = start_and_answer
    assert worker.run(run) == FINISHED
    assert worker.starts == 2


def test_a_silent_worker_hangs(worker: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_pool, "HANG_TIMEOUT_S", 0.05)
    monkeypatch.setattr(local_pool, "HANG_TIMEOUT_FACTOR", 0.0)
    assert isinstance(worker.run(run), WorkerLost)


def test_a_killed_worker_starts_no_run(worker: Any, run: Any) -> None:
    worker.kill()
    assert isinstance(worker.run(run), WorkerLost)
    assert not worker.remote.poll()


@pytest.mark.parametrize("error", [InvalidFile(Path("x.json"), "no"), StoreError("x.json")])
def test_errors_of_a_method_are_no_unwritable_folder(error: Exception, fake: Any) -> None:
    """Also those of the suite's own types; only the worker itself says that results cannot be stored."""

    def run(*_: Any) -> Any:
        raise error

    broken: Any = SimpleNamespace(run=run)
    planned: Any = SimpleNamespace(spec=fake.spec())
    found = reply_to(planned, broken, lambda *_: None)
    assert isinstance(found, RunFailed)
    assert "x.json" in found.reason


def test_a_slow_download_is_no_hang(
    worker: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hub takes three times the start timeout and then fails."""

    def slow_hub(*_: str) -> str:
        time.sleep(1.5)
        raise OSError("the hub is gone")

    def resolve(_: ResolveRequest, on_progress: Any) -> Any:
        return backbone._from_hub("vit_x", "timm/", on_progress, True)

    monkeypatch.setattr(local_pool, "START_TIMEOUT_S", 0.5)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", slow_hub)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    child: Any = SimpleNamespace(resolve=resolve)

    def answer() -> None:
        send = worker.remote.send
        send(reply_to(REQUEST, child, lambda *update: send(ProgressUpdate(*update))))

    thread = threading.Thread(target=answer)
    thread.start()
    reply = worker.resolve(REQUEST)
    thread.join()
    assert isinstance(reply, ConfigurationRefused)
    assert "the hub is gone" in reply.reason
    assert "vit_x" in capsys.readouterr().err


def test_the_start_timeout_applies_again_after_a_download(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_pool, "START_TIMEOUT_S", 0.05)
    for done in (0, 1):
        worker.remote.send(ProgressUpdate("downloading weights of vit_x", done, 1))
    assert isinstance(worker.resolve(REQUEST), WorkerLost)


@pytest.mark.slow
def test_an_idle_worker_exits_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL would leave its compiler processes behind."""
    monkeypatch.setattr(local_pool, "SHUTDOWN_TIMEOUT_S", 60.0)  # for a busy machine
    handle = LocalBackend(1, WorkerConfig(tmp_path, Numerics(threads=1))).spawn(1)
    found = handle.resolve(ResolveRequest("toy_vit", "random", None, "fp32", ["linear"])).result()
    assert isinstance(found, Resolved)
    handle.stop()
    assert handle._worker.process.exitcode == 0


def test_a_draw_is_made_again_on_a_machine_without_its_images(
    data: CachedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = few_shot(data, Draw(2, 1))
    there = replace(drawn, files=dict.fromkeys(drawn.files, (tmp_path / "gone", tmp_path / "gone")))
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(tmp_path / "here"))
    found = local_pool._local_data(there)
    assert found.data == drawn.data
    for split in SPLITS:
        assert np.array_equal(found.images(split), drawn.images(split))
