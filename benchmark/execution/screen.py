"""Standard output and error whose loss is not an error: the screen is not the work.

A reader may end (`| head`), a disk behind `> file` may fill up, a terminal may close.  The work continues then.
"""

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Screen(io.FileIO):
    """File descriptor that drops what is written after the first error."""

    lost: OSError | None = None
    """The first error."""

    def write(self, data: Any) -> int:
        try:
            while self.lost is None:
                if (written := super().write(data)) is not None:
                    return written
                select.select([], [self], [])  # another process made the descriptor non-blocking
        except OSError as error:
            self.lost = error
        return len(data)


@contextmanager
def keep_working_without_screen() -> Iterator[dict[str, Screen]]:
    """Replace the interpreter's standard streams in the block; yield the new ones by name.

    Streams that a caller has replaced already, such as pytest or a notebook, stay as they are.
    """
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # `2>&-`: a later file must not get this number
            os.set_inheritable(number, True)
        os.close(number)
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    screens = {}
    for name, stream in before.items():
        if stream is getattr(sys, f"__{name}__"):
            screens[name] = Screen(os.devnull if stream is None else stream.fileno(), "w", closefd=stream is None)
            setattr(sys, name, _text(screens[name], stream))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield screens
    finally:
        for name in screens:
            getattr(sys, name).flush()
            setattr(sys, name, before[name])


def _text(screen: Screen, like: io.TextIOWrapper | None) -> io.TextIOWrapper:
    """Return a text stream that shows the code of a character that the terminal does not have."""
    return io.TextIOWrapper(
        io.BufferedWriter(screen),
        encoding=like.encoding if like else "utf-8",
        errors="backslashreplace",
        line_buffering=like.line_buffering if like else False,
        write_through=like.write_through if like else False,
    )
