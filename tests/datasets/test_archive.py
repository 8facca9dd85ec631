"""Folders in the archive's layout are read, and what is wrong with them is said plainly."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from raises import raises_naming
from vtab_peft.datasets.archive import load, provenance, read
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.official import VTAB1K
from vtab_peft.datasets.task import DataError, Task

MakeFolder = Callable[..., Path]


def official(folder: Path) -> Task:
    """A row of vtab1k that fits the small folders of these tests."""
    return replace(VTAB1K["cifar"], folder=folder, classes=2, sizes={"train": (6,), "val": (4,), "test": (5, 7)})


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line)


def complaint(task: Task) -> str:
    with pytest.raises(DataError) as caught:
        load(task)
    return str(caught.value)


def test_images_and_labels_come_in_the_order_of_the_lists(make_folder: MakeFolder) -> None:
    folder = make_folder()
    splits = load(folder_task(folder))
    assert list(splits["val"].images) == [folder / f"images/val200_{number}.png" for number in range(4)]
    assert splits["val"].labels.tolist() == [0, 1, 0, 1]
    assert {split: len(part.images) for split, part in splits.items()} == {"train": 6, "val": 4, "test": 5}


def test_a_folder_of_images_that_cannot_be_read_is_named(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "images").rename(folder / "moved")
    (folder / "images").write_bytes(b"")  # not a folder; the tests may run as root, who reads every folder
    text = complaint(folder_task(folder))
    assert str(folder / "images") in text
    assert "listed images" not in text


def test_lists_may_have_other_names_and_line_ends(make_folder: MakeFolder) -> None:
    folder = make_folder()
    for old, new in (("train800", "train"), ("val200", "val"), ("train800val200", "trainval")):
        (folder / f"{old}.txt").rename(folder / f"{new}.txt")
    (folder / "images/test_0.png").rename(folder / "images/a test.png")
    text = (folder / "test.txt").read_text().replace("images/test_0.png", "./images/a test.png")
    (folder / "test.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    splits = load(folder_task(folder))
    assert splits["test"].images[0] == folder / "images/a test.png"
    assert len(splits["train"].images) == 6


def test_a_link_to_images_elsewhere_is_fine(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder()
    (folder / "images").rename(tmp_path / "elsewhere")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    assert len(load(folder_task(folder))["train"].images) == 6


def test_all_wrong_lines_of_a_list_are_named_up_to_ten(make_folder: MakeFolder) -> None:
    folder = make_folder()
    append(folder / "test.txt", "images/x.png\nimages/test_0.png 2\n\nimages/test_0.png cat\n")
    for wrong in (":6: expected", ":7: label 2 is out of range", ":9: the label 'cat'"):
        assert f"{folder / 'test.txt'}{wrong}" in complaint(official(folder))
    append(folder / "test.txt", "images/x.png\n" * 9)
    assert ":16: expected" in complaint(official(folder))
    assert ":17: expected" not in complaint(official(folder))
    assert "and 2 more wrong lines" in complaint(official(folder))


def test_a_missing_folder_is_named_with_the_way_to_the_data(tmp_path: Path) -> None:
    task = official(tmp_path / "cifar")
    assert f"there is no folder {tmp_path / 'cifar'}" in complaint(task)
    assert "docs/data.md" in complaint(task)
    with raises_naming(DataError, "/cifar", "docs/data.md"):
        folder_task(tmp_path / "cifar")


def seen_provenance(task: Task) -> str:
    return provenance(task, [file for listing in read(task).values() for file in listing.files])


BAD_LINES = {
    "no label": ("images/x.png\n", r"test.txt:6: expected `images/x.jpg LABEL`, found 'images/x.png'"),
    "a word as label": ("images/test_0.png cat\n", "test.txt:6: the label 'cat' is not an integer"),
    "a fraction as label": ("images/test_0.png 1.0\n", "test.txt:6: the label '1.0' is not an integer"),
    "a negative label": ("images/test_0.png -1\n", "test.txt:6: label -1 is out of range; allowed are 0 to 1"),
    "a label too high": ("images/test_0.png 2\n", "test.txt:6: label 2 is out of range; allowed are 0 to 1"),
    "a path upwards": ("images/../../x.png 0\n", "test.txt:6: 'images/../../x.png' is outside the folder"),
    "an absolute path": ("/etc/x.png 0\n", "test.txt:6: '/etc/x.png' is outside the folder"),
    "a missing image": ("images/gone.png 0\n", "1 listed images are not in {folder}: images/gone.png"),
    "an image of train": ("images/train800_2.png 0\n", "more than once: images/train800_2.png (train and test)"),
    "an image twice": ("./images//test_1.png 1\n", "more than once: images/test_1.png (test and test)"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_named_with_file_and_line(case: str, make_folder: MakeFolder) -> None:
    line, message = BAD_LINES[case]
    folder = make_folder()
    append(folder / "test.txt", line)
    assert message.format(folder=folder) in complaint(replace(official(folder), sizes={}))


def test_an_image_in_both_train_and_val_is_named(make_folder: MakeFolder) -> None:
    folder = make_folder()
    append(folder / "val200.txt", "images/train800_0.png 0\n")
    assert "more than once: images/train800_0.png (train and val)" in complaint(replace(official(folder), sizes={}))


@pytest.mark.parametrize("name", ["train800.txt", "val200.txt", "test.txt"])
def test_a_missing_list_is_named(name: str, make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / name).unlink()
    assert f"{folder} has no {name}" in complaint(official(folder))


def test_an_empty_list_is_named(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "val200.txt").write_text("\n")
    assert f"{folder / 'val200.txt'} is empty" in complaint(official(folder))


def test_a_list_in_another_encoding_is_named(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "val200.txt").write_bytes("images/naïve.png 0\n".encode("utf-16"))
    assert f"{folder / 'val200.txt'}: is not UTF-8 text" in complaint(official(folder))


def test_two_lists_for_one_split_are_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "train.txt").write_text((folder / "train800.txt").read_text())
    assert "train800.txt and train.txt" in complaint(official(folder))


def test_other_counts_than_the_tables_are_refused(make_folder: MakeFolder) -> None:
    task = replace(official(make_folder()), sizes={"train": (800,), "val": (4,), "test": (5,)})
    assert "train lists 6 images, vtab1k/cifar has 800" in complaint(task)


def test_each_accepted_count_is_accepted(make_folder: MakeFolder) -> None:
    assert len(load(official(make_folder()))["test"].images) == 5
    assert "has 6 or 7" in complaint(replace(official(make_folder("b")), sizes={"test": (6, 7)}))


def test_a_union_list_that_is_not_the_union_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    lines = (folder / "train800val200.txt").read_text().splitlines(keepends=True)
    (folder / "train800val200.txt").write_text("".join(reversed(lines)))
    load(official(folder))  # the order is free
    (folder / "train800val200.txt").write_text("".join([*lines[:-1], lines[-1].replace(" 1", " 0")]))
    assert "train800val200.txt" in complaint(official(folder))


def test_all_problems_are_reported_at_once(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "val200.txt").unlink()
    (folder / "images/test_3.png").unlink()
    text = complaint(official(folder))
    assert "val200.txt" in text
    assert "images/test_3.png" in text


def test_custom_tasks_count_classes_by_list_or_labels(make_folder: MakeFolder) -> None:
    folder = make_folder()
    assert folder_task(folder).classes == 2
    (folder / "classes.txt").write_text("cat\ndog\nfox\n")
    assert folder_task(folder).class_names == ("cat", "dog", "fox")
    assert folder_task(folder).classes == 3


def test_custom_tasks_need_two_classes(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "classes.txt").write_text("cat\n")
    with raises_naming(DataError, "1 class", "at least 2"):
        folder_task(folder)


def test_the_tasks_in_a_folder_that_is_none_are_named(make_folder: MakeFolder) -> None:
    parent = make_folder("ours/pets").parent
    make_folder("ours/cows")
    (parent / "notes").mkdir()
    with raises_naming(DataError, "cows, pets", "/ours/*"):
        folder_task(parent)


def test_custom_tasks_without_lists_name_them(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "test.txt").unlink()
    with raises_naming(DataError, "test.txt", "docs/data.md"):
        folder_task(folder)


def test_official_class_names_must_be_as_many_as_the_classes(make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "classes.txt").write_text("a\nb\nc\n")
    assert "names 3 classes, vtab1k/cifar has 2" in complaint(official(folder))


def test_task_toml_states_the_facts(make_folder: MakeFolder) -> None:
    folder = make_folder()
    assert (folder_task(folder).suite, folder_task(folder).name, folder_task(folder).group) == ("own", "pets", "own")
    facts = 'suite = "farm"\nname = "cows"\ngroup = "animals"\nprovenance = "lossless"\nversion = 2\nlicence = "CC0"\n'
    (folder / "task.toml").write_text(facts + 'source = "https://example.org"\ncitation = "me, 2026"\n')
    task = folder_task(folder)
    assert (task.suite, task.name, task.group, task.version) == ("farm", "cows", "animals", 2)
    assert (task.provenance, task.licence, task.source) == ("lossless", "CC0", "https://example.org")


BAD_FACTS = {
    "an unknown key": ('nmae = "x"', ("unknown key 'nmae'", "did you mean name", "suite, name")),
    "a number as name": ("name = 3", ("name", "3")),
    "an empty group": ('group = ""', ("group", "''")),
    "a text as version": ('version = "1"', ("version", "'1'")),
    "an unknown provenance": ('provenance = "raw"', ("provenance 'raw'", "lossless, jpeg75, own")),
    "a name with a slash": ('name = "a/b"', ("name 'a/b'",)),
    "a broken file": ("name = ", ("TOML",)),
    **{f"the suite {suite}": (f'suite = "{suite}"', (f"'{suite}'",)) for suite in ("vtab1k", "fgvc", "toy")},
}


@pytest.mark.parametrize("case", BAD_FACTS)
def test_wrong_facts_in_task_toml_are_refused(case: str, make_folder: MakeFolder) -> None:
    text, named = BAD_FACTS[case]
    folder = make_folder()
    (folder / "task.toml").write_text(text)
    with raises_naming(DataError, folder / "task.toml", *named):
        folder_task(folder)


def test_an_invalid_folder_name_needs_task_toml(make_folder: MakeFolder) -> None:
    folder = make_folder("my pets")
    with raises_naming(DataError, "'my pets'", folder / "task.toml"):
        folder_task(folder)
    (folder / "task.toml").write_text('name = "my_pets"')
    assert folder_task(folder).name == "my_pets"


def test_provenance_comes_from_files_or_manifest(make_folder: MakeFolder) -> None:
    png, jpeg = official(make_folder("a")), official(make_folder("b", suffix="jpg"))
    assert seen_provenance(png) == "lossless"
    assert seen_provenance(jpeg) == "jpeg75"
    assert jpeg.folder is not None
    (jpeg.folder / "manifest.json").write_text(json.dumps({"provenance": "lossless"}))
    assert seen_provenance(jpeg) == "lossless"
    (jpeg.folder / "manifest.json").write_text("[]")
    with raises_naming(DataError, "manifest.json", "`object`"):
        seen_provenance(jpeg)


def test_own_data_never_passes_for_anything_but_what_it_says(make_folder: MakeFolder) -> None:
    folder = make_folder(suffix="jpg")
    (folder / "manifest.json").write_text(json.dumps({"provenance": "lossless"}))
    assert seen_provenance(folder_task(folder)) == "own"
