"""Tests of `hf:` sources with data sets that are built here; skipped without the package `datasets`."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raises import raises_naming
from vtab_peft.datasets.importing import import_task, read_labelled
from vtab_peft.datasets.task import DataError


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with raises_naming(DataError, 'pip install "vtab-peft[hf]"', "hf:owner/name"):
        read_labelled("hf:owner/name")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("datasets.load", reason="the extra `hf` is not installed")
    hub: Any = import_module("datasets")
    monkeypatch.setattr(hub.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.config, "HF_DATASETS_CACHE", tmp_path / "hub cache")
    return hub


def pictures(folder: Path, count: int, first: int = 0) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(first, first + count):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 7, 3), dtype=np.uint8)
        files.append(str(folder / f"{number}.png"))
        Image.fromarray(pixels).save(files[-1])
    return files


def build(hub: Any, folder: Path, count: int, first: int = 0, embed: bool = False) -> Any:
    features = hub.Features({"image": hub.Image(), "label": hub.ClassLabel(names=["zebra", "ape"])})
    files = pictures(folder, count, first)
    images = [{"bytes": Path(file).read_bytes(), "path": None} for file in files] if embed else files
    rows = {"image": images, "label": [i % 2 for i in range(count)]}
    return hub.Dataset.from_dict(rows, features=features)


def test_saved_data_set_keeps_names_and_bytes(hub: Any, tmp_path: Path) -> None:
    build(hub, tmp_path / "files", 20).save_to_disk(str(tmp_path / "saved"))
    made = import_task(f"hf:{tmp_path / 'saved'}", tmp_path / "out", train=10)
    assert made.counts == {"train": 8, "val": 2, "test": 10}
    assert made.task.class_names == ("zebra", "ape")
    originals = {path.read_bytes() for path in (tmp_path / "files").iterdir()}
    assert {path.read_bytes() for path in (tmp_path / "out" / "images").rglob("*.png")} == originals


def test_splits_of_the_data_set_are_kept(hub: Any, tmp_path: Path) -> None:
    parts = {"train": build(hub, tmp_path / "a", 12), "test": build(hub, tmp_path / "b", 6, 50)}
    hub.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    assert import_task(f"hf:{tmp_path / 'saved'}", tmp_path / "out").counts == {"train": 10, "val": 2, "test": 6}


def test_parquet_files_are_read(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "parquet").mkdir()
    build(hub, tmp_path / "files", 20, embed=True).to_parquet(str(tmp_path / "parquet" / "train.parquet"))
    found = read_labelled(f"hf:{tmp_path / 'parquet'}")
    assert found.class_names == ("zebra", "ape")
    assert found.subsets["all"].picture(0) == (tmp_path / "files" / "0.png").read_bytes()


def test_numbers_without_names_are_labels_too(hub: Any, tmp_path: Path) -> None:
    """Whole sets in webdataset's form have a column `cls`."""
    rows = {"webp": pictures(tmp_path / "files", 12), "cls": [(9, 10)[i % 2] for i in range(12)]}
    features = hub.Features({"webp": hub.Image(), "cls": hub.Value("int64")})
    hub.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    assert read_labelled(f"hf:{tmp_path / 'saved'}").class_names == ("9", "10")


def test_rows_without_image_or_label_are_named(hub: Any, tmp_path: Path) -> None:
    features = hub.Features({"image": hub.Image(), "label": hub.Value("string")})
    files = pictures(tmp_path / "files", 10)
    for name, images, last in (("images", [*files[:9], None], "b"), ("labels", files, None)):
        rows = {"image": images, "label": [*"ababababa", last]}
        hub.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / name))
    with raises_naming(DataError, "all/000000009"):
        import_task(f"hf:{tmp_path / 'images'}", tmp_path / "out")
    with raises_naming(DataError, "without a label"):
        read_labelled(f"hf:{tmp_path / 'labels'}")
    rows = {"image": files, "label": [0.0, 1.0] * 4 + [1.0, float("nan")]}  # tables of pandas have such gaps
    features = hub.Features({"image": hub.Image(), "label": hub.Value("float32")})
    hub.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "numbers"))
    with raises_naming(DataError, "without a label"):
        read_labelled(f"hf:{tmp_path / 'numbers'}")


def test_data_sets_without_images_or_labels_are_refused(hub: Any, tmp_path: Path) -> None:
    hub.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(str(tmp_path / "text"))
    with raises_naming(DataError, "text"):
        read_labelled(f"hf:{tmp_path / 'text'}")
    with raises_naming(DataError, "hf:no/such-data-set"):
        read_labelled("hf:no/such-data-set")


def test_each_split_numbers_its_own_classes(hub: Any, tmp_path: Path) -> None:
    parts = {}
    for split, names in (("train", ["zebra", "ape"]), ("test", ["ape", "zebra", "cow"])):
        features = hub.Features({"image": hub.Image(), "label": hub.ClassLabel(names=names)})
        rows = {"image": pictures(tmp_path / split, 6), "label": [0] * 4 + [1, len(names) - 1]}
        parts[split] = hub.Dataset.from_dict(rows, features=features)
    hub.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    found = read_labelled(f"hf:{tmp_path / 'saved'}")
    assert found.class_names == ("zebra", "ape", "cow")
    assert list(found.subsets["train"].labels) == [0, 0, 0, 0, 1, 1]
    assert list(found.subsets["test"].labels) == [1, 1, 1, 1, 0, 2]


def test_several_labels_per_image_are_refused(hub: Any, tmp_path: Path) -> None:
    features = hub.Features({"image": hub.Image(), "label": hub.Sequence(hub.Value("int64"))})
    rows = {"image": pictures(tmp_path / "files", 4), "label": [[0], [1], [0, 1], []]}
    hub.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    with raises_naming(DataError, "several labels", "label"):
        read_labelled(f"hf:{tmp_path / 'saved'}")
