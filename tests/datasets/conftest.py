"""Fixtures: small tasks in the archive's layout, a folder for a cache, and a server of one file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from downloads import BODY
from fileserver import FileServer
from PIL import Image

SIZES = {"train800": 6, "val200": 4, "test": 5}


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a task of two classes and 15 noise images, and returns its folder."""

    def make(name: str = "pets", side: int = 12, suffix: str = "png", seed: int = 0) -> Path:
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        rng = np.random.default_rng(seed)
        lists: dict[str, list[str]] = {}
        for split, size in SIZES.items():
            for number in range(size):
                file = f"images/{split}_{number}.{suffix}"
                Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / file)
                lists.setdefault(split, []).append(f"{file} {number % 2}\n")
        lists["train800val200"] = lists["train800"] + lists["val200"]
        for split, lines in lists.items():
            (folder / f"{split}.txt").write_text("".join(lines))
        return folder

    return make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "*")
    with FileServer({"/data.bin": BODY}) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "data.bin"
