"""Small image files for raw folders that tests make, and TFDS's order in the words of the tests."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, height: int = 8, width: int = 8, kind: str | None = None) -> Path:
    """Noise, the same for the same name; `kind` is Pillow's name of the format where the ending does not tell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path, kind)
    return path


def by_md5(salt: str, keys: Iterable[str]) -> list[str]:
    """`keys` by the number that MD5 makes of salt and key."""
    return sorted(keys, key=lambda key: int(hashlib.md5((salt + key).encode()).hexdigest(), 16))


def part_of_range(salt: str, key: str) -> float:
    """Where the hash of a key lies in the range of MD5: 0 to 1."""
    return int(hashlib.md5((salt + key).encode()).hexdigest(), 16) / 2**128
