"""Tests of `data import` and of `imagefolder:`: layouts, splits, class names, and what is refused."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raises import raises_naming
from vtab_peft.benchmark.cli import main
from vtab_peft.datasets import cache
from vtab_peft.datasets.cache import Preprocessing
from vtab_peft.datasets.check import check
from vtab_peft.datasets.draw import draw
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.identity import source_fingerprint
from vtab_peft.datasets.importing import image_folder_task, import_task, read_labelled
from vtab_peft.datasets.task import DataError
from vtab_peft.datasets.tasks import find

Sizes = dict[str, int]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(tmp_path / "cache"))


def paint(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def class_folders(tmp_path: Path) -> Callable[..., Path]:
    """`class_folders({"cat": 6, "dog": 4}, subset="train")` paints images; returns the root."""

    def make(sizes: Sizes, subset: str = ".", root: str = "pets", first: int = 0) -> Path:
        numbers = iter(range(first, first + sum(sizes.values())))
        for name, count in sizes.items():
            for i in range(count):
                paint(tmp_path / root / subset / name / f"{i}.png", next(numbers))
        return tmp_path / root

    return make


def lists(folder: Path) -> dict[str, list[tuple[str, int]]]:
    found = {}
    for split in ("train", "val", "test"):
        lines = [line.rsplit(" ", 1) for line in (folder / f"{split}.txt").read_text().splitlines()]
        found[split] = [(file, int(label)) for file, label in lines]
    return found


def test_class_folders_become_a_stratified_task(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    root = class_folders({"dog": 20, "cat": 40, "wild cat": 5})
    (root / "cat" / "notes.txt").write_text("no image")
    (root / ".thumbs").mkdir()
    made = import_task(str(root), tmp_path / "out", train=30, val_share=0.2, seed=3)
    assert made.counts == {"train": 24, "val": 6, "test": 35}
    assert made.task.class_names == ("cat", "dog", "wild cat")
    found = lists(tmp_path / "out")
    drawn = Counter(label for split in ("train", "val") for _, label in found[split])
    assert drawn == {0: 18, 1: 9, 2: 3}  # one each, then 27 in proportion 39:19:4, by largest remainders
    assert check(made.task, deep=True).state == "found"
    assert made.warnings == ()
    keys = json.loads((tmp_path / "out" / "manifest.json").read_text())["keys"]
    every = [key for split in keys.values() for key in split]
    assert len(set(every)) == len(every) == 65
    for split, listed in found.items():
        for key, (file, label) in zip(keys[split], listed, strict=True):
            assert (tmp_path / "out" / file).read_bytes() == (root / key).read_bytes()
            assert key.partition("/")[0] == made.task.class_names[label]


def test_draws_depend_on_seed_and_keys_only(class_folders: Callable[..., Path]) -> None:
    images = read_labelled(str(class_folders({"a": 15, "b": 15})))
    first = {split: part.keys for split, part in draw(images, 10).items()}
    assert first == {split: part.keys for split, part in draw(images, 10).items()}
    assert first["train"] != draw(images, 10, seed=1)["train"].keys
    every = sorted(images.subsets["all"].keys, key=lambda key: hashlib.sha256(f"0 {key}".encode()).digest())
    of_a, of_b = ([key for key in every if key.startswith(name)][:5] for name in "ab")
    assert set(first["train"]) | set(first["val"]) == {*of_a, *of_b}
    assert set(first["val"]) == {of_a[0], of_b[0]}
    assert [key for key in every if key in first["test"]] == list(first["test"])


def test_subsets_of_the_source_are_kept(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    for number, (subset, count) in enumerate({"train": 20, "val": 10, "test": 6}.items()):
        root = class_folders({"a": count, "b": count}, subset, first=100 * number)
    splits = draw(read_labelled(str(root)), 30)
    assert {split: len(part) for split, part in splits.items()} == {"train": 24, "val": 6, "test": 12}
    assert all(key.startswith(f"{split}/") for split, part in splits.items() for key in part.keys)
    (root / "test").rename(tmp_path / "elsewhere")
    splits = draw(read_labelled(str(root)), 30)  # val is the test set now
    assert {key.partition("/")[0] for key in (*splits["train"].keys, *splits["val"].keys)} == {"train"}
    assert {split: len(part) for split, part in splits.items()} == {"train": 24, "val": 6, "test": 20}


def test_small_sources_give_a_fifth_to_test(class_folders: Callable[..., Path]) -> None:
    splits = draw(read_labelled(str(class_folders({"a": 10, "b": 10}))))
    assert {split: len(part) for split, part in splits.items()} == {"train": 13, "val": 3, "test": 4}
    with pytest.raises(DataError, match="val"):
        draw(read_labelled(str(class_folders({"a": 1, "b": 1}, root="two"))))


def test_imagefolder_has_the_data_of_the_import(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    root = class_folders({"cat": 12, "dog": 9})
    (linked,) = find([f"imagefolder:{root}"], None, None)
    copied = import_task(str(root), tmp_path / "pets copy" / "pets").task
    assert (linked.label, linked.class_names) == ("own/pets", ("cat", "dog")) == (copied.label, copied.class_names)
    preprocessing, place = Preprocessing(8, "bicubic"), tmp_path / "cache"
    data = cache.build(linked, preprocessing, place)
    assert data.data == cache.build(copied, preprocessing, place).data
    assert cache.cached(image_folder_task(root), preprocessing, place) == data
    paint(root / "dog" / "new.png", 99)
    assert cache.cached(image_folder_task(root), preprocessing, place) is None
    (root / "cat" / "0.png").write_text("torn")
    with raises_naming(DataError, root / "cat" / "0.png"):
        cache.build(image_folder_task(root), preprocessing, place)
    result = check(image_folder_task(root), deep=True)
    assert str(root / "cat" / "0.png") in result.problems[0]
    assert str(root) in result.advice


def test_csv_columns_are_read(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    root = class_folders({"10": 4, "9": 4})
    lines = [f"{path.relative_to(tmp_path).as_posix()},{path.parent.name}\n" for path in sorted(root.rglob("*.png"))]
    table = tmp_path / "table.csv"
    table.write_text("path,label\n" + "".join(lines))
    made = import_task(str(table), tmp_path / "out")
    assert made.task.class_names == ("9", "10")
    assert sum(made.counts.values()) == 8
    splits = ["train", "train", "train", "test"] * 2
    with_splits = [f"{line.strip()},{split}\n" for line, split in zip(lines, splits, strict=True)]
    table.write_text("path,label,split\n" + "".join(with_splits))
    assert {subset: len(part) for subset, part in read_labelled(str(table)).subsets.items()} == {"train": 6, "test": 2}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("file,label\na.png,x\n", "path"),
        ("path,label\na.png,\n", ":2"),
        ("path,label,split\na.png,x,train\nb.png,y,dev\n", ":3"),
        ("path,label\na.png,x\na.png,y\n", "a.png"),
        ("path,label\na.png,x\n", "1 class"),
        ('path,label\na.png,x\nb.png,"y\nz"\n', "y\\nz"),
        (f"path,label\na.png,{'x' * 200_000}\n", "field limit"),
        ("path,label,split\na.png,x,train\nb.png,y,\n", "all"),
    ],
)
def test_wrong_csv_files_are_refused(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(text)
    with raises_naming(DataError, tmp_path / "table.csv", named):
        read_labelled(str(tmp_path / "table.csv"))


@pytest.mark.parametrize("seed", range(10))
def test_any_csv_file_is_read_or_refused(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    pieces = (b",", b'"', b"\n", b"\r", b"\0", b" ", b"path", b"label", b"train", b"a.png", b"7", b"\xff", b"=1")
    for number in range(30):
        words = b"".join(pieces[rng.integers(len(pieces))] for _ in range(rng.integers(0, 40)))
        table = tmp_path / f"{number}.csv"
        table.write_bytes(rng.choice([b"", b"path,label\n", b"path,label,split\n"]) + words)
        with contextlib.suppress(DataError):
            draw(read_labelled(str(table)))


def test_names_that_are_no_text_are_refused(class_folders: Callable[..., Path]) -> None:
    root = class_folders({"a": 2, "b": 2})
    (root / "a" / "0.png").rename(root / "a" / "caf\udce9.png")
    with raises_naming(DataError, root, "udce9"):
        image_folder_task(root)


def test_damaged_images_are_named_and_nothing_is_written(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    root = class_folders({"a": 5, "b": 5})
    torn = [root / "a" / "0.png", root / "b" / "3.png"]
    for path in torn:
        path.write_bytes(path.read_bytes()[:60])
    with raises_naming(DataError, *torn):
        import_task(str(root), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for path in torn:
        path.unlink()
    link = root / "a" / "link.png"
    link.symlink_to("nowhere.png")
    with raises_naming(DataError, link):
        import_task(str(root), tmp_path / "out")
    link.unlink()
    import_task(str(root), tmp_path / "out")
    with raises_naming(DataError, tmp_path / "out"):
        import_task(str(root), tmp_path / "out")


def test_images_without_a_class_are_counted(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    source = class_folders({"a": 10, "b": 10})
    (source / "empty").mkdir()
    first = next(source.rglob("*.png"))
    (source / "loose.png").write_bytes(first.read_bytes())
    done = import_task(str(source), tmp_path / "task", train=10)
    assert done.task.classes == 2
    empty, loose = done.warnings
    assert str(source / "empty") in empty
    assert loose.startswith("1 ")


def test_pictures_that_pillow_does_not_know_are_counted(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    source = class_folders({"a": 10, "b": 10})
    for name in ("1.heic", "2.HEIC", "3", "Thumbs.db", "notes.txt", ".hidden.heic"):
        (source / "a" / name).write_bytes(b"x")
    (warning,) = import_task(str(source), tmp_path / "task").warnings
    assert ": 2 .heic, 1 without any;" in warning
    assert image_folder_task(source).left_out == (warning,)


def test_the_source_states_the_images_that_were_drawn(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    source = class_folders({"a": 10, "b": 10})
    for task in (import_task(str(source), tmp_path / "task").task, image_folder_task(source)):
        assert "16 images in train and val" in task.source


def test_an_empty_test_folder_gives_no_image_to_two_splits(class_folders: Callable[..., Path]) -> None:
    class_folders({"a": 12, "b": 12}, subset="train")
    source = class_folders({"a": 6, "b": 6}, subset="val", first=24)
    (source / "test" / "a").mkdir(parents=True)
    task = image_folder_task(source)
    assert any(str(source / "test") in text for text in task.left_out)
    splits = lists(task.folder or source)
    files = [file for split in splits.values() for file, _ in split]
    assert len(set(files)) == len(files) == 36


def test_missing_images_are_named_where_the_user_put_them(class_folders: Callable[..., Path]) -> None:
    source = class_folders({"a": 10, "b": 10})
    task = image_folder_task(source)
    (source / "a" / "3.png").unlink()
    (source / "a" / "3.png").symlink_to("nowhere.png")
    with raises_naming(DataError, str(source / "a" / "3.png")):
        source_fingerprint(task)


def test_an_import_into_its_source_is_refused(class_folders: Callable[..., Path]) -> None:
    source = class_folders({"a": 10, "b": 10})
    with raises_naming(DataError, str(source / "task")):
        import_task(str(source), source / "task")
    assert not (source / "task").exists()


def test_two_folders_for_one_subset_are_refused(class_folders: Callable[..., Path]) -> None:
    class_folders({"a": 3, "b": 3}, subset="train")
    class_folders({"a": 3, "b": 3}, subset="val")
    source = class_folders({"a": 3, "b": 3}, subset="valid")
    with raises_naming(DataError, "val/", "valid/"):
        image_folder_task(source)


def test_identical_images_across_splits_are_warned_of(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    root = class_folders({"a": 6, "b": 6}, "train")
    class_folders({"a": 2, "b": 2}, "test", first=50)
    (root / "test" / "a" / "0.png").write_bytes((root / "train" / "b" / "1.png").read_bytes())
    (text,) = import_task(str(root), tmp_path / "out").warnings
    assert "train/b/1.png" in text
    assert "test/a/0.png" in text


@pytest.mark.parametrize("layout", ["empty", "one class", "beside", "absent"])
def test_other_layouts_are_refused(layout: str, class_folders: Callable[..., Path], tmp_path: Path) -> None:
    root = tmp_path / "pets"
    if layout != "absent":
        root.mkdir()
    if layout == "one class":
        class_folders({"a": 3})
    if layout == "beside":
        class_folders({"a": 3, "b": 3}, "train")
        class_folders({"c": 1})
    with raises_naming(DataError, root):
        read_labelled(str(root))


def test_the_command_imports_and_prints_the_next(
    class_folders: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = class_folders({"a": 10, "b": 10}), tmp_path / "out"
    assert main(["data", "import", str(root), "--to", str(out), "--train", "10", "--val-share", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "5 train, 5 val, 10 test" in said
    assert f"vtab-peft run --tasks {out}" in said
    assert folder_task(out).source.startswith("imported from pets")
    assert main(["data", "import", str(root), "--to", str(out)]) == 1
    assert main(["data", "check", "--tasks", f"imagefolder:{root}"]) == 0
    with pytest.raises(SystemExit):
        main(["data", "import", str(root), "--to", str(out), "--val-share", "1"])


def test_class_folders_as_a_task_point_to_imagefolder(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    root = class_folders({"cat": 3, "dog": 3})
    with raises_naming(DataError, f"imagefolder:{root}"):
        folder_task(root)
    with raises_naming(DataError, root / "cat", "one folder per class"):
        read_labelled(str(root / "cat"))
    import_task(str(class_folders({"a": 5, "b": 5}, root="more")), tmp_path / "done")
    with raises_naming(DataError, f"--tasks {tmp_path / 'done'}"):
        read_labelled(str(tmp_path / "done"))
    with raises_naming(DataError, tmp_path / "absent"):
        read_labelled(str(tmp_path / "absent"))
