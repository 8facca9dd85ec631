"""Tests of `data check`: the state of each task, and what to do."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.datasets.check import check
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.official import VTAB1K
from vtab_peft.datasets.task import Task
from vtab_peft.datasets.tasks import suite_tasks

MakeFolder = Callable[..., Path]


def official(folder: Path) -> Task:
    return replace(VTAB1K["cifar"], folder=folder, classes=2, sizes={"train": (6,), "val": (4,), "test": (5,)})


def test_a_good_task_is_found_with_counts_and_provenance(make_folder: MakeFolder) -> None:
    result = check(official(make_folder()), deep=True)
    assert (result.state, result.problems, result.notes, result.advice) == ("found", (), (), "ready")
    assert result.counts == {"train": 6, "val": 4, "test": 5}
    assert result.provenance == "lossless"


def test_a_task_that_is_not_there_is_missing(tmp_path: Path) -> None:
    result = check(official(tmp_path / "cifar"))
    assert result.state == "missing"
    assert result.problems == (f"there is no folder {tmp_path / 'cifar'}",)
    assert result.advice.startswith(f"put the task into {tmp_path / 'cifar'}")
    (tmp_path / "cifar").mkdir()
    assert check(official(tmp_path / "cifar")).state == "missing"


BREAK: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a list": (lambda folder: (folder / "val200.txt").unlink(), "partial", "has no val200.txt or val.txt"),
    "the images": (lambda folder: shutil.rmtree(folder / "images"), "partial", "6 listed images are not in"),
    "some lines": (lambda folder: (folder / "test.txt").write_text("images/test_0.png 0\n"), "partial", "has 5"),
    "a label": (lambda folder: (folder / "test.txt").write_text("images/test_0.png 9\n"), "wrong", "out of range"),
    "the manifest": (lambda folder: (folder / "manifest.json").write_text("{"), "wrong", "manifest.json"),
}


@pytest.mark.parametrize("what", BREAK)
def test_incomplete_is_partial_and_contradictory_is_wrong(what: str, make_folder: MakeFolder) -> None:
    act, state, message = BREAK[what]
    folder = make_folder()
    act(folder)
    result = check(official(folder))
    assert result.state == state
    assert any(message in problem for problem in result.problems)
    assert str(folder) in result.advice
    assert result.provenance == "unknown"


def test_only_a_deep_look_finds_damaged_images(make_folder: MakeFolder) -> None:
    folder = make_folder()
    for number in (1, 3):
        (folder / f"images/test_{number}.png").write_bytes(b"")
    assert check(folder_task(folder)).state == "found"
    result = check(folder_task(folder), deep=True)
    assert result.state == "wrong"
    assert "2 damaged images" in result.problems[0]
    assert str(folder / "images/test_3.png") in result.problems[0]


def test_deep_check_notes_test_images_in_train_or_val(make_folder: MakeFolder) -> None:
    folder = make_folder()
    shutil.copy(folder / "images/train800_5.png", folder / "images/test_0.png")
    shutil.copy(folder / "images/val200_2.png", folder / "images/test_4.png")
    result = check(folder_task(folder), deep=True)
    assert result.state == "found"
    assert result.notes[0].startswith("2 test images are byte for byte in train or val: ")
    assert str(folder / "images/test_4.png") in result.notes[0]


def test_a_folder_that_is_no_task_is_a_row_of_the_table_too(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, absent = make_folder(), make_folder("bad"), tmp_path / "absent"
    (bad / "task.toml").write_text("name = ")
    assert main(["data", "check", "--tasks", str(bad), str(good), str(absent)]) == 1
    said = capsys.readouterr().out
    states = [line.split()[:2] for line in said.splitlines()[2:5]]
    assert states == [["own/pets", "found"], [str(bad), "wrong"], [str(absent), "missing"]]
    assert f"{bad / 'task.toml'}: is not valid TOML" in said


@pytest.mark.slow
def test_procedural_tasks_are_always_found() -> None:
    task = next(iter(suite_tasks("toy").values()))
    assert check(task).state == "found"
    assert check(task).counts == {split: sizes[0] for split, sizes in task.sizes.items()}
    assert check(task, deep=True).counts == check(task).counts
