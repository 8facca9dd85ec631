"""Tests of SUN397: TFDS's lists, and images prepared like TFDS's."""

import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from official_splits import digest, released_digests
from PIL import Image
from raises import raises_naming
from raw_pictures import part_of_range, picture
from vtab_peft.datasets.raw import sun397
from vtab_peft.datasets.raw.sun397 import CLASSES, LISTS, names, prepare
from vtab_peft.datasets.task import DataError

UNDECODABLE = "/t/track/outdoor/sun_aophkoiosslinihb.jpg"
SIZES = {"tr": 76_128, "va": 10_875, "te": 21_750}


def test_the_shipped_lists_are_those_of_their_note() -> None:
    stated = dict(re.findall(r"^(\w{64})  sun397_tfds_(\w\w).txt$", (LISTS / "README.md").read_text(), re.MULTILINE))
    lists = {"".join(f"{name}\n" for name in names(part)): part for part in SIZES}
    assert {hashlib.sha256(text.encode()).hexdigest(): part for text, part in lists.items()} == stated


def test_the_lists_part_all_images_of_all_classes() -> None:
    lists = {part: names(part) for part in SIZES}
    assert {part: len(keys) for part, keys in lists.items()} == SIZES
    everything = {key for keys in lists.values() for key in keys}
    assert len(everything) == 108_753
    assert sorted({key.rpartition("/")[0] for key in everything}) == list(CLASSES)


def test_read_gives_the_released_1000(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "SUN397").mkdir()
    monkeypatch.setattr(sun397, "require_files", lambda paths: None)  # 22,750 images
    splits = sun397.read(tmp_path)
    released = released_digests("sun397")
    assert digest(splits["train"].keys) == released["train"]
    assert digest(splits["val"].keys) == released["val"]
    assert sorted(splits["test"].keys) == names("te")
    for examples in splits.values():
        assert all(
            key.startswith(CLASSES[label] + "/sun_") for key, label in zip(examples.keys, examples.labels, strict=True)
        )


def test_the_undecodable_file_is_not_among_the_800() -> None:
    assert UNDECODABLE in names("tr")
    assert part_of_range("train", UNDECODABLE) > 0.87  # the 800 end at 0.0105


def test_absent_images_are_counted(tmp_path: Path) -> None:
    (tmp_path / "SUN397").mkdir()
    with raises_naming(DataError, "SUN397", "22749 more files"):
        sun397.read(tmp_path)


def made(path: Path) -> Image.Image:
    pytest.importorskip("cv2")
    return Image.open(io.BytesIO(prepare(path)))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (300, 400, (300, 400)),  # exactly 120,000 pixels
        (301, 400, (300, 399)),  # times sqrt(120000 / 120400) = 0.99834, rounded
        (600, 800, (300, 400)),
        (1000, 500, (490, 245)),  # times 0.4899
        (20, 30, (20, 30)),
    ],
)
def test_images_are_made_to_have_at_most_about_120000_pixels(
    tmp_path: Path, height: int, width: int, expected: tuple[int, int]
) -> None:
    image = made(picture(tmp_path / "x.jpg", height, width))
    assert (image.height, image.width) == expected


def test_images_have_the_jpeg_quality_of_tfds_code(tmp_path: Path) -> None:
    """The first entries of the table that JPEG prescribes for quality 95 are a tenth of 16, 11, 10, 16."""
    image = made(picture(tmp_path / "x.png", 32, 32))
    assert image.format == "JPEG"
    assert image.quantization[0][:4] == [2, 1, 1, 2]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_the_ending_does_not_matter_and_colours_stay(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (16, 16), (250, 100, 20)).save(tmp_path / "sun_x.jpg", kind)
    assert np.abs(np.asarray(made(tmp_path / "sun_x.jpg"), int) - (250, 100, 20)).max() <= 4


def test_gifs_have_red_and_blue_exchanged_as_in_tfds(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (250, 100, 20)).save(tmp_path / "sun_x.jpg", "GIF")
    assert np.abs(np.asarray(made(tmp_path / "sun_x.jpg"), int) - (20, 100, 250)).max() <= 4


@pytest.mark.parametrize("content", [b"", b"no image", b"GIF89a and no more", b"\xff\xd8\xff\xe0 cut off"])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("cv2")
    (tmp_path / "sun_x.jpg").write_bytes(content)
    with raises_naming(DataError, tmp_path / "sun_x.jpg"):
        prepare(tmp_path / "sun_x.jpg")


def test_without_opencv_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with raises_naming(DataError, 'pip install "vtab-peft[data]"'):
        prepare(picture(tmp_path / "x.jpg"))
