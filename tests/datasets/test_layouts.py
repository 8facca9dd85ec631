"""Layouts of images that people have: a class called train, links in classes, and other spellings in CSV files."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from raises import raises_naming
from vtab_peft.benchmark.cli import main
from vtab_peft.datasets.cache import build
from vtab_peft.datasets.cache_report import prune, survey
from vtab_peft.datasets.check import check
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.importing import image_folder_task, import_task, read_labelled
from vtab_peft.datasets.pixels import Preprocessing, ending_of
from vtab_peft.datasets.task import DataError
from vtab_peft.datasets.tasks import find


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def class_folders(tmp_path: Path) -> Callable[..., Path]:
    """Paint four images into each named folder of `pictures`; return it."""

    def make(*names: str) -> Path:
        for shade, name in enumerate(names):
            (tmp_path / "pictures" / name).mkdir(parents=True)
            for number in range(4):
                image = Image.new("RGB", (6, 6), (40 * shade, 40 * number, 0))
                image.save(tmp_path / "pictures" / name / f"{number}.png")
        return tmp_path / "pictures"

    return make


def test_a_class_may_be_called_train(class_folders: Callable[..., Path]) -> None:
    """Pascal VOC has such a class.  With class folders inside, it is the training set."""
    assert read_labelled(str(class_folders("car", "plane", "train"))).class_names == ("car", "plane", "train")
    with raises_naming(DataError, "car/ beside train/"):
        read_labelled(str(class_folders("train/car", "train/plane")))


def test_linked_folders_inside_a_class_are_named(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    root = class_folders("cat", "dog", "dog/young")
    (root / "dog" / "young").rename(tmp_path / "elsewhere")
    (root / "dog" / "young").symlink_to(tmp_path / "elsewhere")
    (root / "bird").symlink_to(tmp_path / "elsewhere")
    task = image_folder_task(root)
    assert task.class_names == ("bird", "cat", "dog")
    (said,) = task.left_out
    assert str(root / "dog" / "young") in said


def test_links_to_nothing_are_named(class_folders: Callable[..., Path]) -> None:
    root = class_folders("cat", "dog")
    (root / "bird").symlink_to("unmounted")
    (root / "dog" / "young").symlink_to("young")
    task = image_folder_task(root)
    assert task.class_names == ("cat", "dog")
    bird, young = task.left_out
    assert str(root / "bird") in bird
    assert str(root / "dog" / "young") in young


def test_class_folders_with_a_space_in_their_name_point_to_imagefolder(class_folders: Callable[..., Path]) -> None:
    root = class_folders("a", "b").rename(class_folders("c").with_name("my pictures"))
    with raises_naming(DataError, f"imagefolder:{root}"):
        folder_task(root)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("path,label,split\na.png,x,train\nb.png,y,dev\n", ("'dev'", "validation")),
        ("path;label\na.png;x\n", ("path;label", "commas")),
        ("path,label,label\na.png,x,1\nb.png,y,2\n", ("label more than once",)),
        ("path,label\na.png,x\nb\0.png,y\n", ("b\\x00.png",)),
        ("file,class\na.png,x\n", ("file, class",)),
        ("path,label,split\na.png,x,train\nb.png,y,train\n./a.png,y,test\n", (":4", "./a.png")),
    ],
)
def test_csv_files_are_refused_with_what_was_found(text: str, named: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(text)
    with raises_naming(DataError, *named):
        read_labelled(str(tmp_path / "table.csv"))


def test_lines_may_end_as_old_spreadsheets_end_them(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"path,label\ra.png,x\rb.png,y\r")
    assert read_labelled(str(tmp_path / "table.csv")).class_names == ("x", "y")


def test_spaces_after_commas_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text('path, label, split\na.png, "x, big", train\nb.png, y, train\n')
    assert read_labelled(str(tmp_path / "table.csv")).class_names == ("x, big", "y")


def test_two_class_folders_of_one_name_are_named_where_they_lie(
    class_folders: Callable[..., Path], tmp_path: Path
) -> None:
    one = class_folders("a", "b")
    other = Path(shutil.copytree(one, tmp_path / "elsewhere" / one.name))
    with raises_naming(DataError, f"{one} and {other}", "data import"):
        find([f"imagefolder:{one}", f"imagefolder:{other}"], None, None)


def test_class_folders_are_named_where_they_lie_also_if_the_cache_is_a_link(
    class_folders: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "link").symlink_to("cache")
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(tmp_path / "link"))
    root = class_folders("a", "b")
    same = (root / "a" / "0.png").read_bytes()
    for path in root.glob("*/*"):
        path.write_bytes(same)
    (note,) = check(image_folder_task(root), deep=True).notes
    assert str(root) in note
    assert str(tmp_path / "cache") not in note
    (root / "b" / "1.png").write_bytes(b"no image")
    result = check(image_folder_task(root), deep=True)
    assert str(tmp_path / "cache") not in f"{result.problems} {result.advice}"


def test_a_folder_that_cannot_be_read_is_not_left_out(
    class_folders: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders("a", "a/young", "b")
    scandir = os.scandir

    def guarded(folder: Any) -> Any:
        if Path(folder) == root / "a" / "young":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    with raises_naming(DataError, root / "a" / "young", "Permission denied"):
        read_labelled(str(root))
    assert main(["data", "check", f"imagefolder:{root}"]) == 1
    assert "wrong" in capsys.readouterr().out


def test_a_home_of_nobody_is_an_ordinary_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nobodys = "~no-such-user/pets"
    for arguments in (["check", nobodys], ["check", f"imagefolder:{nobodys}"], ["compare", nobodys, nobodys]):
        assert main(["data", *arguments]) == 1
        said = capsys.readouterr()
        assert nobodys in said.out + said.err
    assert main(["data", "import", nobodys, "--to", str(tmp_path / "out")]) == 1
    assert nobodys in capsys.readouterr().err


def test_a_task_whose_folder_cannot_be_read_is_wrong(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder()
    task = folder_task(folder)
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != folder)
    assert check(task).state == "wrong"
    with raises_naming(DataError, folder, "cannot be read"):
        folder_task(folder)


def test_lists_that_cannot_be_written_name_cache_and_folder(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    root = class_folders("a", "b")
    (tmp_path / "cache").write_text("a file")
    with raises_naming(DataError, root, tmp_path / "cache", "VTAB_PEFT_CACHE"):
        image_folder_task(root)


def test_a_link_to_no_image_is_a_missing_image(class_folders: Callable[..., Path]) -> None:
    root = class_folders("a", "b")
    (root / "a" / "0.png").unlink()
    (root / "a" / "0.png").symlink_to("nowhere.png")
    (root / "b" / "0.png").rename(root / "elsewhere")
    (root / "b" / "0.png").symlink_to(root / "elsewhere")
    result = check(image_folder_task(root))
    assert result.state == "partial"
    (problem,) = result.problems
    assert f"{root / 'a' / '0.png'} is a link to nowhere.png" in problem


def test_the_cache_of_class_folders_that_are_gone_is_pruned(class_folders: Callable[..., Path], tmp_path: Path) -> None:
    root, cache = class_folders("a", "b"), tmp_path / "cache"
    build(image_folder_task(root), Preprocessing(16, "bicubic"), cache)
    (entry,) = survey(cache).entries
    assert (entry.folder, entry.source_gone, survey(cache).useless) == (root, False, ())
    shutil.rmtree(root)
    assert survey(cache).entries[0].source_gone
    prune(survey(cache))
    assert not [path for path in cache.rglob("*") if not path.is_dir() or path.parent.name == "image_folders"]


@pytest.mark.parametrize("ending", [".jp2", ".pcx", ".tga", ".ico"])
def test_every_form_that_pillow_reads_is_kept(ending: str, class_folders: Callable[..., Path], tmp_path: Path) -> None:
    root = class_folders("a", "b")
    odd = root / "a" / f"odd{ending}"
    Image.new("RGB", (16, 16), (200, 0, 0)).save(odd)
    folder = import_task(str(root), tmp_path / "out").task.folder
    assert folder is not None
    (copy,) = folder.glob(f"images/*/*{ending}")
    assert copy.read_bytes() == odd.read_bytes()
    endings = Image.registered_extensions()
    assert endings[ending_of(odd.read_bytes()) or ""] == endings[ending]
