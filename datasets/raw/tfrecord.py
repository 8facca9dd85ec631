"""Read TFRecord files and their examples without TensorFlow, whose installation this one data set would not justify.

The layout of a record (tensorflow/tensorflow core/lib/io/record_writer.h): its length as uint64, masked CRC32C of the
length, the data, masked CRC32C of the data; all little-endian.  The data is a message
tf.train.Example (core/example/example.proto, feature.proto) in protocol buffers' wire format.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..reading import open_regular
from ..task import DataError

POLYNOMIAL = 0x82F63B78
"""Castagnoli's polynomial with reversed bits (RFC 3720, appendix B.4)."""
MASK = 0xA282EAD8
"""Constant of TensorFlow's masked CRC (core/lib/hash/crc32c.h)."""
ALL_ONES = bytes.fromhex("54641f64")
"""Four bytes whose CRC from 0 is all ones."""
HEAD, TAIL = 12, 4
"""Bytes before and after the data of a record."""
FIXED = {1: 8, 5: 4}
"""Bytes of the wire types of fixed length (protobuf.dev/programming-guides/encoding)."""

Value = list[bytes] | list[int]


@dataclass(frozen=True)
class Record:
    """Position of a record's data in a file."""

    path: Path
    start: int
    length: int

    def data(self) -> bytes:
        with open_regular(self.path) as file:
            file.seek(self.start)
            return file.read(self.length)


def records(path: Path) -> Iterator[tuple[Record, bytes]]:
    """Yield the records of a file with their data; both checksums of each are verified.

    Raises:
        DataError: the file cannot be read, ends within a record, or a checksum is wrong.
    """
    position = 0
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            while head := file.read(HEAD):
                where = f"{path}: the record at byte {position}"
                if len(head) < HEAD or crc(head[:8]) != struct.unpack("<I", head[8:])[0]:
                    raise DataError(f"{where} has a damaged header; unpack the archive again")
                (length,) = struct.unpack("<Q", head[:8])
                if position + HEAD + length + TAIL > size:
                    raise DataError(f"{where} is truncated; unpack the archive again")
                data, tail = file.read(length), file.read(TAIL)
                if crc(data) != struct.unpack("<I", tail)[0]:
                    raise DataError(f"{where} is damaged: its checksum differs; unpack the archive again")
                yield Record(path, position + HEAD, length), data
                position += HEAD + length + TAIL
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def crc(data: bytes) -> int:
    """Return the masked CRC32C of `data`."""
    plain = crc32c(data)
    return ((plain >> 15 | plain << 17) + MASK) & 0xFFFFFFFF


def _bytes() -> np.ndarray:
    """Return the CRC from 0 of each single byte, [256] uint32."""
    crcs = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crcs = np.where(crcs & 1, crcs >> 1 ^ np.uint32(POLYNOMIAL), crcs >> 1)
    return crcs


BYTES = _bytes()


def crc32c(data: bytes) -> int:
    """Return the CRC32C, vectorised: pieces of 1, 2, 4, ... bytes are joined pairwise, all pairs at once.

    A CRC that starts from 0 is linear and ignores leading zeros.  The CRC of `left + right` is the CRC of `left`,
    advanced over the bytes of `right`, XOR the CRC of `right`.  `ALL_ONES` before the data gives the prescribed initial
    value.
    """
    pieces = BYTES[np.frombuffer(ALL_ONES + data, np.uint8)]
    level = 0
    while len(pieces) > 1:
        if len(pieces) % 2:
            pieces = np.concatenate([np.zeros(1, np.uint32), pieces])
        pieces = _advanced(pieces[::2], _steps(level)) ^ pieces[1::2]
        level += 1
    return int(pieces[0]) ^ 0xFFFFFFFF


@cache
def _steps(level: int) -> np.ndarray:
    """Return the table that advances a CRC over 2**level zeros: [4, 256] uint32, by byte position and byte value."""
    if level:
        return _advanced(_steps(level - 1), _steps(level - 1))
    alone = np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None]
    return BYTES[alone & 255] ^ alone >> 8


def _advanced(crcs: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return steps[0, crcs & 255] ^ steps[1, crcs >> 8 & 255] ^ steps[2, crcs >> 16 & 255] ^ steps[3, crcs >> 24]


def features(message: bytes) -> dict[str, Value]:
    """Return the features of a tf.train.Example that hold bytes or integers.

    Raises:
        ValueError: the bytes are not such a message.
    """
    found: dict[str, Value] = {}
    for part in _messages(message, 1):  # Example.features
        for entry in _messages(part, 1):  # Features.feature: a map of keys to values
            key = b"".join(_messages(entry, 1)).decode()
            for feature in _messages(entry, 2):
                for values in _messages(feature, 1):  # bytes_list
                    found[key] = _messages(values, 1)
                for values in _messages(feature, 3):  # int64_list
                    found[key] = _integers(values)
    return found


def _messages(message: bytes, field: int) -> list[bytes]:
    """Return the contents of a repeated field of messages, bytes or text."""
    return [value for number, value in _fields(message) if number == field and isinstance(value, bytes)]


def _integers(message: bytes) -> list[int]:
    """Return Int64List.value, packed or not."""
    unsigned: list[int] = []
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            unsigned.append(value)
        elif number == 1 and isinstance(value, bytes):
            position = 0
            while position < len(value):
                one, position = _varint(value, position)
                unsigned.append(one)
    return [value - (1 << 64) if value >> 63 else value for value in unsigned]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield field numbers and values: integers for wire type 0, bytes for all other types."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, position = _varint(message, position)
        elif kind in FIXED:
            length = FIXED[kind]
        else:
            raise ValueError(f"wire type {kind}")
        if position + length > len(message):
            raise ValueError("a field extends beyond its message")
        yield tag >> 3, message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Decode an integer of seven bits a byte, lowest first; return it and its end position."""
    value = shift = 0
    while shift < 64:
        if position == len(message):
            raise ValueError("a number extends beyond its message")
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value & (1 << 64) - 1, position
    raise ValueError("a number of more than 64 bits")
