"""Tests of `data compare`: the same pixels in another format, another order, other pixels, other labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raises import raises_naming
from vtab_peft.benchmark.cli import main
from vtab_peft.datasets.compare import SplitComparison, compare_tasks, task_folders
from vtab_peft.datasets.task import DataError


@pytest.fixture
def copies(make_task_in: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    return make_task_in(tmp_path / "a"), make_task_in(tmp_path / "b")


def of(a: Path, b: Path, split: str = "test") -> SplitComparison:
    return next(found for found in compare_tasks(a, b) if found.split == split)


def test_equal_pixels_in_another_format_are_equal(
    copies: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = copies
    for path in (b / "images").iterdir():
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    for path in b.glob("*.txt"):
        path.write_text(path.read_text().replace(".png", ".bmp"))
    assert all(found.equal for found in compare_tasks(a, b))
    assert main(["data", "compare", str(a.parent), str(b.parent)]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[2:5]] == [
        ["colours", split] for split in ("train", "val", "test")
    ]


def test_names_that_look_like_numbers_stay(
    make_task_in: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (make_task_in(tmp_path / side, name="2024.10") for side in "ab")
    assert main(["data", "compare", str(a), str(b)]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()[2:5]} == {"2024.10"}


def test_another_order_has_the_same_pixels_elsewhere(copies: tuple[Path, Path]) -> None:
    a, b = copies
    lines = (b / "test.txt").read_text().splitlines(keepends=True)
    (b / "test.txt").write_text("".join(lines[::-1]))
    found = of(a, b)
    assert (found.equal, found.same_pixels, found.same_place) == (False, 18, 0)
    assert of(a, b, "train").equal


def test_a_changed_pixel_is_found(copies: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = copies
    file = b / "images" / "test_4.png"
    pixels = np.array(Image.open(file))
    pixels[2, 3, 1] ^= 7
    Image.fromarray(pixels).save(file)
    found = of(a, b)
    assert (found.same_pixels, found.same_place, found.images) == (17, 17, (18, 18))
    original = np.array(Image.open(a / "images" / "test_4.png")).astype(int)
    assert found.largest == abs(original - pixels).max()
    assert found.differing == ((str(a / "images/test_4.png"), str(file)),)
    assert main(["data", "compare", str(a), str(b)]) == 1
    assert "test_4.png" in capsys.readouterr().out


def test_other_labels_and_counts_are_differences(copies: tuple[Path, Path]) -> None:
    a, b = copies
    lines = (b / "test.txt").read_text().splitlines(keepends=True)
    (b / "test.txt").write_text("".join([lines[0].replace(" 0", " 1"), *lines[1:-1]]))
    found = of(a, b)
    assert (found.images, found.same_place, found.equal) == ((18, 17), 16, False)
    assert found.largest == 0


def test_what_only_one_copy_has_is_named(
    copies: tuple[Path, Path], make_task_in: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = copies
    ask = ["data", "compare", str(a.parent), str(b.parent)]
    (b / "test.txt").write_text("".join((b / "test.txt").read_text().splitlines(keepends=True)[:-2]))
    assert main(ask) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "colours, test: 2 images more in A"
    (b / "test.txt").write_text((a / "test.txt").read_text())
    make_task_in(b.parents[1], name="shapes")
    assert main(ask) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"shapes: only in {b.parent}"


def test_folders_without_common_tasks_are_refused(copies: tuple[Path, Path], tmp_path: Path) -> None:
    a, _ = copies
    (tmp_path / "empty").mkdir()
    with raises_naming(DataError, tmp_path / "empty"):
        task_folders(a, tmp_path / "empty")
    with raises_naming(DataError, tmp_path / "absent"):
        task_folders(a, tmp_path / "absent")
