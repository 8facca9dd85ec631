"""Tests of sources with image files and lists: DTD, Oxford Flowers 102, Oxford-IIIT Pet."""

from pathlib import Path

import numpy as np
import pytest
from raises import raises_naming
from raw_pictures import by_md5, picture
from scipy.io import savemat
from vtab_peft.datasets.raw import dtd, oxford_flowers102, oxford_iiit_pet
from vtab_peft.datasets.raw.source import Examples
from vtab_peft.datasets.task import DataError


def labelled(examples: Examples) -> dict[str, int]:
    return dict(zip(examples.keys, examples.labels, strict=True))


DTD_LISTS = {
    "train1": {
        "banded/banded_0002.jpg": 0,
        "polka-dotted/polka-dotted_0101.jpg": 30,
        "zigzagged/zigzagged_0001.jpg": 46,
    },
    "val1": {"blotchy/blotchy_0003.jpg": 1, "dotted/dotted_0165.jpg": 10},
    "test1": {"waffled/waffled_0044.jpg": 43, "woven/woven_0001.jpg": 44},
    "train2": {"banded/banded_0005.jpg": 0},
}
"""Class numbers counted by hand in the alphabetical list of the 47 texture words."""


@pytest.fixture
def raw_dtd(tmp_path: Path) -> Path:
    for name, files in DTD_LISTS.items():
        path = tmp_path / "dtd" / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{file}\n" for file in files))
        for file in files:
            picture(tmp_path / "dtd" / "images" / file)
    return tmp_path


def test_dtd_takes_the_first_partition(raw_dtd: Path) -> None:
    splits = dtd.read(raw_dtd)
    assert {split: labelled(examples) for split, examples in splits.items()} == {
        "train": DTD_LISTS["train1"],
        "val": DTD_LISTS["val1"],
        "test": DTD_LISTS["test1"],
    }


def test_dtd_comes_in_tfds_order_each_split_with_its_own_salt(raw_dtd: Path) -> None:
    splits = dtd.read(raw_dtd)
    assert splits["train"].keys == by_md5("train", DTD_LISTS["train1"])
    assert splits["val"].keys == by_md5("validation", DTD_LISTS["val1"])
    assert splits["test"].keys == by_md5("test", DTD_LISTS["test1"])


def test_dtd_pictures_are_the_files_their_keys_name(raw_dtd: Path) -> None:
    train = dtd.read(raw_dtd)["train"]
    assert [train.picture(i) for i in range(3)] == [raw_dtd / "dtd" / "images" / key for key in train.keys]


def test_dtd_names_a_class_that_does_not_exist(raw_dtd: Path) -> None:
    (raw_dtd / "dtd" / "labels" / "val1.txt").write_text("plaid/plaid_0001.jpg\n")
    with raises_naming(DataError, "val1.txt", "plaid/plaid_0001.jpg", "47 classes"):
        dtd.read(raw_dtd)


def test_an_absent_image_is_named_before_anything_is_built(raw_dtd: Path) -> None:
    (raw_dtd / "dtd" / "images" / "woven" / "woven_0001.jpg").unlink()
    with raises_naming(DataError, "woven_0001.jpg"):
        dtd.read(raw_dtd)


def test_all_absent_images_are_counted(raw_dtd: Path) -> None:
    for path in (raw_dtd / "dtd" / "images").rglob("*.jpg"):
        path.unlink()
    with raises_naming(DataError, "6 more files"):
        dtd.read(raw_dtd)


def test_an_empty_list_is_named(raw_dtd: Path) -> None:
    (raw_dtd / "dtd" / "labels" / "test1.txt").write_text("\n")
    with raises_naming(DataError, "test1.txt", "empty"):
        dtd.read(raw_dtd)


def test_a_folder_that_is_not_there_says_where_to_get_it(tmp_path: Path) -> None:
    with raises_naming(DataError, "robots.ox.ac.uk", "dtd-r1.0.1.tar.gz"):
        dtd.read(tmp_path)


@pytest.fixture
def raw_flowers(tmp_path: Path) -> Path:
    """Nine images: 1 to 9 of classes 77, 1, 2, 102, 3, 3, 5, 6, 7, in files as MATLAB writes them."""
    labels = np.array([[77, 1, 2, 102, 3, 3, 5, 6, 7]], np.uint8)
    savemat(tmp_path / "imagelabels.mat", {"labels": labels})
    ids = {"trnid": [4, 2, 9], "valid": [1, 3], "tstid": [5, 6, 7, 8]}
    savemat(tmp_path / "setid.mat", {name: np.array([numbers], np.uint16) for name, numbers in ids.items()})
    for number in range(1, 10):
        picture(tmp_path / "jpg" / f"image_{number:05d}.jpg")
    return tmp_path


def test_flowers_count_images_and_labels_from_one(raw_flowers: Path) -> None:
    splits = oxford_flowers102.read(raw_flowers)
    assert labelled(splits["train"]) == {"image_00004.jpg": 101, "image_00002.jpg": 0, "image_00009.jpg": 6}
    assert labelled(splits["val"]) == {"image_00001.jpg": 76, "image_00003.jpg": 1}
    assert set(labelled(splits["test"]).values()) == {2, 4, 5}


def test_flowers_come_in_tfds_order(raw_flowers: Path) -> None:
    splits = oxford_flowers102.read(raw_flowers)
    for split, salt in {"train": "train", "val": "validation", "test": "test"}.items():
        assert splits[split].keys == by_md5(salt, splits[split].keys)


def test_the_flower_of_image_1_is_a_passion_flower() -> None:
    """The first image of the original has label 77 (imagelabels.mat), and shows one."""
    assert oxford_flowers102.CLASSES[76] == "passion flower"
    assert len(set(oxford_flowers102.CLASSES)) == 102


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("setid.mat", {"trnid": np.array([[1]])}, "valid"),
        ("setid.mat", {n: np.array([[10]]) for n in ("trnid", "valid", "tstid")}, "1 to 9"),
        ("imagelabels.mat", {"labels": np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8]])}, "1 to 102"),
    ],
)
def test_flowers_name_the_file_that_is_wrong(
    raw_flowers: Path, file: str, content: dict[str, np.ndarray], message: str
) -> None:
    savemat(raw_flowers / file, content)
    with raises_naming(DataError, file, message):
        oxford_flowers102.read(raw_flowers)


def test_a_damaged_matlab_file_is_named(raw_flowers: Path) -> None:
    whole = (raw_flowers / "setid.mat").read_bytes()
    (raw_flowers / "setid.mat").write_bytes(whole[: len(whole) // 2])
    with raises_naming(DataError, "setid.mat", "MATLAB"):
        oxford_flowers102.read(raw_flowers)


@pytest.fixture
def raw_pets(tmp_path: Path) -> Path:
    """Ten images in trainval, five of each of two classes, and two in test."""
    trainval = [f"Abyssinian_{n} 1 1 1" for n in range(1, 6)] + [f"yorkshire_terrier_{n} 37 2 25" for n in range(1, 6)]
    test = ["Bombay_7 8 1 5", "yorkshire_terrier_9 37 2 25"]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "trainval.txt").write_text("\n".join(trainval) + "\n")
    (tmp_path / "annotations" / "test.txt").write_text("\n".join(test) + "\n")
    for line in trainval + test:
        picture(tmp_path / "images" / f"{line.split()[0]}.jpg")
    return tmp_path


def test_pets_take_the_class_and_not_species_or_breed(raw_pets: Path) -> None:
    splits = oxford_iiit_pet.read(raw_pets)
    assert labelled(splits["test"]) == {"Bombay_7.jpg": 7, "yorkshire_terrier_9.jpg": 36}
    assert set(splits["train"].labels) == {0, 36}


def test_pets_take_val_behind_80_percent_of_trainval(raw_pets: Path) -> None:
    splits = oxford_iiit_pet.read(raw_pets)
    ranked = by_md5("train", [f"{name}_{n}.jpg" for name in ("Abyssinian", "yorkshire_terrier") for n in range(1, 6)])
    assert splits["train"].keys[:8] == ranked[:8]
    assert splits["val"].keys == ranked[8:]


def test_class_numbers_of_pets_are_those_of_the_names() -> None:
    """The 37 breeds are numbered alphabetically, whatever the case."""
    assert list(oxford_iiit_pet.CLASSES) == sorted(oxford_iiit_pet.CLASSES, key=str.lower)
    assert len(oxford_iiit_pet.CLASSES) == 37


@pytest.mark.parametrize("line", ["Bombay_7 8 1", "Bombay_7 eight 1 5", "Bombay_7 38 1 5", "Bombay_7 0 1 5"])
def test_pets_name_a_line_that_gives_no_label(raw_pets: Path, line: str) -> None:
    (raw_pets / "annotations" / "test.txt").write_text(f"{line}\n")
    with raises_naming(DataError, "test.txt"):
        oxford_iiit_pet.read(raw_pets)
