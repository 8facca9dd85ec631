"""Small image files for raw folders in tests, and an independent implementation of TFDS's order."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, height: int = 8, width: int = 8, kind: str | None = None) -> Path:
    """Write noise that depends on the name; `kind` is Pillow's format name if the ending does not state it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path, kind)
    return path


def by_md5(salt: str, keys: Iterable[str]) -> list[str]:
    """Sort `keys` by the MD5 of salt and key."""
    return sorted(keys, key=lambda key: int(hashlib.md5((salt + key).encode()).hexdigest(), 16))


def part_of_range(salt: str, key: str) -> float:
    """Return the position of a key's hash in the range of MD5, from 0 to 1."""
    return int(hashlib.md5((salt + key).encode()).hexdigest(), 16) / 2**128
