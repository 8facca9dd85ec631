"""Tests of building tasks: complete or absent, equal to the source, and valid for `data check`."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raises import raises_naming
from small_kitti import COUNTS, FILE, examples, listing, pixels, source, verdict
from vtab_peft.benchmark.cli import main
from vtab_peft.datasets.check import check
from vtab_peft.datasets.official import FGVC
from vtab_peft.datasets.raw import sources
from vtab_peft.datasets.raw.build import build
from vtab_peft.datasets.raw.source import RawFile, Source
from vtab_peft.datasets.task import DataError
from vtab_peft.datasets.tasks import find, table

pytestmark = pytest.mark.usefixtures("small_kitti")


def test_the_folder_has_the_archives_layout(raw: Path, data: Path) -> None:
    seen: list[tuple[int, int]] = []
    built = build(source(), raw, data, lambda done, of: seen.append((done, of)))
    assert (built.folder, built.counts, built.provenance, built.made) == (data / "kitti", COUNTS, "lossless", True)
    assert seen == [(i + 1, 60) for i in range(60)]
    folder = data / "kitti"
    names = {"train": "train800", "val": "val200", "test": "test"}
    lists = {split: (folder / f"{name}.txt").read_text() for split, name in names.items()}
    for split, text in lists.items():
        assert text == "".join(f"images/{names[split]}/{i:06d}.png {i % 4}\n" for i in range(COUNTS[split]))
        with Image.open(folder / f"images/{names[split]}/{COUNTS[split] - 1:06d}.png") as picture:
            assert np.array_equal(np.asarray(picture), pixels(split, COUNTS[split] - 1))
    assert (folder / "train800val200.txt").read_text() == lists["train"] + lists["val"]
    assert (folder / "classes.txt").read_text() == "a\nb\nc\nd\n"
    assert (verdict(data, deep=True).state, verdict(data).provenance, listing(data)) == ("found", "lossless", ["kitti"])


def test_the_manifest_says_what_was_built_out_of_what(raw: Path, data: Path, tmp_path: Path) -> None:
    build(source(), raw, data)
    manifest = json.loads((data / "kitti" / "manifest.json").read_text())
    assert manifest["task"] == "vtab1k/kitti"
    assert manifest["source"] == "https://www.cvlibs.net/datasets/kitti/"
    assert (manifest["provenance"], manifest["counts"]) == ("lossless", COUNTS)
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert manifest["raw"] == {"raw.bin": {"bytes": 3, "sha256": abc}}
    assert manifest["built_by"].startswith("vtab-peft")
    assert manifest["keys"]["val"] == [f"val_{i}" for i in range(10)]
    changed = source(lambda split, i: pixels(split, 0) if split == "test" else pixels(split, i))
    build(changed, raw, tmp_path / "other")
    other = json.loads((tmp_path / "other" / "kitti" / "manifest.json").read_text())
    assert other["checksums"].pop("test") != manifest["checksums"].pop("test")
    assert other["checksums"] == manifest["checksums"]


def test_large_raw_files_and_folders_are_recorded_by_size(raw: Path, data: Path) -> None:
    (raw / "kitti" / "images").mkdir()
    for name in ("a", "b"):
        (raw / "kitti" / "images" / name).write_bytes(b"12345")
    with (raw / "kitti" / "large.bin").open("wb") as file:
        file.truncate(2**30 + 1)
    build(source(files=(RawFile("images", ""), RawFile("large.bin.gz", "", instead=("large.bin",)))), raw, data)
    recorded = json.loads((data / "kitti" / "manifest.json").read_text())["raw"]
    assert recorded == {"images": {"files": 2, "bytes": 10}, "large.bin": {"bytes": 2**30 + 1}}


def test_files_and_bytes_are_taken_over_unchanged(raw: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "photo.JPG"
    Image.fromarray(pixels("train", 0).repeat(20, axis=0)).save(file, quality=60)
    content = file.read_bytes()
    build(source(lambda split, _: file if split == "train" else content), raw, data)
    assert (data / "kitti/images/train800/000019.JPG").read_bytes() == content
    assert (data / "kitti/images/test/000029.jpg").read_bytes() == content
    assert (verdict(data).state, verdict(data).provenance) == ("found", "lossless")


def test_a_task_of_fgvc_has_the_lists_of_its_suite(raw: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FGVC, "cub", replace(FGVC["cub"], sizes={"train": (20,), "val": (10,), "test": (30,)}))
    build(source(task="cub", class_names=()), raw, data)
    found = check(find(["cub"], "fgvc", data)[0], deep=True)
    assert (found.state, found.counts, found.provenance) == ("found", COUNTS, "lossless")
    lists = ["train.txt", "trainval.txt", "val.txt", "test.txt"]
    assert listing(data / "cub") == sorted(["images", "manifest.json", *lists])
    assert json.loads((data / "cub" / "manifest.json").read_text())["task"] == "fgvc/cub"


def test_data_of_another_make_is_called_what_it_is(raw: Path, data: Path) -> None:
    stand_in = RawFile("original.bin", "", stand_in=("raw.bin", "re-rendered KITTI"))
    assert build(source(files=(stand_in,)), raw, data).provenance == "own"
    assert json.loads((data / "kitti" / "manifest.json").read_text())["source"] == "re-rendered KITTI"
    assert verdict(data).provenance == "own"
    (raw / "kitti" / "original.bin").touch()
    assert build(source(files=(stand_in,)), raw, data, again=True).provenance == "lossless"


def test_a_whole_task_is_left_alone_unless_asked(raw: Path, data: Path) -> None:
    build(source(), raw, data)
    before = (data / "kitti" / "manifest.json").stat().st_ino
    left = build(source(lambda *_: pytest.fail("nothing is to be built")), raw, data)
    assert (left.made, left.counts, left.provenance) == (False, COUNTS, "lossless")
    assert (data / "kitti" / "manifest.json").stat().st_ino == before
    black = source(lambda *_: np.zeros((2, 2), np.uint8))
    assert build(black, raw, data, again=True).made
    with Image.open(data / "kitti/images/test/000000.png") as picture:
        assert picture.convert("RGB").getpixel((1, 1)) == (0, 0, 0)
    assert listing(data) == ["kitti"]


def test_a_folder_that_is_not_whole_is_never_replaced_unasked(raw: Path, data: Path) -> None:
    (data / "kitti").mkdir(parents=True)
    build(source(), raw, data)  # an empty folder is no loss
    (data / "kitti" / "val200.txt").unlink()
    with raises_naming(DataError, "val200.txt", "--again"):
        build(source(), raw, data)
    assert not (data / "kitti" / "val200.txt").exists()
    build(source(), raw, data, again=True)
    assert verdict(data).state == "found"


WRONG: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"counts": {**COUNTS, "test": 29}}, ("29 test images", "30")),
    ({"class_names": ("a", "b")}, ("kitti", "4 classes", "2")),
    ({"picture": lambda *_: b"<html>not found"}, ("train_", "15 bytes")),
    ({"picture": lambda *_: Path("/nowhere/000.png")}, ("/nowhere/000.png", "No such file")),
    ({"task": "../kitti"}, ("'../kitti'",)),
    ({"task": "shapes"}, ("'shapes'",)),
]


@pytest.mark.parametrize(("facts", "named"), WRONG)
def test_wrong_sources_are_named_and_leave_no_files(facts: dict, named: tuple[str, ...], raw: Path, data: Path) -> None:
    with raises_naming(DataError, *named):
        build(source(**facts), raw, data)
    assert not data.exists() or listing(data) == []
    assert listing(data.parent) in (["raw"], ["data", "raw"])


def test_labels_and_keys_that_cannot_be_are_refused(raw: Path, data: Path) -> None:
    def give(**change: Sequence) -> Source:
        good = {split: examples(split, n, pixels) for split, n in COUNTS.items()}
        return replace(source(), read=lambda _: {**good, "val": replace(good["val"], **change)})

    with raises_naming(DataError, "val", "[4]", "0 to 3"):
        build(give(labels=[4] * 10), raw, data)
    with raises_naming(DataError, "val images twice"):
        build(give(keys=["same"] * 10), raw, data)


def test_keys_never_become_paths(raw: Path, data: Path) -> None:
    keys = {split: [f"../../{split}_{i}" for i in range(n)] for split, n in COUNTS.items()}
    good = {split: examples(split, n, pixels) for split, n in COUNTS.items()}
    harmful = {split: replace(good[split], keys=keys[split]) for split in good}
    build(replace(source(), read=lambda _: harmful), raw, data)
    assert (listing(data.parent), listing(data)) == (["data", "raw"], ["kitti"])
    assert listing(data / "kitti") == sorted(
        ["images", "classes.txt", "manifest.json", "train800.txt", "val200.txt", "train800val200.txt", "test.txt"]
    )


def test_all_missing_raw_files_are_named_with_their_addresses(raw: Path, data: Path) -> None:
    asked = RawFile("b.rar", "https://example.org/b", manual="sign the form")
    with pytest.raises(DataError) as error:
        build(source(files=(FILE, RawFile("a.zip", "https://example.org/a"), asked)), raw, data)
    assert f"there is no a.zip in {raw}/kitti: get it from https://example.org/a" in str(error.value)
    assert f"there is no b.rar in {raw}/kitti: sign the form; see https://example.org/b" in str(error.value)
    assert "raw.bin" not in str(error.value)


# The command


def test_the_command_prints_one_line_per_task(
    raw: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sources.SOURCES, "kitti", source())
    arguments = ["data", "build", "kitti", "--raw", str(raw), "--data", str(data)]
    assert main(arguments) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("vtab1k/kitti: built in ")
    assert line.endswith(f": 20 + 10 + 30 images, lossless, {data / 'kitti'}")
    assert main(arguments) == 0
    assert "exists, unchanged" in capsys.readouterr().out
    assert main([*arguments, "--again"]) == 0
    assert "built in " in capsys.readouterr().out
    assert main(["data", "check", "--suite", "vtab1k", "--tasks", "kitti", "--data", str(data)]) == 0


def test_the_command_builds_what_it_can_and_says_what_is_missing(
    raw: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sources.SOURCES, "kitti", source())
    assert main(["data", "build", "svhn", "caltech101", "kitti", "--raw", str(raw), "--data", str(data)]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("vtab1k/kitti: built in ")
    assert "http://ufldl.stanford.edu/housenumbers/test_32x32.mat" in printed.err
    assert "caltech101 cannot be built from the original files" in printed.err
    assert "shared vtab-1k archive" in printed.err
    assert printed.err.splitlines()[-1] == "vtab-peft: not built: svhn, caltech101"
    assert listing(data) == ["kitti"]
    assert main(["data", "build", "svhm", "--raw", str(raw), "--data", str(data)]) == 2
    assert "did you mean svhn" in capsys.readouterr().err


def test_a_raw_data_set_means_the_tasks_made_of_it(tmp_path: Path) -> None:
    def meant(*names: str, suite: str = "vtab1k") -> list[str]:
        return [task.name for task in sources.find_official(names, suite, tmp_path)]

    assert meant("dsprites") == ["dsprites_loc", "dsprites_ori"]
    assert meant("cifar100", "clevr", "kitti") == ["cifar", "clevr_count", "clevr_dist", "kitti"]
    assert meant("dsprites_ori", "dsprites") == ["dsprites_ori", "dsprites_loc"]
    assert meant("oxford_flowers102", suite="fgvc") == ["oxfordflowers"]
    with raises_naming(ValueError, "did you mean"):
        meant("dsprits")


def test_every_task_of_vtab_says_how_it_is_built() -> None:
    assert set(sources.SOURCES) == {task.name for task in table().values() if task.suite != "toy"}
    for name, made_by in sources.SOURCES.items():
        assert made_by.task == name
        assert all(file.url.startswith("http") for file in made_by.files)
    with raises_naming(DataError, "caltech101", "docs/data.md"):
        sources.SOURCES["caltech101"].read(Path())
