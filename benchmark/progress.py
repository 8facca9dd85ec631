"""What runs, how far, how fast, and when it ends: bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from tqdm import tqdm

from .plan import Cell
from .worker import Summary


def duration(seconds: float) -> str:
    """`48 s`, `6 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Follows a sweep."""

    def __init__(self, cells: Sequence[Cell], stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.total = len(cells)
        self.done = 0
        self.begun = time.monotonic()
        self._estimate_left = sum(cell.seconds for cell in cells)
        self._estimate_done = 0.0
        self._bars = _Bars(self.total, self.stream) if self.stream.isatty() else None

    def started(self, cell: Cell) -> None:
        if self._bars:
            self._bars.begin(str(cell))

    def advanced(self, phase: str, done: int, of: int) -> None:
        if self._bars:
            self._bars.advance(phase, done, of)

    def finished(self, cell: Cell, summary: Summary) -> None:
        repeated = {None: "", True: ", agrees with the stored run", False: ", DIFFERS from the stored run"}
        self._close(
            cell,
            f"{100 * summary.accuracy:5.1f} %  in {duration(summary.seconds)}, "
            f"{summary.images_per_second:.0f} images/s{repeated[summary.agrees]}",
        )

    def failed(self, cell: Cell, reason: str) -> None:
        self._close(cell, f"FAILED: {reason}")

    def skipped(self, cell: Cell) -> None:
        self._close(cell, "not started: no time left for it")

    def close(self) -> None:
        if self._bars:
            self._bars.close()

    def _close(self, cell: Cell, text: str) -> None:
        self.done += 1
        self._estimate_left -= cell.seconds
        self._estimate_done += cell.seconds
        line = f"[{self.done:{len(str(self.total))}d}/{self.total}] {cell}: {text}"
        if self._bars:
            self._bars.line(line, duration(self.seconds_left()))
        else:
            left = f"; {duration(self.seconds_left())} left" if self.done < self.total else ""
            print(line + left, file=self.stream, flush=True)

    def seconds_left(self) -> float:
        """From the estimates of what is left, at the pace of what is done."""
        if not self._estimate_done:
            return self._estimate_left
        return self._estimate_left * (time.monotonic() - self.begun) / self._estimate_done


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

    def line(self, text: str, left: str) -> None:
        self.cells.write(text, file=self.cells.fp)
        self.cells.set_postfix_str(f"{left} left", refresh=False)
        self.cells.update(1)

    def close(self) -> None:
        self.cell.close()
        self.cells.close()
