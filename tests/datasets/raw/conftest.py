"""A raw folder of the small kitti, and a folder for what is built."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_kitti import KITTI, make_small
from vtab_peft.datasets.official import VTAB1K


@pytest.fixture
def small_kitti() -> Iterator[None]:
    make_small()
    yield
    VTAB1K["kitti"] = KITTI


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw" / "kitti").mkdir(parents=True)
    (tmp_path / "raw" / "kitti" / "raw.bin").write_bytes(b"abc")
    return tmp_path / "raw"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"
