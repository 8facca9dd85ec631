"""What runs, how far, how fast, and when it ends: bars on a terminal, plain lines elsewhere."""

import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from tqdm import tqdm

from ..plan import PlannedRun
from .worker import RunSummary

STATES_SECONDS = 60.0
"""Between two lines that say what each of several workers does (ours)."""


def duration(seconds: float) -> str:
    """`48 s`, `6 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class Pace:
    """How real time compares with the estimates, learned as cells finish.

    It begins as if a typical cell had taken what was estimated.  So short cells, most of whose time goes into what no
    estimate knows of, tell little of long ones.
    """

    def __init__(self, cells: Sequence[PlannedRun]) -> None:
        self._real = self._estimated = sum(cell.seconds for cell in cells) / max(len(cells), 1)

    def observe(self, cell: PlannedRun, seconds: float) -> None:
        self._real += seconds
        self._estimated += cell.seconds

    def expected(self, cell: PlannedRun) -> float:
        return cell.seconds * self.factor

    @property
    def factor(self) -> float:
        """Real seconds for an estimated one."""
        return self._real / self._estimated if self._estimated else 1.0


class Progress:
    """Follows a sweep."""

    def __init__(self, cells: Sequence[PlannedRun], stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.total = len(cells)
        self.done = 0
        self.begun = time.monotonic()
        self.pace = Pace(cells)
        self._waiting = sum(cell.seconds for cell in cells)
        """Estimated seconds of the cells that were not begun."""
        self._running: dict[int, tuple[PlannedRun, float]] = {}
        """Those that were, and when, on `time.monotonic`."""
        self._places: dict[str, PlannedRun | None] = {}
        """Of several workers: what each runs."""
        self._shown = self.begun
        self._told: set[str] = set()
        self._bars = _Bars(self.total, self.stream) if self.stream.isatty() else None

    def started(self, cell: PlannedRun, place: str = "") -> None:
        """place: which of several workers runs it."""
        if id(cell) not in self._running:  # a cell of a lost worker is begun again
            self._waiting -= cell.seconds
        self._running[id(cell)] = cell, time.monotonic()
        if place:
            self._places[place] = cell
        elif self._bars:
            self._bars.begin(str(cell))

    def advanced(self, phase: str, done: int, of: int) -> None:
        if self._bars:
            self._bars.advance(phase, done, of)

    def finished(self, cell: PlannedRun, summary: RunSummary) -> None:
        self.pace.observe(cell, time.monotonic() - self._since(cell))
        repeated = {None: "", True: ", agrees with the stored run", False: ", DIFFERS from the stored run"}
        self._close(
            cell,
            f"{100 * summary.accuracy:5.1f} %  in {duration(summary.seconds)}, "
            f"{summary.images_per_second:.0f} images/s{repeated[summary.agrees]}"
            f"{f', {summary.shortage} for lack of memory' if summary.shortage else ''}",
        )

    def failed(self, cell: PlannedRun, reason: str) -> None:
        self._close(cell, f"FAILED: {reason}")

    def rescued(self, cell: PlannedRun) -> None:
        self._close(cell, "stored; its worker was lost right after that")

    def skipped(self, cell: PlannedRun, why: str) -> None:
        self._close(cell, f"not started: {why}")

    def idle(self, place: str) -> None:
        """A worker is there, and has nothing to do."""
        self._places[place] = None

    def gone(self, place: str) -> None:
        self._places.pop(place, None)

    def say(self, text: str) -> None:
        """A line that is about no cell alone."""
        if self._bars:
            self._bars.say(text)
        else:
            print(text, file=self.stream, flush=True)

    def tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.say(text)

    def states(self) -> str:
        """What each of several workers does."""
        now = time.monotonic()
        return "; ".join(
            f"{place} {f'{cell} for {duration(now - self._since(cell))}' if cell else 'idle'}"
            for place, cell in sorted(self._places.items())
        )

    def tick(self) -> None:
        """Show what several workers do: all the time on a terminal, and once a minute elsewhere."""
        now = time.monotonic()
        if self._bars:
            self._bars.show(self.states())
        elif self._places and now - self._shown >= STATES_SECONDS:
            self._shown = now
            self.say(f"workers: {self.states()}")

    def close(self) -> None:
        if self._bars:
            self._bars.close()

    def _close(self, cell: PlannedRun, text: str) -> None:
        self.done += 1
        if self._running.pop(id(cell), None) is None:
            self._waiting -= cell.seconds
        place = next((place for place, its in self._places.items() if its is cell), "")
        if place:
            self.idle(place)
        line = f"[{self.done:{len(str(self.total))}d}/{self.total}] {cell}: {text}{f', on {place}' if place else ''}"
        rate = f"{self.done / (time.monotonic() - self.begun):.2g} cells/s, " if self._places else ""
        left = f"{rate}{duration(self.seconds_left())} left"
        if self._bars:
            self._bars.line(line, left)
        else:
            print(line + (f"; {left}" if self.done < self.total else ""), file=self.stream, flush=True)

    def seconds_left(self) -> float:
        """From the estimates of what is left, at the pace of what is done, shared among those who work."""
        now = time.monotonic()
        begun = sum(max(self.pace.expected(cell) - (now - since), 0.0) for cell, since in self._running.values())
        return (begun + max(self._waiting, 0.0) * self.pace.factor) / max(len(self._places), 1)

    def _since(self, cell: PlannedRun) -> float:
        """When it was begun; a cell that was never said to be, with the sweep."""
        return self._running.get(id(cell), (cell, self.begun))[1]


def advance(bar: tqdm, done: int, of: int | None) -> None:
    """Bring a bar to `done` of `of`, None where that is not known."""
    bar.total = of
    bar.update(done - bar.n)


class _Bars:
    """Two bars: all cells, and the cell that runs."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self.cells = tqdm(
            total=total,
            file=stream,
            position=0,
            unit="cell",
            dynamic_ncols=True,
            bar_format="{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed} gone{postfix}",
            desc="all",
        )
        self.cell = tqdm(total=1, file=stream, position=1, dynamic_ncols=True, leave=False)

    def begin(self, name: str) -> None:
        self.cell.unit = " epochs"
        self.cell.reset(total=1)
        self.cell.set_description_str(name)

    def advance(self, phase: str, done: int, of: int) -> None:
        if done < self.cell.n or self.cell.total != of:
            self.cell.reset(total=of)
        self.cell.unit = " epochs" if phase == "train" else " test images"
        self.cell.update(done - self.cell.n)

    def say(self, text: str) -> None:
        self.cells.write(text, file=self.cells.fp)

    def show(self, states: str) -> None:
        self.cell.bar_format = "{desc}"
        self.cell.set_description_str(states[: (self.cell.ncols or shutil.get_terminal_size().columns) - 1])

    def line(self, text: str, left: str) -> None:
        self.say(text)
        self.cells.set_postfix_str(left, refresh=False)
        self.cells.update(1)

    def close(self) -> None:
        self.cell.close()
        self.cells.close()
