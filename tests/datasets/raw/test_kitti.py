"""Tests of KITTI: the nearest vehicle, and one split for all images of a video."""

from pathlib import Path

import numpy as np
import pytest
from raises import raises_naming
from raw_pictures import by_md5, picture
from vtab_peft.datasets.raw import kitti
from vtab_peft.datasets.raw.kitti import vehicle_distance
from vtab_peft.datasets.task import DataError

DONT_CARE = "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10"


def thing(kind: str, depth: float) -> str:
    """A line of a label file; the numbers are those of an object of 000000.txt, but for z."""
    return f"{kind} 0.00 0 -0.20 712.40 143.00 810.73 307.92 1.89 0.48 1.20 1.84 1.47 {depth} 0.01"


@pytest.mark.parametrize(
    ("objects", "label"),
    [
        ([thing("Car", 7.99)], 0),
        ([thing("Car", 8.0)], 0),
        ([thing("Car", 8.01)], 1),
        ([thing("Van", 20.0)], 1),
        ([thing("Truck", 20.01)], 2),
        ([thing("Car", 70.5), thing("Van", 12.3), thing("Truck", 30.0)], 1),
        ([thing("Car", -1.5)], 0),  # beside the camera
        ([thing("Pedestrian", 3.0)], 3),
        ([thing("Tram", 3.0), thing("Cyclist", 3.0), thing("Misc", 3.0), thing("Person_sitting", 3.0)], 3),
        ([thing("Tram", 3.0), thing("Car", 25.0), DONT_CARE], 2),
        ([DONT_CARE], 3),
        ([], 3),
    ],
)
def test_label_is_distance_of_nearest_car_van_or_truck(tmp_path: Path, objects: list[str], label: int) -> None:
    path = tmp_path / "000000.txt"
    path.write_text("".join(f"{line}\n" for line in objects))
    assert vehicle_distance(path) == label


VIDEOS = [f"2011_09_26_drive_{n:04d}_sync" for n in range(1, 25)]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """72 images, numbered 0 to 71: three of each of 24 videos, in an order of their own; every third has a near car."""
    frames = [f"2011_09_26 {video} {frame:010d}" for video in VIDEOS for frame in range(3)]
    order = [(7 * image) % 72 + 1 for image in range(72)]  # 7 and 72 have no common divisor
    (tmp_path / "mapping").mkdir()
    (tmp_path / "mapping" / "train_mapping.txt").write_text("\n".join(frames) + "\n")
    (tmp_path / "mapping" / "train_rand.txt").write_text(",".join(map(str, order)) + "\n")
    for image in range(72):
        label = tmp_path / "training" / "label_2" / f"{image:06d}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(thing("Car", 5.0 if image % 3 == 0 else 15.0) + "\n")
        picture(tmp_path / "training" / "image_2" / f"{image:06d}.png")
    return tmp_path


def expected() -> dict[str, list[str]]:
    """A tenth of 24, rounded down, is 2: the first two of a permutation of all videos are test, and then validation.

    `choice` without replacement takes the first of a permutation (numpy/random/mtrand.pyx, a frozen stream).
    """
    draw = np.random.RandomState(123)
    test = [VIDEOS[i] for i in draw.permutation(24)[:2]]
    rest = [video for video in VIDEOS if video not in test]
    val = [rest[i] for i in draw.permutation(22)[:2]]
    video_of = {image: VIDEOS[(7 * image) % 72 // 3] for image in range(72)}
    parts = {"train": set(VIDEOS) - {*test, *val}, "val": set(val), "test": set(test)}
    return {split: [f"{i:06d}.png" for i in range(72) if video_of[i] in part] for split, part in parts.items()}


def test_a_tenth_of_the_videos_is_test_and_another_validation(raw: Path) -> None:
    splits = kitti.read(raw)
    assert {split: sorted(examples.keys) for split, examples in splits.items()} == expected()
    assert [len(splits[split]) for split in ("train", "val", "test")] == [60, 6, 6]


def test_examples_come_in_tfds_order(raw: Path) -> None:
    splits = kitti.read(raw)
    for split, salt in {"train": "train", "val": "validation", "test": "test"}.items():
        assert splits[split].keys == by_md5(salt, expected()[split])


def test_labels_and_pictures_follow_the_keys(raw: Path) -> None:
    train = kitti.read(raw)["train"]
    for position, key in enumerate(train.keys):
        assert train.labels[position] == (0 if int(key[:6]) % 3 == 0 else 1)
        assert train.picture(position) == raw / "training" / "image_2" / key


def test_the_draw_leaves_numpys_own_stream_alone(raw: Path) -> None:
    np.random.seed(7)
    first = np.random.rand()
    np.random.seed(7)
    kitti.read(raw)
    assert np.random.rand() == first


@pytest.mark.parametrize(
    "line",
    ["Car 0.00 0 -0.20 712.40", thing("Bus", 5.0), thing("Car", 5.0).replace("5.0", "near"), thing("Car", -1000)],
)
def test_a_line_that_describes_no_object_is_named(raw: Path, line: str) -> None:
    (raw / "training" / "label_2" / "000004.txt").write_text(line)
    with raises_naming(DataError, "000004.txt"):
        kitti.read(raw)


def test_a_missing_label_file_is_named(raw: Path) -> None:
    (raw / "training" / "label_2" / "000004.txt").unlink()
    with raises_naming(DataError, "000004.txt"):
        kitti.read(raw)


@pytest.mark.parametrize("order", ["1,2,73", "1,2,x", "0,1"])
def test_an_image_whose_video_is_not_known_is_named(raw: Path, order: str) -> None:
    (raw / "mapping" / "train_rand.txt").write_text(order)
    with raises_naming(DataError, "train_rand.txt, image", "1 to 72"):
        kitti.read(raw)


def test_a_frame_that_names_no_video_is_named(raw: Path) -> None:
    (raw / "mapping" / "train_mapping.txt").write_text("2011_09_26\n" * 72)
    with raises_naming(DataError, "train_mapping.txt", "DATE VIDEO FRAME"):
        kitti.read(raw)


def test_what_is_missing_says_where_to_get_it(tmp_path: Path) -> None:
    with raises_naming(DataError, "training/image_2", "data_object_image_2.zip"):
        kitti.read(tmp_path)
