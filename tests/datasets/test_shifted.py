"""Shifted tests of a task: corrupted images and further lists."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raises import raises_naming
from vtab_peft.datasets import shifted
from vtab_peft.datasets.cache import CachedTask, Preprocessing, build
from vtab_peft.datasets.corruptions import CORRUPTIONS, corrupt
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.pixels import decode
from vtab_peft.datasets.shifted import corrupted, further_lists, scratch_folder, shifted_tests
from vtab_peft.datasets.task import DataError


@pytest.fixture
def data(make_task: Callable[..., Path], tmp_path: Path) -> CachedTask:
    return build(folder_task(make_task()), Preprocessing(32, "bicubic"), tmp_path / "cache")


def folder_of(data: CachedTask) -> Path:
    assert data.task.folder is not None
    return data.task.folder


def add_list(data: CachedTask, name: str, lines: str) -> None:
    (folder_of(data) / f"test_{name}.txt").write_text(lines)


def test_every_corruption_has_five_severities_of_the_test_images(data: CachedTask, tmp_path: Path) -> None:
    tests = corrupted(data)
    assert [(test.name, test.severity) for test in tests] == [
        ("clean", 0),
        *((name, severity) for name in CORRUPTIONS for severity in (1, 2, 3, 4, 5)),
    ]
    assert len({test.data for test in tests}) == len(tests)
    assert all(np.array_equal(test.labels(), data.labels("test")) and not test.restricted for test in tests)
    assert np.array_equal(tests[0].array(tmp_path), data.images("test"))
    last = tests[-1].array(tmp_path)
    assert np.array_equal(last[7], corrupt(data.images("test")[7], "jpeg", 5))
    assert (tmp_path / f"{tests[-1].data}.npy").exists()
    assert np.array_equal(tests[-1].array(tmp_path), last)


def test_of_many_test_images_some_at_equal_distances_are_corrupted(
    data: CachedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shifted, "LARGEST", 4)
    clean, *_ = few = corrupted(data)
    rows = [0, 6, 11, 17]  # of 18
    assert np.array_equal(clean.array(tmp_path), data.images("test")[rows])
    assert np.array_equal(clean.labels(), data.labels("test")[rows])
    monkeypatch.undo()
    assert not {test.data for test in few} & {test.data for test in corrupted(data)}


def test_nothing_is_opened_before_a_test_is_used(data: CachedTask) -> None:
    closed = replace(data, files={})  # any access to arrays raises KeyError
    assert len(shifted_tests(closed)) == 36


def test_further_lists_are_those_of_the_folder(data: CachedTask, tmp_path: Path) -> None:
    images = folder_of(data) / "images"
    Image.fromarray(np.full((9, 5, 3), 77, np.uint8)).save(images / "sketch.png")
    add_list(data, "sketch", "images/sketch.png 2\nimages/test_0.png 0\n")
    add_list(data, "v2", "images/test_3.png 0\n")
    (folder_of(data) / "tests.txt").write_text("not a list")
    sketch, second = further_lists(data)
    assert [(test.name, test.severity, test.restricted) for test in (sketch, second)] == [
        ("sketch", 0, True),
        ("v2", 0, True),
    ]
    assert sketch.labels().tolist() == [2, 0]
    pixels = sketch.array(tmp_path)
    assert pixels.shape == (2, 3, 32, 32)
    assert (pixels[0] == 77).all()
    assert np.array_equal(pixels[1], decode(images / "test_0.png", data.preprocessing))
    Image.fromarray(np.full((9, 5, 3), 78, np.uint8)).save(images / "sketch.png")
    assert further_lists(data)[0].data != sketch.data


@pytest.mark.parametrize(
    ("name", "lines", "facts"),
    [
        ("a", "images/train800_0.png 0\n", ["test_a.txt", "train800_0.png"]),
        ("a", "images/val200_1.png 1\n", ["val200_1.png"]),
        ("a", "images/absent.png 1\n", ["absent.png"]),
        ("a", "images/test_0.png 3\n", ["test_a.txt:1", "3"]),
        ("a", "", ["test_a.txt"]),
        ("clean", "images/test_0.png 0\n", ["test_clean.txt"]),
        ("net v2", "images/test_0.png 0\n", ["test_net v2.txt"]),
        ("jpeg", "images/test_0.png 0\n", ["test_jpeg.txt"]),
    ],
)
def test_lists_that_cannot_be_used_are_refused(name: str, lines: str, facts: list[str], data: CachedTask) -> None:
    add_list(data, name, lines)
    with raises_naming(DataError, *facts):
        shifted_tests(data)


def test_damaged_image_is_named(data: CachedTask, tmp_path: Path) -> None:
    image = folder_of(data) / "images/bad.png"
    image.write_bytes((folder_of(data) / "images/test_0.png").read_bytes()[:-30])
    add_list(data, "a", "images/test_0.png 0\nimages/bad.png 1\n")
    with raises_naming(DataError, "bad.png"):
        further_lists(data)[0].array(tmp_path)


def test_procedural_tasks_have_no_lists(data: CachedTask) -> None:
    assert further_lists(replace(data, task=replace(data.task, folder=None))) == []


def test_scratch_folder_is_removed_also_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(tmp_path / "new"))
    with scratch_folder() as folder:
        (folder / "x.npy").write_bytes(b"x")
        with scratch_folder() as other:  # of another thread or process that is alive
            assert folder.exists()
            assert other != folder
    assert not list((tmp_path / "new").iterdir())
    ended = folder.with_name(folder.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-"))
    ended.mkdir()
    with scratch_folder():
        assert not ended.exists()


def test_full_disk_is_an_error_of_the_data(data: CachedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shifted, "write_array", full)
    with raises_naming(DataError, tmp_path, "No space left"):
        corrupted(data)[0].array(tmp_path)
