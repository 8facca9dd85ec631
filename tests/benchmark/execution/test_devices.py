"""Devices: workers take the visible GPUs in turn, and devices that do not exist are refused before anything runs."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import command
from in_process import LOCAL_BACKEND, InProcessBackend
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands import pool_options
from vtab_peft.benchmark.engine.device import choose_device, use_device, workers_sharing
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.execution import local_pool
from vtab_peft.benchmark.execution.messages import WorkerConfig


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that sets the number of GPUs that torch sees."""
    return lambda number: monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


def test_workers_take_the_gpus_in_turn(gpus: Callable[[int], None]) -> None:
    gpus(3)
    assert [choose_device(None, number).index for number in range(1, 8)] == [0, 1, 2, 0, 1, 2, 0]
    assert [workers_sharing(None, number, 7) for number in range(1, 8)] == [3, 2, 2, 3, 2, 2, 3]
    assert workers_sharing("cuda:1", 2, 7) == 7
    gpus(1)
    assert choose_device(None, 5) == torch.device("cuda")
    gpus(0)
    assert choose_device(None, 5) == torch.device("cpu")
    assert workers_sharing(None, 2, 4) == 4


def test_devices_that_do_not_exist_are_refused(gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(2)
    current: list[torch.device] = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("cpu", "cuda", "cuda:1"):
        use_device(choose_device(name))
    for name in ("cuda:2", "mps"):
        with pytest.raises(ValueError, match=name):
            use_device(choose_device(name))
    assert current == [torch.device("cuda:1")]


def test_a_local_worker_knows_its_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_pool.SupervisedWorker, "_start", lambda self: None)
    config = WorkerConfig(tmp_path, Numerics())
    assert [local_pool.SupervisedWorker(number, config)._config.number for number in (1, 2)] == [1, 2]


@pytest.mark.parametrize(("chosen", "number"), [("0,3", 2), ("", 0), ("-1", 0), ("GPU-1a2b", 1)])
def test_gpus_are_counted_by_the_environment(chosen: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert local_pool.visible_gpus() == number


def test_gpus_are_counted_by_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    text = "GPU 0: NVIDIA H200 (UUID: GPU-1)\n  MIG 1g: 0\nGPU 1: NVIDIA H200 (UUID: GPU-2)\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, text))
    assert local_pool.visible_gpus() == 2

    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert local_pool.visible_gpus() == 0


@pytest.mark.parametrize(
    ("more", "fact"),
    [
        (["--device", "cuda:99"], "cuda:99"),
        (["--workers-per-gpu", "2"], "--workers N"),
        (["--workers-per-gpu", "2", "--device", "cuda:0"], "--device"),
        (["--executor", "ray", "--device", "cpu"], "--device"),
        (["--executor", "ray", "--workers-per-gpu", "2"], "--workers-per-gpu"),
    ],
)
def test_contradictions_are_refused(
    more: list[str],
    fact: str,
    make_task: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    monkeypatch.setattr(pool_options, "visible_gpus", lambda: 0)
    assert main([*command(make_task(), tmp_path / "results"), "--methods", "linear", *more]) == 2
    assert fact in capsys.readouterr().err


def test_names_of_devices_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["smoke", "--device", "gpu0"])
    assert "cuda:1" in capsys.readouterr().err


def test_workers_per_gpu_multiply(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def backend(workers: int, config: WorkerConfig) -> Any:
        asked.append(workers)
        raise ValueError("enough")

    monkeypatch.setattr(LOCAL_BACKEND, backend)
    monkeypatch.setattr(pool_options, "visible_gpus", lambda: 4)
    ask = [*command(make_task(), tmp_path / "results"), "--methods", "linear"]
    assert main([*ask, "--workers-per-gpu", "3"]) == main([*ask, "--workers", "5"]) == 2
    assert asked == [12, 5]
