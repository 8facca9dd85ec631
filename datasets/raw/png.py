"""Write PNG files whose bytes depend on the pixels only.

The data hash of a task depends on the bytes of its image files, but zlib versions compress differently.  This writer
therefore stores pixels without compression instead of using Pillow; images that come as arrays are small.
"""

import struct
import zlib

import numpy as np

STORED = 65_535
"""Largest uncompressed deflate block in bytes (RFC 1951, 3.2.4)."""


def png(pixels: np.ndarray) -> bytes:
    """Encode uint8 pixels [height, width, 3], or [height, width] for grey, as PNG (ISO/IEC 15948).

    Raises:
        ValueError: the array has another type or shape.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(f"expected uint8 [height, width, 3] or [height, width], got {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + pixels[0].size), np.uint8)  # the first byte of a row is its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, -1)
    colour_type = 2 if pixels.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(rows.tobytes())) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _stored(data: bytes) -> bytes:
    """Wrap `data` in an uncompressed zlib stream (RFC 1950)."""
    parts = [data[start : start + STORED] for start in range(0, len(data), STORED)]
    blocks = [struct.pack("<BHH", part is parts[-1], len(part), len(part) ^ 0xFFFF) + part for part in parts]
    return b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(data))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
