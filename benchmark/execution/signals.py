"""SIGTERM handling: start no new run, and give the running ones a short time to finish.

Slurm sends SIGTERM before it stops a job.  Signals belong to the process, so the state of this module does too.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

GRACE_SECONDS = 25.0
"""Time for running runs to finish (ours: Slurm's default KillWait is 30 seconds)."""
EXIT_STATUS = 128 + signal.SIGTERM

_requested = False


class Terminated(BaseException):
    """The process must end now; not an error of the code it interrupts, like `KeyboardInterrupt`."""


def shutdown_requested() -> bool:
    """Return True once SIGTERM arrived; no new run may start then."""
    return _requested


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` in the block on SIGTERM, so that its `finally` clauses clean up."""
    with _handling(signal.SIGTERM, _terminate):
        yield


@contextmanager
def graceful_shutdown(seconds: float) -> Iterator[None]:
    """Let the block continue for `seconds` after SIGTERM; a second SIGTERM ends it at once.

    Raises:
        Terminated: in the block when the time is over, or after the block if it ended in time.
    """
    global _requested

    def request(*_: object) -> None:
        global _requested
        if _requested or not seconds:
            _terminate()
        _requested = True
        signal.setitimer(signal.ITIMER_REAL, seconds)
        text = f"vtab-peft: SIGTERM: no new run is started; running ones have {seconds:g} s to finish\n"
        with suppress(OSError):
            os.write(2, text.encode())  # the signal may have interrupted a write to Python's buffered stderr

    with _handling(signal.SIGALRM, _terminate), _handling(signal.SIGTERM, request):
        try:
            yield
            if _requested:
                raise Terminated
        finally:
            if _requested:
                signal.setitimer(signal.ITIMER_REAL, 0)
                _requested = False


def _terminate(*_: object) -> None:
    raise Terminated


@contextmanager
def _handling(number: signal.Signals, handler: Callable[..., None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
