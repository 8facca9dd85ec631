"""Tests of sources that are arrays, with files written here in the formats of their publishers."""

import gzip
import itertools
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from array_files import RNG, noise, numbered, same
from raises import raises_naming
from scipy.io import savemat
from vtab_peft.datasets.raw import dsprites, patch_camelyon, smallnorb, svhn
from vtab_peft.datasets.raw.sources import SOURCES
from vtab_peft.datasets.task import DataError

# SVHN


@pytest.mark.parametrize("compressed", [False, True])
def test_svhn_where_label_10_means_0(compressed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svhn, "ROWS", {"train": 30, "test": 11})
    images = {part: noise(n, 32, 32, 3) for part, n in svhn.ROWS.items()}
    for part, pixels in images.items():
        digits = np.array([1 + row % 10 for row in range(len(pixels))], np.uint8)[:, None]
        content = {"X": np.moveaxis(pixels, 0, -1), "y": digits}
        savemat(tmp_path / f"{part}_32x32.mat", content, format="5", do_compression=compressed)
    splits = SOURCES["svhn"].read(tmp_path)
    labels = numbered([1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 3)
    assert same(splits["train"], numbered(images["train"]), labels)
    assert same(splits["val"], numbered(images["train"]), labels)
    assert same(splits["test"], numbered(images["test"]), labels)


def test_a_damaged_svhn_is_named(tmp_path: Path) -> None:
    for content in (b"", b"MATLAB 5.0 MAT-file" + bytes(200), b"MATLAB 7.3 MAT-file" + bytes(600)):
        for part in ("train", "test"):
            (tmp_path / f"{part}_32x32.mat").write_bytes(content)
        with raises_naming(DataError, "train_32x32.mat", "MATLAB 5"):
            SOURCES["svhn"].read(tmp_path)
    savemat(tmp_path / "train_32x32.mat", {"X": noise(32, 32, 3, 5), "y": np.ones((5, 1))})
    with raises_naming(DataError, "download it again"):
        SOURCES["svhn"].read(tmp_path)


# PatchCamelyon


@pytest.mark.parametrize("zipped", [False, True])
def test_patch_camelyon_gzipped_or_not(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_camelyon, "ROWS", {"train": 9, "valid": 6, "test": 7})
    images, labels = {}, {}
    for part, n in patch_camelyon.ROWS.items():
        pixels, tumour = noise(n, 96, 96, 3), RNG.integers(0, 2, (n, 1, 1, 1), dtype=np.uint8)
        images |= {f"{part}_{row}": pixels[row] for row in range(n)}
        labels |= {f"{part}_{row}": int(tumour[row, 0, 0, 0]) for row in range(n)}
        for name, content in (("x", pixels), ("y", tumour)):
            path = tmp_path / f"camelyonpatch_level_2_split_{part}_{name}.h5"
            with h5py.File(path, "w") as file:
                file[name] = content
            if zipped:
                (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()
    for _ in range(2):  # once unpacked, it is not unpacked again
        splits = SOURCES["patch_camelyon"].read(tmp_path)
        assert all(same(splits[split], images, labels) for split in splits)
    assert {key[:5] for key in splits["val"].keys} == {"valid"}


def test_a_damaged_gzip_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    whole = gzip.compress(noise(100_000).tobytes())
    for part in ("train_x", "train_y", "valid_x", "valid_y", "test_x", "test_y"):
        (tmp_path / f"camelyonpatch_level_2_split_{part}.h5.gz").write_bytes(whole[:-3000])
    with raises_naming(DataError, "train_x.h5.gz", "damaged"):
        SOURCES["patch_camelyon"].read(tmp_path)
    assert all(path.suffix == ".gz" for path in tmp_path.iterdir())
    (tmp_path / "camelyonpatch_level_2_split_train_x.h5.gz").write_bytes(whole)
    with raises_naming(DataError, "train_x.h5 ", "HDF5"):
        SOURCES["patch_camelyon"].read(tmp_path)


# Small NORB


def norb(array: np.ndarray) -> bytes:
    """The format of https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/: at least three sizes are written."""
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[array.dtype.name]
    sizes = [*array.shape, 1, 1, 1][: max(3, array.ndim)]
    return (
        struct.pack(f"<{2 + len(sizes)}i", magic, array.ndim, *sizes)
        + array.astype(array.dtype.newbyteorder("<")).tobytes()
    )


@pytest.mark.parametrize("zipped", [False, True])
def test_small_norb_reads_camera_azimuth_and_elevation(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smallnorb, "ROWS", 36)
    azimuths = [row % 18 for row in range(36)]
    elevations = [row % 9 for row in range(36)]
    images = {}
    for part, stem in (("train", "5x46789x9x18x6x2x96x96-training"), ("test", "5x01235x9x18x6x2x96x96-testing")):
        pairs = noise(36, 2, 96, 96)
        images[part] = numbered(pairs[:, 0])
        info = np.array([[4, elevations[row], 2 * azimuths[row], 5] for row in range(36)], np.int32)
        for kind, array in (("dat", pairs), ("info", info)):
            content = norb(array)
            path = tmp_path / f"smallnorb-{stem}-{kind}.mat{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    for task, labels in (("smallnorb_azi", azimuths), ("smallnorb_ele", elevations)):
        splits = SOURCES[task].read(tmp_path)
        assert same(splits["train"], images["train"], numbered(labels))
        assert same(splits["val"], images["test"], numbered(labels))
        assert same(splits["test"], images["test"], numbered(labels))
        assert splits["test"].keys == splits["val"].keys[18:]  # the second half of the same order
    damaged = next(tmp_path.glob("*training-dat.mat"))
    for content in (b"", b"MATLAB 5.0 MAT-file", norb(noise(36, 2, 96, 96))[:-1]):
        damaged.write_bytes(content)
        with raises_naming(DataError, "training-dat.mat ", "NORB"):
            SOURCES["smallnorb_azi"].read(tmp_path)


# dSprites

SMALL = {"colour": 1, "shape": 2, "scale": 1, "orientation": 40, "x": 32, "y": 1}


@pytest.fixture
def sprites(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """[2560, 64, 64] uint8 of 0 and 1: all combinations of fewer values."""
    monkeypatch.setattr(dsprites, "LATENTS", SMALL)
    monkeypatch.setattr(dsprites, "BLOCK", 1000)  # so that the last block is a short one
    coarse = RNG.integers(0, 2, (2560, 8, 8), dtype=np.uint8)  # of few pixels, so that it compresses quickly
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def latents() -> list[tuple[int, ...]]:
    """Of every row, the last changing fastest."""
    return list(itertools.product(*(range(n) for n in SMALL.values())))


def as_hdf5(path: Path, images: np.ndarray) -> None:
    with h5py.File(path / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5", "w") as file:
        file.create_dataset("imgs", data=images, compression="gzip")
        file["latents/classes"] = np.array(latents())


def as_npz(path: Path, images: np.ndarray) -> None:
    metadata = np.array({"title": "dSprites dataset"}, dtype=object)  # a pickle, as in the original
    file = path / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
    np.savez_compressed(file, metadata=metadata, imgs=images, latents_classes=np.array(latents()))


def as_packed(path: Path, images: np.ndarray) -> None:
    np.savez_compressed(path / "dsprites_regen_packed.npz", imgs_packed=np.packbits(images.reshape(-1, 4096), axis=1))


ORIENTATIONS = [
    *([0] * 3 + [1] * 2 + [2] * 3 + [3] * 2 + [4] * 3 + [5] * 2 + [6] * 3 + [7] * 2),
    *([8] * 3 + [9] * 2 + [10] * 3 + [11] * 2 + [12] * 3 + [13] * 2 + [14] * 3 + [15] * 2),
]
"""Classes of the 40 angles: floor(angle / 2.5), by hand."""


@pytest.mark.parametrize("write", [as_hdf5, as_npz, as_packed])
def test_dsprites_in_each_of_its_forms(write: Any, sprites: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path, sprites)
    images = numbered(sprites * np.uint8(255))
    locations = numbered(values[4] // 2 for values in latents())
    orientations = numbered(ORIENTATIONS[values[3]] for values in latents())
    for task, labels in (("dsprites_loc", locations), ("dsprites_ori", orientations)):
        splits = SOURCES[task].read(tmp_path)
        assert all(same(splits[split], images, labels) for split in splits)
        assert {split: len(examples) for split, examples in splits.items()} == {"train": 800, "val": 200, "test": 256}


def test_damaged_dsprites_are_named(sprites: np.ndarray, tmp_path: Path) -> None:
    as_npz(tmp_path, sprites[:-1])
    with raises_naming(DataError, ".npz", "(2559, 64, 64)"):
        SOURCES["dsprites_loc"].read(tmp_path)
    as_npz(tmp_path, sprites)
    file = tmp_path / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
    whole = file.read_bytes()
    middle = len(whole) // 2
    for content in (b"", whole[:middle], whole[:middle] + bytes(1000) + whole[middle + 1000 :]):
        file.write_bytes(content)
        with raises_naming(DataError, ".npz", "dSprites"):
            SOURCES["dsprites_loc"].read(tmp_path)


@pytest.mark.parametrize(
    "task", ["cifar", "svhn", "patch_camelyon", "smallnorb_azi", "smallnorb_ele", "dsprites_loc", "dsprites_ori"]
)
def test_a_missing_raw_file_comes_with_its_address(task: str, tmp_path: Path) -> None:
    source = SOURCES[task]
    with pytest.raises(DataError) as error:
        source.read(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert any(file.path in str(error.value) and file.url in str(error.value) for file in source.files)
    assert all(len(file.sha256 or "") == 64 for file in source.files)
