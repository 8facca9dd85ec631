"""A worker pool without processes, because starting one takes seconds."""

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.execution.messages import ProgressUpdate, ResolveReply, ResolveRequest, RunReply, WorkerConfig
from vtab_peft.benchmark.execution.scheduler import ModelKey
from vtab_peft.benchmark.execution.worker import Worker, reply_to
from vtab_peft.benchmark.plan import PlannedRun

LOCAL_BACKEND = "vtab_peft.benchmark.execution.local_pool.LocalBackend"
"""Patch this name to replace the processes of every command."""


def done(value: Any) -> "Future[Any]":
    """Return a future that has its result, or its exception."""
    future: Future[Any] = Future()
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


class InProcessWorker:
    """Handle of a worker of this process; a call returns when the answer is there."""

    progress: ProgressUpdate | None = None
    name = ""
    model: ModelKey | None = None

    def __init__(self, number: int, config: WorkerConfig) -> None:
        self.number, self.worker = number, Worker(config)

    def resolve(self, request: ResolveRequest) -> "Future[ResolveReply]":
        reply: Any = reply_to(request, self.worker, lambda *_: None)
        return done(replace(reply, worker=f"here/{self.number}"))

    def run(self, run: PlannedRun) -> "Future[RunReply]":
        return done(reply_to(run, self.worker, lambda *_: None))

    def stop(self) -> None:
        pass


class InProcessBackend:
    """Stands for `LocalBackend`."""

    def __init__(self, workers: int, config: WorkerConfig) -> None:
        self.workers, self.config = workers, config

    def capacity(self) -> int:
        return self.workers

    def spawn(self, number: int) -> InProcessWorker:
        return InProcessWorker(number, self.config)

    def close(self) -> None:
        pass


class Resolver(InProcessWorker):
    """Worker that resolves names once per request."""

    replies: dict[str, Any] = {}

    def __init__(self, number: int, config: WorkerConfig) -> None:
        super().__init__(number, replace(config, numerics=Numerics(1)))

    def resolve(self, request: ResolveRequest) -> Any:
        asked = f"{request} {self.worker.config.plugins}"
        if asked not in self.replies:
            self.replies[asked] = super().resolve(request)
        return self.replies[asked]


class ResolverBackend(InProcessBackend):
    """Backend of resolvers."""

    def spawn(self, number: int) -> Resolver:
        return Resolver(number, self.config)
