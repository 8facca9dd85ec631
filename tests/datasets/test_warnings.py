"""Tests of warnings: `data check` prints each one and its exit status is 1."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands.run import cached_tasks
from vtab_peft.datasets.cache import build, cached
from vtab_peft.datasets.check import check
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.labels import label_warnings
from vtab_peft.datasets.official import VTAB1K
from vtab_peft.datasets.pixels import Preprocessing
from vtab_peft.datasets.task import DataError

MakeFolder = Callable[..., Path]
SPLIT_FILES = ("train800", "val200", "test", "train800val200")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(tmp_path / "cache"))


def relabel(folder: Path, old: str, new: str, lists: tuple[str, ...] = SPLIT_FILES) -> None:
    for name in lists:
        path = folder / f"{name}.txt"
        path.write_text(path.read_text().replace(f" {old}\n", f" {new}\n"))


def one_based(folder: Path) -> None:
    relabel(folder, "1", "2")
    relabel(folder, "0", "1")


PLANTED: dict[str, tuple[Callable[[Path], object], bool, str]] = {
    "1-based": (one_based, False, "labels are 1 to 2"),
    "gaps": (lambda folder: relabel(folder, "1", "500"), False, "labels 1, 2, 3"),
    "unused class": (lambda folder: (folder / "classes.txt").write_text("a\nb\nc\n"), False, "label 2"),
    "one name twice": (lambda folder: (folder / "classes.txt").write_text("a\na\n"), False, "more than once: a"),
    "only in test": (lambda folder: relabel(folder, "1", "2", ("test",)), False, "test has label 2"),
    "test image in train": (
        lambda folder: shutil.copy(folder / "images/train800_5.png", folder / "images/test_0.png"),
        True,
        "images/test_0.png",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_warning_is_printed(name: str, make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    plant, deep, named = PLANTED[name]
    folder = make_folder()
    command = ["data", "check", "--tasks", str(folder), *(["--deep"] if deep else [])]
    assert main(command) == 0
    plant(folder)
    capsys.readouterr()
    assert main(command) == 1
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning: " in line]
    assert [named in line for line in warnings] == [True]
    assert check(folder_task(folder), deep).state == "found"


@pytest.mark.parametrize("name", PLANTED)
def test_each_warning_reaches_the_runs(name: str, make_folder: MakeFolder, tmp_path: Path) -> None:
    """`run` prints and stores `CachedTask.warnings`; they are the same when the cache is opened again."""
    plant, _, named = PLANTED[name]
    folder, preprocessing = make_folder(), Preprocessing(16, "bicubic")
    plant(folder)
    task = folder_task(folder)
    made = build(task, preprocessing, tmp_path / "cache")
    (warning,) = made.warnings
    assert (named if name != "test image in train" else "1 test image is byte for byte") in warning
    opened = cached(task, preprocessing, tmp_path / "cache")
    assert opened is not None
    assert opened.warnings == made.warnings


def test_all_warnings_of_a_task_are_printed(make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Also by the function through which `run`, `rerun`, `tune` and `smoke` open their tasks."""
    folder = make_folder()
    shutil.copy(folder / "images/train800_5.png", folder / "images/test_0.png")
    (folder / "classes.txt").write_text("a\nb\nc\nd\n")
    relabel(folder, "1", "2", ("test",))
    assert main(["data", "check", "--tasks", str(folder), "--deep"]) == 1
    checked = [line for line in capsys.readouterr().out.splitlines() if "warning: " in line]
    (data,) = cached_tasks([folder_task(folder)], Preprocessing(16, "bicubic"))
    printed = [line for line in capsys.readouterr().err.splitlines() if "warning: " in line]
    assert len(data.warnings) == len(checked) == len(printed) == 3
    for text in ("label 3", "test has label 2", "byte for byte"):
        assert [sum(text in line for line in lines) for lines in (checked, printed)] == [1, 1]


def test_gaps_up_to_a_huge_label_are_shown_in_short(make_folder: MakeFolder) -> None:
    folder = make_folder()
    relabel(folder, "1", "65535")
    (note,) = check(folder_task(folder)).notes
    assert len(note) < 200
    assert "65524 more" in note


def test_official_tasks_may_have_classes_only_in_test() -> None:
    labels = {"train": [0, 1], "val": [1], "test": [0, 1, 2]}
    assert label_warnings(VTAB1K["sun397"], labels, 3) == []  # pyright: ignore[reportArgumentType]
    assert len(label_warnings(VTAB1K["sun397"], labels, 4)) == 1  # pyright: ignore[reportArgumentType]


def test_labels_that_predictions_cannot_hold_are_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    relabel(folder, "1", "65536")
    with pytest.raises(DataError) as caught:
        folder_task(folder)
    assert str(folder) in str(caught.value)
