"""A worker in this process, and what it resolves."""

from collections.abc import Callable
from typing import Any

import pytest
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.execution.messages import ResolveRequest, WorkerConfig
from vtab_peft.benchmark.execution.worker import Worker
from vtab_peft.benchmark.plan import BackboneInfo, MethodInfo


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(WorkerConfig(tmp_path_factory.mktemp("results"), Numerics(threads=1)))


@pytest.fixture(scope="module")
def resolve(worker: Worker) -> Callable[..., tuple[BackboneInfo, list[MethodInfo]]]:
    def resolve(*methods: str, grid: Any = None) -> tuple[BackboneInfo, list[MethodInfo]]:
        resolved = worker.resolve(ResolveRequest("toy_vit", "random", None, "fp32", methods, variants=True, grid=grid))
        return resolved.backbone, resolved.methods

    return resolve
