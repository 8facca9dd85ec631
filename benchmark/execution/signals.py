"""SIGTERM, as Slurm sends it before it takes a machine away: no new cell, a little time for the one in flight.

The process's signals are the process's state, and so is this module's: whether the end is near.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE_SECONDS = 25.0
"""What a cell in flight is given (ours: Slurm kills 30 seconds after SIGTERM unless its KillWait says otherwise)."""
EXIT_STATUS = 128 + signal.SIGTERM

_near = False


class Terminated(BaseException):
    """The process has to end now; like `KeyboardInterrupt` it is no error of what it interrupts."""


def shutdown_requested() -> bool:
    """Whether SIGTERM came: nothing new is to be begun."""
    return _near


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the block with `Terminated`, so that what it holds is released and nothing is left half-written."""
    with _handling(signal.SIGTERM, _terminate):
        yield


@contextmanager
def graceful_shutdown(seconds: float) -> Iterator[None]:
    """Let the block go on for `seconds` after SIGTERM; a second signal, or the end of that time, ends it.

    Raises:
        Terminated: in the block, or after it if it ended in time.
    """
    global _near

    def first(*_: object) -> None:
        global _near
        if _near or not seconds:
            _terminate()
        _near = True
        signal.setitimer(signal.ITIMER_REAL, seconds)
        _tell(f"SIGTERM: no cell is begun any more; the one in flight has {seconds:g} s to end")

    with _handling(signal.SIGALRM, _terminate), _handling(signal.SIGTERM, first):
        try:
            yield
            if _near:
                raise Terminated
        finally:
            if _near:
                signal.setitimer(signal.ITIMER_REAL, 0)
                _near = False


def _terminate(*_: object) -> None:
    raise Terminated


def _tell(text: str) -> None:
    """Past Python's buffers, in which a signal may have come."""
    os.write(2, f"vtab-peft: {text}\n".encode())


@contextmanager
def _handling(number: signal.Signals, handler: Callable[..., None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # signals are not its business
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
