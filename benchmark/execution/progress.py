"""Progress of a sweep: bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TextIO

from tqdm import tqdm

from ..engine.epoch import EpochFacts
from ..plan import PlannedRun
from .messages import ProgressUpdate, RunFinished

STATES_SECONDS = 60.0
"""Time between two lines that list what each worker does (ours)."""


EPOCH_SECONDS = 1.0
"""Shortest time between two lines about epochs on a terminal (ours); elsewhere it is `STATES_SECONDS`."""


def duration(seconds: float) -> str:
    """Format a duration: `48 s`, `6 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def advance(bar: tqdm, done: int, total: int | None) -> None:
    """Set a bar to `done` of `total`, None if the total is unknown."""
    bar.total = total
    bar.update(done - bar.n)


class Pace:
    """Ratio of real to estimated time, updated as runs finish.

    It starts as if one average run had taken its estimate.  So short runs, which are mostly overhead, change it little.
    """

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._real = self._estimated = sum(run.seconds for run in runs) / max(len(runs), 1)

    def observe(self, run: PlannedRun, seconds: float) -> None:
        self._real += seconds
        self._estimated += run.seconds

    def expected(self, run: PlannedRun) -> float:
        """Return the expected seconds of a run."""
        return run.seconds * self.factor

    @property
    def factor(self) -> float:
        """Real seconds per estimated second."""
        return self._real / self._estimated if self._estimated else 1.0


class Progress:
    """Shows a sweep's progress on `stream` (default: standard error)."""

    def __init__(self, runs: Sequence[PlannedRun], stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.total = len(runs)
        self.done = 0
        self.began = time.monotonic()
        self.pace = Pace(runs)
        self._seconds_waiting = sum(run.seconds for run in runs)
        """Estimated seconds of the runs not started yet."""
        self._running: dict[int, tuple[PlannedRun, float]] = {}
        """id(run) -> (run, start on `time.monotonic`)."""
        self._workers: Mapping[str, PlannedRun | None] = {}
        """Name -> current run."""
        self._states_shown = self._epoch_shown = self.began
        self._epoch = (0, 0)
        """id(run) and epoch of the last line about an epoch."""
        self._said: set[str] = set()
        self._terminal = self.stream.isatty()
        bar = {"file": self.stream, "dynamic_ncols": True, "disable": not self._terminal}
        style = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed} elapsed{postfix}"
        self._all = tqdm(total=self.total, position=0, desc="all", bar_format=style, **bar)
        self._current = tqdm(total=1, position=1, leave=False, **bar)
        """Progress of the current run, or the states of several workers."""

    def show(
        self,
        workers: Mapping[str, PlannedRun | None],
        updates: Mapping[str, ProgressUpdate | None] = MappingProxyType({}),
    ) -> None:
        """Show what each worker does: always on a terminal, once a minute elsewhere.

        Args:
            workers: name -> current run, None for an idle worker.
            updates: name -> latest update of the current run.
        """
        now, self._workers = time.monotonic(), workers
        for run in workers.values():
            if run is not None and id(run) not in self._running:
                self._running[id(run)] = run, now
                self._seconds_waiting -= run.seconds
        states = "; ".join(self._state(name, run, updates.get(name), now) for name, run in sorted(workers.items()))
        update = next(iter(updates.values()), None) if len(workers) == 1 else None
        for run in workers.values():
            if run is not None and update is not None and update.epoch is not None:
                self._show_epoch(run, update, update.epoch, now)
        if not self._terminal:
            if len(workers) > 1 and now - self._states_shown >= STATES_SECONDS:
                self._states_shown = now
                self.say(f"workers: {states}")
        elif len(workers) == 1:
            (run,) = workers.values()
            self._current.bar_format = None
            self._current.set_description_str(str(run or "idle"), refresh=False)
            self._current.unit = " test images" if update and update.phase == "test" else " epochs"
            done, total = (update.done, update.total) if update else (0, 1)
            if done < self._current.n or total != self._current.total:
                self._current.reset(total)
            self._current.n = done
            self._current.refresh()
        elif workers:
            self._current.bar_format = "{desc}"
            self._current.set_description_str(states[: (self._current.ncols or 80) - 1])

    def _state(self, name: str, run: PlannedRun | None, update: ProgressUpdate | None, now: float) -> str:
        if run is None:
            return f"{name} idle"
        epoch = f", epoch {update.done}/{update.total}" if update and update.epoch else ""
        return f"{name} {run} for {duration(now - self._running[id(run)][1])}{epoch}"

    def _show_epoch(self, run: PlannedRun, update: ProgressUpdate, epoch: EpochFacts, now: float) -> None:
        """Print a line for the latest epoch, unless the last line is of the same epoch or too young."""
        seconds = EPOCH_SECONDS if self._terminal else STATES_SECONDS
        if (id(run), update.done) == self._epoch or now - self._epoch_shown < seconds:
            return
        self._epoch, self._epoch_shown = (id(run), update.done), now
        accuracy = "" if epoch.accuracy is None else f", {100 * epoch.accuracy:.1f} %"
        left = duration((update.total - update.done) * epoch.seconds)
        speed = f"{epoch.images_per_second:.0f} images/s"
        self.say(f"{run}: epoch {update.done}/{update.total}, loss {epoch.loss:.3g}{accuracy}, {speed}, {left} left")

    def finished(self, run: PlannedRun, result: RunFinished) -> None:
        _, start = self._running.get(id(run), (run, self.began))
        self.pace.observe(run, time.monotonic() - start)
        repetition = {None: "", True: ", agrees with the stored run", False: ", DIFFERS from the stored run"}
        oom = f", {result.oom_summary} for lack of memory" if result.oom_summary else ""
        run_id = result.path.name.partition(".")[0]
        speed = f"{duration(result.seconds)}, {result.images_per_second:.0f} images/s"
        self.ended(run, f"{100 * result.accuracy:5.1f} %  in {speed}{repetition[result.agrees]}{oom}, run {run_id}")

    def ended(self, run: PlannedRun, outcome: str) -> None:
        """Count a run that needs no more work, and print what became of it."""
        self.done += 1
        if self._running.pop(id(run), None) is None:
            self._seconds_waiting -= run.seconds
        several = len(self._workers) > 1
        place = next((f", on {name}" for name, its in self._workers.items() if its is run and several), "")
        rate = f"{self.done / (time.monotonic() - self.began):.2g} runs/s, " if several else ""
        left = f"{rate}{duration(self.seconds_left())} left"
        line = f"[{self.done:{len(str(self.total))}d}/{self.total}] {run}: {outcome}{place}"
        self.say(line if self._terminal or self.done == self.total else f"{line}; {left}")
        if self._terminal:
            self._all.set_postfix_str(left, refresh=False)
            self._all.update(1)

    def requeued(self, run: PlannedRun, reason: str) -> None:
        """Count a run as waiting again."""
        if self._running.pop(id(run), None) is not None:
            self._seconds_waiting += run.seconds
        self.say(f"{run}: {reason}; it is tried again on a new worker")

    def say(self, text: str) -> None:
        """Print a line without disturbing the bars."""
        tqdm.write(text, file=self.stream)
        self.stream.flush()

    def say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def close(self) -> None:
        self._current.close()
        self._all.close()

    def seconds_left(self) -> float:
        """Estimate the time left, at the pace so far and shared among all workers."""
        now = time.monotonic()
        running = sum(max(self.pace.expected(run) - (now - start), 0.0) for run, start in self._running.values())
        return (running + max(self._seconds_waiting, 0.0) * self.pace.factor) / max(len(self._workers), 1)
