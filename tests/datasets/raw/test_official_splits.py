"""Tests that keys alone give the official 1000 images, and that array sources return exactly these."""

import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from official_splits import digest, official_rows, released_digests, released_lists
from raises import raises_naming
from vtab_peft.datasets.raw import dsprites, svhn
from vtab_peft.datasets.raw.source import tfds_order
from vtab_peft.datasets.raw.sources import SOURCES
from vtab_peft.datasets.task import DataError

CLEVR = [f"CLEVR_train_{image:06d}.png" for image in range(70_000)]
CIFAR_RELEASED, CLEVR_RELEASED = "cifar(num_classes=100)", 'clevr(task="count_all")'
RULES: dict[str, tuple[list[str], str, list[str], str, int]] = {
    # keys of the train part and their salt; keys of the part that holds val, its salt, and val's first rank
    "cifar": (*2 * ([str(row) for row in range(50_000)], "train"), 45_000),
    "svhn": (*2 * ([str(row) for row in range(73_257)], "train"), 65_931),
    "patch_camelyon": (
        *([f"train_{row}" for row in range(262_144)], "train"),
        *([f"valid_{row}" for row in range(32_768)], "validation", 0),
    ),
    "clevr_count": (*2 * (CLEVR, "train"), 63_000),
    "clevr_dist": (*2 * (CLEVR, "train"), 63_000),
    "dsprites_loc": (*2 * ([str(row) for row in range(737_280)], "train"), 589_824),
    "dsprites_ori": (*2 * ([str(row) for row in range(737_280)], "train"), 589_824),
    "smallnorb_azi": (
        *([str(row) for row in range(24_300)], "train"),
        *([str(row) for row in range(24_300)], "test", 0),
    ),
    "smallnorb_ele": (
        *([str(row) for row in range(24_300)], "train"),
        *([str(row) for row in range(24_300)], "test", 0),
    ),
}
_ORDERS: dict[tuple[int, str, str], list[int]] = {}


def order(keys: list[str], salt: str) -> list[int]:
    """`tfds_order`, once for each list of keys."""
    name = (len(keys), keys[1], salt)
    if name not in _ORDERS:
        _ORDERS[name] = tfds_order(keys, salt)
    return _ORDERS[name]


@pytest.mark.parametrize("task", RULES)
def test_the_keys_alone_give_the_official_train800_and_val200(task: str) -> None:
    train_keys, train_salt, val_keys, val_salt, val_from = RULES[task]
    rows = official_rows(task)
    assert order(train_keys, train_salt)[:800] == [row for _, row in rows["train"]]
    assert order(val_keys, val_salt)[val_from : val_from + 200] == [row for _, row in rows["val"]]


def names(task: str) -> dict[str, list[str]]:
    """The official rows in the words of the released lists."""
    write: dict[str, Callable[[str, int], str]] = {
        "cifar": lambda _, row: f"train_{row:05d}",
        "patch_camelyon": lambda part, row: f"{part.replace('validation', 'valid')}_{row}",
        "clevr_count": lambda _, row: CLEVR[row],
        "clevr_dist": lambda _, row: CLEVR[row],
    }
    return {split: [write[task](part, row) for part, row in rows] for split, rows in official_rows(task).items()}


RELEASED = {
    "cifar": CIFAR_RELEASED,
    "patch_camelyon": "patch_camelyon",
    "clevr_count": CLEVR_RELEASED,
    "clevr_dist": 'clevr(task="closest_object_distance")',
}


@pytest.mark.parametrize("task", RELEASED)
def test_the_official_rows_are_those_of_the_released_lists(task: str) -> None:
    found = names(task)
    assert {split: len(set(found[split])) for split in found} == {"train": 800, "val": 200}
    assert {split: digest(found[split]) for split in found} == released_digests(RELEASED[task])


@pytest.mark.parametrize("task", RELEASED)
def test_official_rows_equal_the_released_lists(task: str) -> None:
    released = released_lists(RELEASED[task])
    assert {split: set(found) for split, found in names(task).items()} == {
        split: set(listed) for split, listed in released.items()
    }


def sparse(path: Path, start: bytes, size: int) -> None:
    """A file of zeros that takes no room, except for its start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def raw_cifar(raw: Path, _: pytest.MonkeyPatch) -> None:
    for part, rows in (("train", 50_000), ("test", 10_000)):
        sparse(raw / "cifar-100-binary" / f"{part}.bin", b"", rows * (2 + 3 * 32 * 32))


def raw_svhn(raw: Path, patch: pytest.MonkeyPatch) -> None:
    rows = {"train_32x32.mat": 73_257, "test_32x32.mat": 26_032}
    raw.mkdir()
    for name in rows:
        (raw / name).touch()

    def blank(path: Path, *_: str) -> tuple[np.ndarray, np.ndarray]:
        return np.broadcast_to(np.uint8(0), (32, 32, 3, rows[path.name])), np.ones(rows[path.name], np.uint8)

    patch.setattr(svhn, "load_mat", blank)


def raw_patch_camelyon(raw: Path, _: pytest.MonkeyPatch) -> None:
    raw.mkdir()
    for part, rows in (("train", 262_144), ("valid", 32_768), ("test", 32_768)):
        for name, shape in (("x", (rows, 96, 96, 3)), ("y", (rows, 1, 1, 1))):
            with h5py.File(raw / f"camelyonpatch_level_2_split_{part}_{name}.h5", "w") as file:
                file.create_dataset(name, shape, np.uint8)  # nothing is written, so nothing takes room


def raw_smallnorb(raw: Path, _: pytest.MonkeyPatch) -> None:
    for stem in ("smallnorb-5x46789x9x18x6x2x96x96-training-", "smallnorb-5x01235x9x18x6x2x96x96-testing-"):
        images = struct.pack("<6i", 0x1E3D4C55, 4, 24_300, 2, 96, 96)
        sparse(raw / f"{stem}dat.mat", images, 24 + 24_300 * 2 * 96 * 96)
        sparse(raw / f"{stem}info.mat", struct.pack("<5i", 0x1E3D4C54, 2, 24_300, 4, 1), 20 + 24_300 * 4 * 4)


def raw_dsprites(raw: Path, patch: pytest.MonkeyPatch) -> None:
    raw.mkdir()
    (raw / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz").touch()
    patch.setattr(dsprites, "_images", lambda path, wanted: np.zeros((len(wanted), 512), np.uint8))
    patch.setattr(dsprites, "tfds_order", order)


RAW = {
    "cifar": (raw_cifar, 10_000),
    "svhn": (raw_svhn, 26_032),
    "patch_camelyon": (raw_patch_camelyon, 32_768),
    "smallnorb_azi": (raw_smallnorb, 12_150),
    "smallnorb_ele": (raw_smallnorb, 12_150),
    "dsprites_loc": (raw_dsprites, 73_728),
}


@pytest.mark.parametrize("task", RAW)
def test_sources_return_official_rows_and_full_test(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, tests = RAW[task]
    make(tmp_path / "raw", monkeypatch)
    splits = SOURCES[task].read(tmp_path / "raw")

    def row(key: str) -> int:
        return int(key.rpartition("_")[2])

    for split, rows in official_rows(task).items():
        assert [row(key) for key in splits[split].keys] == [row for _, row in rows]  # pyright: ignore[reportArgumentType]
    assert len(set(splits["test"].keys)) == tests
    if task not in ("cifar", "svhn", "patch_camelyon"):  # their test set is another file, with rows of its own
        of_test_file = "val" if task.startswith("smallnorb") else "train"
        assert not set(splits["test"].keys) & set(splits[of_test_file].keys)
    assert splits["train"].picture(799).shape[:2] in ((32, 32), (64, 64), (96, 96))


def test_raw_files_of_another_size_are_refused(tmp_path: Path) -> None:
    """With other rows the order of the keys would be another, and the official images not found."""
    raw_smallnorb(tmp_path, pytest.MonkeyPatch())
    info = tmp_path / "smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat"
    info.write_bytes(struct.pack("<5i", 0x1E3D4C54, 2, 24_299, 4, 1) + bytes(24_299 * 16))
    with raises_naming(DataError, "(24299, 4)"):
        SOURCES["smallnorb_azi"].read(tmp_path)
