"""What all tests share: one thread, a cache of their own, and a folder of small real image files."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: the models here are too small for two threads


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody's real cache is read or written."""
    root = tmp_path_factory.mktemp("cache")
    os.environ["VTAB_PEFT_CACHE"] = str(root)
    return root


@pytest.fixture(scope="session")
def make_task_in() -> Callable[..., Path]:
    """Makes a task folder of 24 train, 12 val and 18 test images whose class shows in their colour, in a given one."""

    def make(root: Path, name: str = "colours", classes: int = 3, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        folder = root / "tasks" / name
        (folder / "images").mkdir(parents=True)
        lists = {}
        for split, n in (("train800", 24), ("val200", 12), ("test", 18)):
            lines = []
            for i in range(n):
                label = i % classes
                pixels = rng.integers(0, 120, (40, 48, 3))
                pixels[..., label % 3] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"images/{split}_{i}.png")
                lines.append(f"images/{split}_{i}.png {label}\n")
            lists[split] = lines
            (folder / f"{split}.txt").write_text("".join(lines))
        (folder / "train800val200.txt").write_text("".join(lists["train800"] + lists["val200"]))
        return folder

    return make


@pytest.fixture
def make_task(tmp_path: Path, make_task_in: Callable[..., Path]) -> Callable[..., Path]:
    """The same in the test's own folder."""
    return lambda *args, **kwargs: make_task_in(tmp_path, *args, **kwargs)
