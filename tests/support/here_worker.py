"""The worker of a sweep in this process: starting one takes seconds, and some tests do that."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.execution.scheduler import SweepResult
from vtab_peft.benchmark.execution.worker import ResolveRequest, Worker, answer
from vtab_peft.benchmark.execution.worker_process import execute
from vtab_peft.benchmark.plan import BackboneInfo, MethodInfo, PlannedRun


class HereWorker:
    """Stands for `WorkerProcess`."""

    def __init__(self, results: Path, numerics: Numerics, plugins: Sequence[Path] = ()) -> None:
        self.worker = Worker(results, numerics, [], plugins)

    def describe(self, request: ResolveRequest) -> tuple[BackboneInfo, list[MethodInfo]]:
        return self.worker.describe(request)

    def run(self, cell: PlannedRun, on_progress: Callable[..., None]) -> tuple[str, Any]:
        return answer(self.worker, cell, SimpleNamespace(send=lambda message: on_progress(*message[1])))  # type: ignore[arg-type]

    def execute(self, cells: Sequence[PlannedRun], *rest: Any) -> SweepResult:
        return execute(cells, self, *rest)  # type: ignore[arg-type]

    def stop(self) -> None:
        pass
