"""Tests of the task table and of the names that select tasks."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, JpegImagePlugin
from raises import raises_naming
from vtab_peft.benchmark.commands.data import size_text
from vtab_peft.datasets.archive import load
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.official import FGVC, VTAB1K
from vtab_peft.datasets.raw.sources import SOURCES
from vtab_peft.datasets.task import DataError, Task
from vtab_peft.datasets.tasks import find, find_valid, suite_tasks, table

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT.parent / "shared" / "reference"
MakeFolder = Callable[..., Path]
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="../shared/reference is not there")
ROWS = [*VTAB1K.values(), *FGVC.values()]


def test_vtab1k_has_groups_of_7_4_and_8_in_order() -> None:
    groups = [task.group for task in VTAB1K.values()]
    assert groups == ["natural"] * 7 + ["specialized"] * 4 + ["structured"] * 8


def test_vtab1k_has_940_classes_and_387904_test_images() -> None:
    assert sum(task.classes for task in VTAB1K.values()) == 940
    assert sum(task.sizes["test"][0] for task in VTAB1K.values()) == 387_904


def test_caltech101_accepts_both_test_counts() -> None:
    assert VTAB1K["caltech101"].sizes["test"] == (6_084, 6_085)


@needs_reference
def test_vtab1k_agrees_with_the_reference_table() -> None:
    with (REFERENCE / "vtab_tasks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["archive_name"] for row in rows] == list(VTAB1K)
    for row, task in zip(rows, VTAB1K.values(), strict=True):
        assert (row["group"].lower(), int(row["num_classes"])) == (task.group, task.classes)
        for split, size in (("train", row["n_train"]), ("val", row["n_val"]), ("test", row["n_test"])):
            assert task.sizes[split][0] == int(size), (task.name, split)


@needs_reference
def test_fgvc_agrees_with_the_reference_table() -> None:
    with (REFERENCE / "fgvc_tasks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["task"] for row in rows] == list(FGVC)
    for row, task in zip(rows, FGVC.values(), strict=True):
        assert int(row["classes"]) == task.classes
        assert {split: int(row[split]) for split in task.sizes} == {split: n for split, (n,) in task.sizes.items()}


@pytest.mark.parametrize("task", ROWS, ids=lambda task: task.label)
def test_every_row_states_source_licence_and_citation(task: Task) -> None:
    assert task.source.startswith("http")
    assert task.licence
    assert any(year in task.citation for year in map(str, range(2004, 2021)))
    assert table()[task.suite, task.name] is task


NATIVE = {
    **{"cifar": 32, "svhn": 32, "eurosat": 64, "patch_camelyon": 96},
    **{"dsprites_loc": 64, "dsprites_ori": 64, "smallnorb_azi": 96, "smallnorb_ele": 96},
}
"""Sides of the tasks that the cache keeps at their own size, as their publishers state them."""
CHECKED = {
    **dict.fromkeys(("cifar", "patch_camelyon", "clevr_count", "clevr_dist"), "lists, rows"),
    **dict.fromkeys(("sun397", "eurosat", "resisc45"), "lists"),
    **dict.fromkeys(("svhn", "dsprites_loc", "dsprites_ori", "smallnorb_azi", "smallnorb_ele"), "rows"),
    **dict.fromkeys(("dtd", "oxford_flowers102", "oxford_iiit_pet", "kitti", "dmlab"), "hashes"),
    **{"diabetic_retinopathy": "hashes", "caltech101": "nothing"},
    **dict.fromkeys(FGVC, "split files"),
}
"""What tests/datasets/raw compares: official_splits, released_keys, class_folders, sun397, fgvc."""


def cached_bytes(task: Task) -> int:
    side = NATIVE.get(task.name, 224)
    return 3 * side * side * sum(sizes[0] for sizes in task.sizes.values())


def documented_row(task: Task) -> str:
    sizes = [" or ".join(f"{size:,}" for size in task.sizes[split]) for split in ("train", "val", "test")]
    files = SOURCES[task.name].files
    known = [file.bytes for file in files]
    by_hand = any(file.manual for file in files)
    stated = sum(size or 0 for size in known) if files and not (by_hand and None in known) else None
    download = "not stated" if stated is None else size_text(stated) + (" and more" if None in known else "")
    how = "archive" if task.archive_only else "by hand" if by_hand else "fetch"
    cells = [f"`{task.name}`", task.group, str(task.classes), *sizes, how, download, size_text(cached_bytes(task))]
    return "| " + " | ".join([*cells, CHECKED[task.name], f"[source]({task.source})", task.licence]) + " |"


def test_the_documented_table_is_the_table() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    section = page[page.index("## The tasks of the suites") :]
    documented = [line for line in section.splitlines() if line.startswith("| `")]
    expected = [documented_row(task) for task in ROWS]
    assert documented == expected, "put this into docs/data.md:\n" + "\n".join(expected)


def test_the_documented_copy_is_what_pillow_saves_by_default(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code in docs/data.md: quality 75, colours at half resolution, the same lists and labels."""
    code = (ROOT / "docs" / "data.md").read_text().split("```python\n")[1].split("```")[0]
    sources = [make_folder(f"mini/{name}", side=32) for name in ("cifar10", "dsprites_loc", "dsprites_ori")]
    for source in sources:
        (source / "classes.txt").write_text("cat\ndog\n")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    for source in sources:
        copy = folder_task(tmp_path / "jpeg75" / f"{source.name}_jpeg75")
        assert copy.provenance == "jpeg75"
        mine, theirs = load(copy), load(folder_task(source))
        assert {split: list(mine[split].labels) for split in mine} == {s: list(theirs[s].labels) for s in theirs}
        with Image.open(str(mine["test"].images[0])) as saved, Image.open(str(theirs["test"].images[0])) as original:
            table = list(saved.quantization[0])[:8]  # pyright: ignore[reportAttributeAccessIssue]
            # First row of Annex K.1 of the JPEG standard (ITU-T T.81), halved: what libjpeg means by quality 75.
            assert table == [(step * 50 + 50) // 100 for step in (16, 11, 10, 16, 24, 40, 51, 61)]
            assert JpegImagePlugin.get_sampling(saved) == 2  # 4:2:0
            assert saved.size == original.size


def test_documented_cache_sizes_are_those_of_the_arrays() -> None:
    """Tasks of the same images in the same order (CLEVR, dSprites, smallNORB) share them."""
    once = [task for task in VTAB1K.values() if task.name not in ("clevr_dist", "dsprites_ori", "smallnorb_ele")]
    all_at_224 = 3 * 224 * 224 * sum(sizes[0] for task in VTAB1K.values() for sizes in task.sizes.values())
    fgvc = sum(map(cached_bytes, FGVC.values()))
    numbers = [sum(map(cached_bytes, once)), all_at_224, fgvc, fgvc * 256 * 256 // (224 * 224)]
    page = (ROOT / "docs" / "data.md").read_text()
    wanted = "take {} GB at 224 pixels ({} GB if every image were kept at 224), FGVC {} GB more, or {} GB for its crops"
    assert wanted.format(*(round(number / 1e9) for number in numbers)) in " ".join(page.split())


def names(tasks: list[Task]) -> list[str]:
    return [task.name for task in tasks]


def test_a_group_and_all_stand_for_their_tasks_in_order(tmp_path: Path) -> None:
    assert names(find(["all"], "vtab1k", tmp_path)) == list(VTAB1K)
    assert names(find(["specialized"], "vtab1k", tmp_path)) == list(VTAB1K)[7:11]
    assert names(find(["fgvc"], "fgvc", tmp_path)) == list(FGVC)


def test_tasks_come_in_the_order_asked_for_and_each_once(tmp_path: Path) -> None:
    assert names(find(["svhn", "natural", "svhn"], "vtab1k", tmp_path))[:3] == ["svhn", "cifar", "caltech101"]
    assert len(find(["svhn", "natural", "all"], "vtab1k", tmp_path)) == 19


def test_a_task_on_disk_has_its_name_as_folder(tmp_path: Path) -> None:
    assert find(["dtd"], "vtab1k", tmp_path)[0].folder == tmp_path / "dtd"


def test_only_tasks_on_disk_need_a_data_folder() -> None:
    with raises_naming(ValueError, "vtab1k/dtd", "--data"):
        find(["dtd"], "vtab1k", None)
    assert len(find(["all"], "toy", None)) == len(suite_tasks("toy"))


def test_unknown_names_get_near_matches_and_choices(tmp_path: Path) -> None:
    with raises_naming(ValueError, "'cifr'", "cifar", *VTAB1K):
        find(["cifr"], "vtab1k", tmp_path)
    with raises_naming(ValueError, "'vtab'", "vtab1k, fgvc, toy", "did you mean vtab1k"):
        find(["cifar"], "vtab", tmp_path)


def test_nothing_asked_for_is_answered_with_how_to_ask() -> None:
    with raises_naming(ValueError, "--suite", "vtab1k, fgvc, toy", "--tasks"):
        find(["all"], None, None)


def test_all_folders_that_are_no_tasks_are_named_at_once(make_folder: MakeFolder, tmp_path: Path) -> None:
    good, bad = make_folder(), make_folder("bad")
    (bad / "task.toml").write_text("name = ")
    asked = [str(bad), str(good), str(tmp_path / "none")]
    with raises_naming(DataError, "bad/task.toml", "TOML", "/none"):
        find(asked, None, None)
    tasks, refused = find_valid(asked, None, None)
    assert [task.folder for task in tasks] == [good]
    assert list(refused) == [str(bad), str(tmp_path / "none")]


def test_a_task_of_another_suite_is_answered_with_that_suite(tmp_path: Path) -> None:
    with raises_naming(ValueError, "vtab1k", "--suite fgvc"):
        find(["cub"], "vtab1k", tmp_path)


def test_without_a_suite_only_folders_are_found(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_folder("pets").parent)
    assert names(find(["pets"], None, None)) == ["pets"]
    with raises_naming(ValueError, "'cats'", "--suite"):
        find(["cats"], None, None)


def test_a_name_of_a_task_and_a_folder_is_refused(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_folder("dtd").parent)
    with raises_naming(ValueError, "--suite vtab1k", "./dtd"):
        find(["dtd"], None, None)
    assert find(["./dtd"], None, None)[0].suite == "own"
    assert find(["dtd"], "vtab1k", Path("data"))[0].suite == "vtab1k"


def test_a_custom_caltech101_coexists_with_the_official(make_folder: MakeFolder, tmp_path: Path) -> None:
    own = make_folder("caltech101")
    both = find([str(own), "caltech101"], "vtab1k", tmp_path / "data")
    assert [(task.suite, task.name) for task in both] == [("own", "caltech101"), ("vtab1k", "caltech101")]


def test_one_folder_under_two_paths_is_one_task(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder()
    (tmp_path / "link").symlink_to(folder)
    assert len(find([str(folder), f"{folder}/", f"{folder}/../{folder.name}", str(tmp_path / "link")], None, None)) == 1


def test_two_folders_of_one_name_are_refused(make_folder: MakeFolder) -> None:
    with raises_naming(DataError, "own/pets", "task.toml"):
        find([str(make_folder("a/pets")), str(make_folder("b/pets"))], None, None)


def test_a_row_is_not_changed_when_it_is_located(tmp_path: Path) -> None:
    located = find(["dtd"], "vtab1k", tmp_path)[0]
    assert VTAB1K["dtd"].folder is None
    assert replace(located, folder=None) == VTAB1K["dtd"]
