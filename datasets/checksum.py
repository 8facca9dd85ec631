"""Checksums of cached arrays: a CRC-32 per block, so that a few blocks of a large file can be checked at each use.

They detect damage and careless edits, but do not protect against an attacker.
"""

import zlib
from pathlib import Path
from typing import BinaryIO

from .reading import open_regular
from .task import DataError

BLOCK = 1 << 20
"""Bytes of a block (our choice)."""
SAMPLED = 8
"""Blocks of a file that a quick check reads (our choice): the first, the last, and others at equal distances."""
DIGITS = 8
"""Hexadecimal digits of a block's CRC-32."""


def checksum(path: Path) -> str:
    """Return the checksums of all blocks of a file, joined."""
    with open_regular(path) as file:
        return "".join(f"{zlib.crc32(block):08x}" for block in iter(lambda: file.read(BLOCK), b""))


def is_intact(path: Path, expected: str, full: bool) -> bool:
    """Return True if a file has the expected checksums.

    full: compare all blocks instead of `SAMPLED`.
    """
    blocks = len(expected) // DIGITS
    step = 1 if full or blocks <= SAMPLED else (blocks - 1) / (SAMPLED - 1)
    chosen = range(blocks) if step == 1 else [round(number * step) for number in range(SAMPLED)]
    try:
        with open_regular(path) as file:
            if -(-path.stat().st_size // BLOCK) != blocks:
                return False
            return all(_block(file, number) == expected[number * DIGITS :][:DIGITS] for number in chosen)
    except (OSError, DataError):
        return False


def _block(file: BinaryIO, number: int) -> str:
    file.seek(number * BLOCK)
    return f"{zlib.crc32(file.read(BLOCK)):08x}"
