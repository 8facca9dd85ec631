"""Tests of CLEVR: the number of objects and the distance of the nearest."""

import json
from pathlib import Path
from typing import Any

import pytest
from official_splits import digest, released_digests
from raises import raises_naming
from raw_pictures import by_md5, picture
from vtab_peft.datasets.raw import clevr
from vtab_peft.datasets.raw.clevr import SOURCES
from vtab_peft.datasets.task import DataError

READ = {source.task: source.read for source in SOURCES}

SCENES: dict[str, tuple[list[float], int, int]] = {
    "CLEVR_train_000000.png": ([9.2, 8.4, 11.0], 0, 1),
    "CLEVR_train_000001.png": ([8.0, 9.0, 9.5, 10.0], 1, 0),
    "CLEVR_train_000002.png": ([12.0, 11.5, 10.5, 10.1, 13.0], 2, 5),
    "CLEVR_train_000003.png": ([10.0] * 10, 7, 4),
    "CLEVR_train_000004.png": ([8.50000001, 9.1, 9.2, 9.3], 1, 1),  # 8.5 in 32 bits
    "CLEVR_train_000005.png": ([8.501, 9.1, 9.2], 0, 2),
    "CLEVR_train_000006.png": ([99.9, 9.4, 9.3], 0, 3),
}
"""Distances of the objects, and the labels count and distance by the limits 0, 8, 8.5, 9, 9.5, 10, 100."""
VAL = {"CLEVR_val_000000.png": ([9.9, 10.2, 10.3], 0, 4), "CLEVR_val_000001.png": ([7.0, 7.5, 7.6, 8.0], 1, 0)}


def scene(name: str, depths: list[float]) -> dict[str, Any]:
    """As scenes/*.json describe them, with all that is not asked for."""
    objects = [
        {"color": "red", "size": "large", "rotation": 1.5, "3d_coords": [1, 2, 0.7], "pixel_coords": [240, 160, depth]}
        for depth in depths
    ]
    return {
        "split": "train",
        "image_index": 0,
        "image_filename": name,
        "objects": objects,
        "relationships": {"right": [[] for _ in objects]},
        "directions": {"right": [0.65, 0.75, 0.0]},
    }


def write(root: Path, part: str, scenes: list[dict[str, Any]]) -> None:
    path = root / "CLEVR_v1.0" / "scenes" / f"CLEVR_{part}_scenes.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"info": {"split": part, "license": "CC BY 4.0"}, "scenes": scenes}))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for part, scenes in {"train": SCENES, "val": VAL}.items():
        write(tmp_path, part, [scene(name, depths) for name, (depths, _, _) in scenes.items()])
        for name in scenes:
            picture(tmp_path / "CLEVR_v1.0" / "images" / part / name)
    return tmp_path


@pytest.mark.parametrize(("task", "column"), [("clevr_count", 1), ("clevr_dist", 2)])
def test_labels_are_those_worked_out_by_hand(raw: Path, task: str, column: int) -> None:
    splits = READ[task](raw)
    for split, scenes in {"train": SCENES, "test": VAL}.items():
        found = dict(zip(splits[split].keys, splits[split].labels, strict=True))
        assert found == {name: known[column] for name, known in scenes.items()}


def test_val_is_train_from_90_percent_and_test_is_val(raw: Path) -> None:
    """Seven scenes: 6.3, rounded down to 6."""
    splits = READ["clevr_count"](raw)
    assert splits["train"].keys == by_md5("train", SCENES)
    assert splits["val"].keys == by_md5("train", SCENES)[6:]
    assert splits["test"].keys == by_md5("validation", VAL)


def test_pictures_are_the_files_their_keys_name(raw: Path) -> None:
    splits = READ["clevr_dist"](raw)
    images = raw / "CLEVR_v1.0" / "images"
    assert [splits["train"].picture(i) for i in range(7)] == [images / "train" / key for key in splits["train"].keys]
    assert splits["test"].picture(1) == images / "val" / splits["test"].keys[1]


def test_the_1000_are_the_released_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clevr, "require_files", lambda paths: None)  # 70,000 images
    bare = [
        f'{{"image_filename": "CLEVR_train_{n:06d}.png", "objects": [{{"pixel_coords": [0, 0, 9]}}]}}'
        for n in range(70_000)
    ]
    write(tmp_path, "val", [scene("CLEVR_val_000000.png", [9.0])])
    text = f'{{"scenes": [{",".join(bare)}]}}'
    (tmp_path / "CLEVR_v1.0" / "scenes" / "CLEVR_train_scenes.json").write_text(text)
    splits = READ["clevr_dist"](tmp_path)
    for task in ("count_all", "closest_object_distance"):
        released = released_digests(f'clevr(task="{task}")')
        assert digest(splits["train"].keys) == released["train"]
        assert digest(splits["val"].keys) == released["val"]


@pytest.mark.parametrize(
    ("task", "depths"),
    [("clevr_count", [9.0] * 2), ("clevr_count", [9.0] * 11), ("clevr_dist", [0.0] * 3), ("clevr_dist", [101.0] * 3)],
)
def test_a_scene_without_a_label_is_named(raw: Path, task: str, depths: list[float]) -> None:
    write(raw, "val", [scene("CLEVR_val_000000.png", depths)])
    with raises_naming(DataError, "CLEVR_val_scenes.json", "CLEVR_val_000000.png"):
        READ[task](raw)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"pixel_coords"', '"pixels"'),
        lambda text: text.replace('"objects"', '"things"'),
        lambda text: text.replace('"scenes"', '"views"'),
        lambda _: 100_000 * "[",
    ],
)
def test_malformed_scenes_are_named(raw: Path, damage: Any) -> None:
    path = raw / "CLEVR_v1.0" / "scenes" / "CLEVR_train_scenes.json"
    path.write_text(damage(path.read_text()))
    with raises_naming(DataError, "CLEVR_train_scenes.json"):
        READ["clevr_dist"](raw)


def test_an_absent_image_is_named(raw: Path) -> None:
    (raw / "CLEVR_v1.0" / "images" / "val" / "CLEVR_val_000001.png").unlink()
    with raises_naming(DataError, "images/val/CLEVR_val_000001.png"):
        READ["clevr_count"](raw)
