"""Decoded tasks of 24 pixels, and their bytes."""

from collections.abc import Callable
from pathlib import Path

from vtab_peft.datasets.cache import CachedTask
from vtab_peft.datasets.pixels import Preprocessing
from vtab_peft.datasets.task import SPLITS

MakeFolder = Callable[..., Path]
BICUBIC = Preprocessing(24, "bicubic")


def pixels(found: CachedTask) -> dict[str, bytes]:
    return {split: found.images(split).tobytes() for split in SPLITS}
