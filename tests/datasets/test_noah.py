"""NOAH's few-shot lists: what they hold, and the task folders made of them."""

import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raises import raises_naming
from vtab_peft.benchmark.cli import main
from vtab_peft.datasets import noah
from vtab_peft.datasets.archive import read
from vtab_peft.datasets.cache import Preprocessing, build
from vtab_peft.datasets.few_shots import Draw, few_shot
from vtab_peft.datasets.noah import IMAGES, lists, noah_task
from vtab_peft.datasets.task import DataError

SIZES = {
    "fgvc_aircraft": (100, 3229, 3333, 3333),
    "food101": (101, 8605, 20200, 30300),
    "oxford_flowers102": (102, 3517, 1633, 2463),
    "oxford_pets": (37, 2111, 736, 3669),
    "stanford_cars": (196, 6275, 1635, 8041),
}
"""Classes, and images in train, val and test: counted in NOAH's files, as docs/few-shot.md prints them."""


@pytest.mark.parametrize("name", IMAGES)
def test_lists_are_balanced_and_disjoint(name: str) -> None:
    found = lists(name)
    splits = [set(found[f"{split}.txt"]) for split in ("train", "val", "test")]
    labels = {line.split()[1] for line in found["test.txt"]}
    assert (len(labels), *map(len, splits)) == SIZES[name]
    assert not splits[0] & splits[1]
    assert not (splits[0] | splits[1]) & splits[2]
    assert len(found) == 3 + 15
    for shots in (1, 2, 4, 8, 16):
        for seed in (0, 1, 2):
            own = found[f"shots_{shots}_seed_{seed}.txt"]
            assert set(Counter(line.split()[1] for line in own).values()) == {shots}
            assert len({line.split()[1] for line in own}) == len(labels)
            assert set(own) <= splits[0]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lists of two classes with 1 shot, and the folder of their images."""
    lines = ["a/1.jpg 1 1.0", "a/2.jpg 1 val", "a/3.jpg 1 test", "b/1.jpg 0 1.1,1.0", "b/2.jpg 0 val", "b/3.jpg 0 test"]
    lines += ["a/4.jpg 1 1.1"]
    (tmp_path / "oxford_pets.txt.xz").write_bytes(lzma.compress("".join(f"{line}\n" for line in lines).encode()))
    monkeypatch.setattr(noah, "LISTS", tmp_path)
    images = tmp_path / "pictures"
    for number, line in enumerate(lines):
        path = images / line.split()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 30 * number, np.uint8)).save(path)
    return images


def test_folder_is_a_task_whose_draws_are_the_lists(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "few-shot", "oxford_pets", str(small), "--to", str(tmp_path / "pets")]) == 0
    assert "noah/oxford_pets" in capsys.readouterr().out
    task = noah.folder_task(tmp_path / "pets")
    assert read(task)["train"].files == ["images/a/1.jpg", "images/b/1.jpg", "images/a/4.jpg"]
    drawn = few_shot(build(task, Preprocessing(8, "bicubic"), tmp_path / "cache"), Draw(1, 1))
    assert drawn.rows["train"].tolist() == [1, 2]
    assert sorted(drawn.labels("val").tolist()) == [0, 1]


def test_missing_images_leave_no_folder_behind(small: Path, tmp_path: Path) -> None:
    (small / "b/3.jpg").unlink()
    with raises_naming(DataError, "b/3.jpg"):
        noah_task("oxford_pets", small, tmp_path / "pets")
    assert not (tmp_path / "pets").exists()
    with raises_naming(DataError, tmp_path / "absent"):
        noah_task("oxford_pets", tmp_path / "absent", tmp_path / "pets")
    with raises_naming(DataError, small):
        noah_task("oxford_pets", small, small)
    with raises_naming(ValueError, "oxford_pet", "oxford_pets"):
        noah_task("oxford_pet", small, tmp_path / "pets")
