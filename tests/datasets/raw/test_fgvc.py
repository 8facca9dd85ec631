"""Tests of FGVC from the original archives: the published splits, with one label per class in all of them."""

import json
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from raises import raises_naming
from vtab_peft.datasets.official import FGVC
from vtab_peft.datasets.raw import fgvc
from vtab_peft.datasets.raw.fgvc import Row, labels, split_rows
from vtab_peft.datasets.raw.sources import SOURCES
from vtab_peft.datasets.task import SPLITS, DataError

PUBLISHED = Path(__file__).parents[4] / "shared" / "reference" / "fgvc_splits"
SHIPPED = Path(fgvc.__file__).parent / "fgvc_splits"

SMALL: dict[str, list[Row]] = {
    "cub": [
        Row("CUB_200_2011/images/001.Black_footed_Albatross/a_1.jpg", 1, "train"),
        Row("CUB_200_2011/images/001.Black_footed_Albatross/a_2.jpg", 1, "test"),
        Row("CUB_200_2011/images/002.Laysan_Albatross/b_1.jpg", 2, "val"),
    ],
    "nabirds": [
        Row("nabirds/images/0295/0a0b0c0d*", 295, "train"),
        Row("nabirds/images/0627/0a0b0c0d*", 627, "train"),
        Row("nabirds/images/1010/01234567*", 1010, "val"),
        Row("nabirds/images/1010/89abcdef*", 1010, "test"),
    ],
    "oxfordflowers": [Row("jpg/image_00001.jpg", 77, "train"), Row("jpg/image_00002.jpg", 5, "val")],
    "stanforddogs": [Row("Images/n02085620-Chihuahua/n02085620_10074.jpg", 1, "test")],
    "stanfordcars": [Row("cars_test/00001.jpg", 181, "test"), Row("cars_train/00001.jpg", 14, "train")],
}
"""A few rows as each set has them: NABirds' class numbers have gaps, and its val lacks one of them."""


def unpack(task: str, raw: Path) -> Path:
    """The raw folder with the images of `SMALL`, each holding its own name."""
    for row in SMALL[task]:
        path = raw / row.file.replace("*", "89abcdef0123456789abcdef.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    return raw


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fgvc, "split_rows", SMALL.__getitem__)


@pytest.mark.parametrize("task", FGVC)
def test_the_shipped_split_is_the_published_one(task: str) -> None:
    if not PUBLISHED.exists():
        pytest.skip(f"the published lists are not beside the checkout ({PUBLISHED})")
    shipped = {split: {row.file: row.number for row in split_rows(task) if row.split == split} for split in SPLITS}
    for split in SPLITS:
        wanted = json.loads((PUBLISHED / task / f"{split}.json").read_text())
        assert shipped[split] == {_as_shipped(task, file): int(number) for file, number in wanted.items()}


def _as_shipped(task: str, file: str) -> str:
    folder, name = file.rsplit("/", 1)
    return {
        "cub": f"CUB_200_2011/images/{file}",
        "nabirds": f"nabirds/images/{folder}/{name[:8]}*",
        "oxfordflowers": file,
        "stanforddogs": f"Images/{file}",
        "stanfordcars": f"{folder.split('/')[0]}/{name}",
    }[task]


@pytest.mark.parametrize("task", FGVC)
def test_sizes_and_classes_are_those_of_the_task(task: str) -> None:
    rows, row = split_rows(task), FGVC[task]
    counts = Counter(row.split for row in rows)
    assert {split: (counts[split],) for split in SPLITS} == row.sizes
    assert len({row.file for row in rows}) == len(rows)
    assert sorted(labels(rows).values()) == list(range(row.classes))
    assert len(SOURCES[task].class_names) == (0 if task == "nabirds" else row.classes)


@pytest.mark.parametrize("task", ["cub", "nabirds"])
def test_birds_folders_say_their_class(task: str) -> None:
    """`CUB_200_2011/images/001.Black_footed_Albatross`, `nabirds/images/0295`."""
    folders = {(row.file.split("/")[2].split(".")[0], row.number) for row in split_rows(task)}
    assert folders == {(folder, int(folder)) for folder, _ in folders}
    assert len(folders) == FGVC[task].classes


def test_class_names_are_those_of_the_folders() -> None:
    for task, mark in (("cub", "."), ("stanforddogs", "-")):
        folders = {row.file.split("/")[-2] for row in split_rows(task)}
        names = {folder.split(mark, 1)[1].replace("_", " ") for folder in folders}
        assert names == set(SOURCES[task].class_names)


def test_only_nabirds_names_are_cut_and_each_means_one_file() -> None:
    cut = {task for task in FGVC for row in split_rows(task) if "*" in row.file}
    assert cut == {"nabirds"}
    files = [row.file for row in split_rows("nabirds")]
    assert {len(file) for file in files} == {len("nabirds/images/0295/01f53d6b*")}
    assert len(set(files)) == len(files)


def shifted(rows: Sequence[Row], split: str) -> int:
    """How many labels of `split` mean another class in train, when every split numbers the classes it has."""
    own = {number: i for i, number in enumerate(sorted({row.number for row in rows if row.split == split}))}
    train = {number: i for i, number in enumerate(sorted({row.number for row in rows if row.split == "train"}))}
    return sum(own[row.number] != train[row.number] for row in rows if row.split == split)


def test_nabirds_val_labels_shift_with_one_mapping_per_split() -> None:
    rows = split_rows("nabirds")
    absent = {row.number for row in rows} - {row.number for row in rows if row.split == "val"}
    assert absent == {627, 975}
    assert {split: shifted(rows, split) for split in SPLITS} == {"train": 0, "val": 1_440, "test": 0}
    assert all(shifted(split_rows(task), split) == 0 for task in FGVC if task != "nabirds" for split in SPLITS)


def test_nabirds_labels_mean_the_same_class_in_every_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image a class and split out of the real rows: of the 555 classes val has 553, and none of them shifts."""
    rows = list({(row.number, row.split): row for row in split_rows("nabirds")}.values())
    monkeypatch.setitem(SMALL, "nabirds", rows)
    monkeypatch.setattr(fgvc, "split_rows", SMALL.__getitem__)
    splits = SOURCES["nabirds"].read(unpack("nabirds", tmp_path))
    classes = {split: [int(key.split("/")[2]) for key in splits[split].keys] for split in SPLITS}
    meant = {split: dict(zip(classes[split], splits[split].labels, strict=True)) for split in SPLITS}
    assert len(meant["val"]) == 553
    assert meant["val"].items() <= meant["train"].items()
    assert meant["train"] == meant["test"] == dict(zip(sorted(classes["train"]), range(555), strict=True))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("task", FGVC)
def test_images_are_the_original_files(task: str, tmp_path: Path) -> None:
    raw = unpack(task, tmp_path)
    splits = SOURCES[task].read(raw)
    assert sum(len(splits[split]) for split in SPLITS) == len(SMALL[task])
    for split in SPLITS:
        wanted = [row.file.removesuffix("*") for row in SMALL[task] if row.split == split]
        assert [key[: len(start)] for key, start in zip(splits[split].keys, wanted, strict=True)] == wanted
        for position, key in enumerate(splits[split].keys):
            assert splits[split].picture(position) == raw / key
            assert (raw / key).read_text() == Path(key).name


@pytest.mark.usefixtures("small")
def test_classes_are_numbered_once_for_all_splits(tmp_path: Path) -> None:
    splits = SOURCES["nabirds"].read(unpack("nabirds", tmp_path))
    assert {split: list(splits[split].labels) for split in SPLITS} == {"train": [0, 1], "val": [2], "test": [2]}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["cars_train", "cars_test"])
def test_an_archive_may_be_unpacked_in_a_folder_of_its_own_name(name: str, tmp_path: Path) -> None:
    raw = unpack("stanfordcars", tmp_path)
    (raw / name).rename(raw / "inner")
    (raw / name).mkdir()
    (raw / "inner").rename(raw / name / name)
    splits = SOURCES["stanfordcars"].read(raw)
    assert {split: list(splits[split].labels) for split in SPLITS} == {"train": [0], "val": [], "test": [1]}
    assert {str(splits[split].picture(0)) for split in ("train", "test")} == {
        str(path) for path in raw.rglob("00001.jpg")
    }


@pytest.mark.usefixtures("small")
def test_absent_images_are_named(tmp_path: Path) -> None:
    raw = unpack("nabirds", tmp_path)
    next((raw / "nabirds/images/1010").glob("8*")).unlink()
    (raw / "nabirds/images/0295/0a0b0c0d89abcdef0123456789abcdef.jpg").rename(raw / "nabirds/images/0295/other.jpg")
    missing = "nabirds/images/0295/0a0b0c0d*, nabirds/images/1010"
    with raises_naming(DataError, "2 of the 4 images", "fgvc/nabirds", raw, missing):
        SOURCES["nabirds"].read(raw)


def test_an_absent_archive_is_named_with_its_page(tmp_path: Path) -> None:
    with raises_naming(DataError, "nabirds/images", "dl.allaboutbirds.org/nabirds"):
        SOURCES["nabirds"].read(tmp_path)


def test_the_splits_are_small_and_part_of_the_package() -> None:
    settings = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-data"]["vtab_peft.datasets.raw.fgvc_splits"] == ["*"]
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 600_000
