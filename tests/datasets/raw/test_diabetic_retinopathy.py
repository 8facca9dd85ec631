"""Tests of Diabetic Retinopathy: Kaggle's tables, and photographs prepared like btgraham-300."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raises import raises_naming
from raw_pictures import by_md5, picture
from vtab_peft.datasets.raw import diabetic_retinopathy
from vtab_peft.datasets.raw.diabetic_retinopathy import prepare
from vtab_peft.datasets.task import DataError

TRAIN = {"10_left": 0, "10_right": 0, "13_left": 2, "15_left": 4}
PUBLIC = {"1_left": 0, "2_right": 3}
PRIVATE = {"1_right": 1, "2_left": 0, "3_left": 4}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    rows = "".join(f"{name},{level}\n" for name, level in TRAIN.items())
    (tmp_path / "trainLabels.csv").write_text(f"image,level\n{rows}")
    usages = [(PUBLIC, "Public"), (PRIVATE, "Private")]
    rows = "".join(f"{name},{level},{usage}\r\n" for part, usage in usages for name, level in part.items())
    (tmp_path / "retinopathy_solution.csv").write_text(f"image,level,Usage\r\n{rows}", newline="")
    for name in TRAIN:
        picture(tmp_path / "train" / f"{name}.jpeg")
    for name in PUBLIC | PRIVATE:
        picture(tmp_path / "test" / f"{name}.jpeg")
    return tmp_path


def test_val_is_the_public_and_test_the_private_part(raw: Path) -> None:
    splits = diabetic_retinopathy.read(raw)
    found = {split: dict(zip(examples.keys, examples.labels, strict=True)) for split, examples in splits.items()}
    assert found == {"train": TRAIN, "val": PUBLIC, "test": PRIVATE}


def test_examples_come_in_tfds_order(raw: Path) -> None:
    splits = diabetic_retinopathy.read(raw)
    assert splits["train"].keys == by_md5("train", TRAIN)
    assert splits["val"].keys == by_md5("validation", PUBLIC)
    assert splits["test"].keys == by_md5("test", PRIVATE)


def test_pictures_are_prepared_from_the_files_their_keys_name(raw: Path) -> None:
    pytest.importorskip("cv2")
    splits = diabetic_retinopathy.read(raw)
    assert splits["train"].picture(1) == prepare(raw / "train" / f"{splits['train'].keys[1]}.jpeg")
    assert splits["val"].picture(0) == prepare(raw / "test" / f"{splits['val'].keys[0]}.jpeg")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("trainLabels.csv", "image,level\n10_left,\n", "trainLabels.csv: 10_left: ''"),
        ("trainLabels.csv", "image,level\n10_left,5\n", "'5'"),
        ("trainLabels.csv", f"image,level\n10_left,{200_000 * '5'}\n", "trainLabels.csv"),
        ("trainLabels.csv", "name;grade\n10_left;0\n", "image, level"),
        ("retinopathy_solution.csv", "image,level\n1_left,0\n", "Usage"),
        ("retinopathy_solution.csv", "image,level,Usage\n1_left,0,Public\n", "Private"),
        ("trainLabels.csv", "image,level\n99_left,1\n", "train/99_left.jpeg"),
    ],
)
def test_wrong_tables_are_named(raw: Path, file: str, text: str, message: str) -> None:
    (raw / file).write_text(text)
    with raises_naming(DataError, raw, message):
        diabetic_retinopathy.read(raw)


def test_what_is_missing_says_what_to_do_by_hand(tmp_path: Path) -> None:
    with raises_naming(DataError, "accept the rules of the competition", "train.zip"):
        diabetic_retinopathy.read(tmp_path)


def eyeball(path: Path, height: int, width: int, radius: int, spot: int = 0) -> Path:
    """A disc of (150, 90, 60) on black, and a brighter square of `spot` pixels a side in its middle."""
    y, x = np.mgrid[:height, :width]
    image = np.zeros((height, width, 3), np.uint8)
    image[(y - height // 2) ** 2 + (x - width // 2) ** 2 <= radius**2] = (150, 90, 60)
    middle = np.s_[height // 2 - spot // 2 : height // 2 + spot // 2, width // 2 - spot // 2 : width // 2 + spot // 2]
    image[middle] += 40
    Image.fromarray(image).save(path, "PNG")
    return path


def prepared(path: Path) -> np.ndarray:
    pytest.importorskip("cv2")
    return np.asarray(Image.open(io.BytesIO(prepare(path))), int)


def test_an_eyeball_gets_radius_300_and_270_of_it_are_kept(tmp_path: Path) -> None:
    """Flat within minus its own average is grey; so are the corners, which are painted over."""
    image = prepared(eyeball(tmp_path / "x.jpeg", 200, 300, radius=60))
    assert image.shape == (540, 540, 3)
    assert np.abs(image[200:340, 200:340] - 128).max() <= 2
    assert np.abs(image[:40, :40] - 128).max() <= 2


def test_a_cut_off_eyeball_gives_a_lower_image(tmp_path: Path) -> None:
    """Radius 100 becomes 300 (201 pixels are not dark: times 600 / 201), so that 150 rows become 448."""
    image = prepared(eyeball(tmp_path / "x.jpeg", 150, 260, radius=100))
    assert image.shape == (448, 540, 3)


def test_local_contrast_is_amplified_four_times(tmp_path: Path) -> None:
    """A small square 40 brighter than around it: 128 + 4 * 40 is above 255."""
    image = prepared(eyeball(tmp_path / "x.jpeg", 200, 300, radius=60, spot=4))
    assert image[270, 270].min() > 200
    assert np.abs(image[270, 400] - 128).max() <= 3


def test_a_dark_photograph_is_scaled_by_its_height(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "x.png")  # 60 rows become 600, 80 columns 800
    image = prepared(tmp_path / "x.png")
    assert image.shape == (540, 540, 3)
    assert np.abs(image - 128).max() <= 2


def test_images_are_encoded_with_quality_72(tmp_path: Path) -> None:
    """The first entries of the table that JPEG prescribes for quality 72: 56 % of 16, 11, 10, 16."""
    pytest.importorskip("cv2")
    image = Image.open(io.BytesIO(prepare(eyeball(tmp_path / "x.jpeg", 60, 60, radius=20))))
    assert image.format == "JPEG"
    assert image.quantization[0][:4] == [9, 6, 6, 9]


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    (tmp_path / "10_left.jpeg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    with raises_naming(DataError, "10_left.jpeg", "OpenCV"):
        prepare(tmp_path / "10_left.jpeg")
