"""Tests of sources with one folder per class: EuroSAT and NWPU-RESISC45."""

from pathlib import Path

import pytest
from official_splits import digest, released_digests
from raises import raises_naming
from raw_pictures import by_md5, picture
from vtab_peft.datasets.raw import eurosat, resisc45
from vtab_peft.datasets.raw.source import Examples, splits_60_20_20
from vtab_peft.datasets.task import DataError

EUROSAT_SIZES = {"Pasture": 2000} | dict.fromkeys(("Highway", "Industrial", "PermanentCrop", "River"), 2500)
"""Images of the smaller classes (arXiv:1709.00029, section III); all others have 3,000."""


@pytest.fixture
def raw_eurosat(tmp_path: Path) -> Path:
    """Two images a class, numbered from 1, and one more river: 21."""
    for name in eurosat.CLASSES:
        for number in (1, 2, 3) if name == "River" else (1, 2):
            picture(tmp_path / "2750" / name / f"{name}_{number}.jpg")
    return tmp_path


def test_the_limits_are_60_and_80_percent_rounded_down(raw_eurosat: Path) -> None:
    """21 images: ranks 12 to 15 and 16 to 20."""
    ranked = by_md5(
        "train", [f"{name}_{name}_{n}.jpg" for name in eurosat.CLASSES for n in (1, 2)] + ["River_River_3.jpg"]
    )
    splits = eurosat.read(raw_eurosat)
    assert splits["train"].keys[:12] == ranked[:12]
    assert splits["val"].keys[:4] == ranked[12:16]
    assert splits["test"].keys == ranked[16:]


def test_labels_and_pictures_follow_the_keys(raw_eurosat: Path) -> None:
    train = eurosat.read(raw_eurosat)["train"]
    for position, key in enumerate(train.keys):
        name = key.split("_")[0]
        assert train.labels[position] == eurosat.CLASSES.index(name)
        assert train.picture(position) == raw_eurosat / "2750" / name / key.removeprefix(f"{name}_")


def test_another_name_of_the_same_folder_is_read_as_well(raw_eurosat: Path) -> None:
    (raw_eurosat / "2750").rename(raw_eurosat / "EuroSAT_RGB")
    assert len(eurosat.read(raw_eurosat)["train"]) == 21


def test_a_class_without_a_folder_is_named(raw_eurosat: Path) -> None:
    (raw_eurosat / "2750" / "SeaLake").rename(raw_eurosat / "2750" / "sea")
    with raises_naming(DataError, "2750/SeaLake"):
        eurosat.read(raw_eurosat)


def test_other_files_in_the_class_folders_do_not_count(raw_eurosat: Path) -> None:
    (raw_eurosat / "2750" / "River" / "Thumbs.db").write_bytes(b"?")
    assert len(eurosat.read(raw_eurosat)["train"]) == 21


def test_resisc45_says_what_to_do_by_hand(tmp_path: Path) -> None:
    with raises_naming(DataError, "NWPU-RESISC45.rar", "https://gcheng"):
        resisc45.read(tmp_path)


def test_resisc45_keys_repeat_a_class_of_several_words(tmp_path: Path) -> None:
    for name in resisc45.CLASSES:
        picture(tmp_path / "NWPU-RESISC45" / name / f"{name}_001.jpg")
    train = resisc45.read(tmp_path)["train"]
    position = train.keys.index("sea_ice_sea_ice_001.jpg")
    assert train.labels[position] == 35  # counted by hand in the alphabetical list
    assert train.picture(position) == tmp_path / "NWPU-RESISC45" / "sea_ice" / "sea_ice_001.jpg"


def whole(keys: list[str]) -> Examples:
    return Examples(keys, [0] * len(keys), Path)


def test_eurosat_has_the_released_1000() -> None:
    keys = [f"{c}_{c}_{n}.jpg" for c in eurosat.CLASSES for n in range(1, EUROSAT_SIZES.get(c, 3000) + 1)]
    splits = splits_60_20_20(whole(keys))
    released = released_digests("eurosat")
    assert digest(key.split("_", 1)[1] for key in splits["train"].keys) == released["train"]
    assert digest(key.split("_", 1)[1] for key in splits["val"].keys) == released["val"]
    assert len(splits["test"]) == 5400


def test_resisc45_has_the_released_1000() -> None:
    files = {f"{c}_{c}_{n:03d}.jpg": f"{c}_{n:03d}.jpg" for c in resisc45.CLASSES for n in range(1, 701)}
    splits = splits_60_20_20(whole(list(files)))
    released = released_digests("resisc45")
    assert digest(files[key] for key in splits["train"].keys) == released["train"]
    assert digest(files[key] for key in splits["val"].keys) == released["val"]
    assert len(splits["test"]) == 6300
