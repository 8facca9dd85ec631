"""Tests of the cache report: every entry is listed, and only useless files are removed."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cached_tasks import BICUBIC, MakeFolder
from raises import raises_naming
from vtab_peft.benchmark.cli import main
from vtab_peft.datasets.atomic_io import host
from vtab_peft.datasets.cache import build, cached
from vtab_peft.datasets.cache_report import prune, survey
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.pixels import Preprocessing
from vtab_peft.datasets.task import DataError

LONG_AGO = time.time() - 30 * 24 * 3600
IMAGE = 3 * 24 * 24
"""Bytes of an image at 24 pixels a side; a task has 6, 4 and 5 of them."""


def files(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


def age(root: Path, kind: str = "") -> None:
    for path in (root / kind).rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))


def manifests(root: Path) -> list[Path]:
    return sorted((root / "tasks").rglob("*.json"))


def test_an_entry_tells_task_form_size_and_source(make_folder: MakeFolder, root: Path) -> None:
    large, small = make_folder("large", side=100), make_folder("small", side=12)
    build(folder_task(large), BICUBIC, root)
    build(folder_task(small), BICUBIC, root)
    first, second = survey(root).entries
    assert (first.task, first.form, first.folder, first.source_gone) == ("own/large", "24 bicubic", large, False)
    assert (second.task, second.form, second.folder) == ("own/small", "own size", small)
    headers_and_labels = 6 * 128 + 15 * 8
    assert (first.bytes, second.bytes) == (15 * IMAGE + headers_and_labels, 15 * 3 * 12 * 12 + headers_and_labels)
    assert survey(root).bytes == sum(files(root).values())


def test_a_task_at_two_sizes_is_two_entries(make_folder: MakeFolder, root: Path) -> None:
    task = folder_task(make_folder(side=100))
    build(task, BICUBIC, root)
    build(task, Preprocessing(32, "bilinear"), root)
    assert [entry.form for entry in survey(root).entries] == ["24 bicubic", "32 bilinear"]


def test_looking_a_task_up_is_using_it(make_folder: MakeFolder, root: Path) -> None:
    task = folder_task(make_folder())
    build(task, BICUBIC, root)
    age(root)
    assert survey(root).entries[0].used == pytest.approx(LONG_AGO)
    assert cached(task, BICUBIC, root)
    assert survey(root).entries[0].used == pytest.approx(time.time(), abs=60)


def test_an_empty_cache_holds_nothing(root: Path) -> None:
    found = survey(root)
    assert (found.entries, found.useless, found.bytes) == ((), (), 0)
    prune(found)
    assert not root.exists()


def test_nothing_of_a_cache_in_use_is_removed(make_folder: MakeFolder, root: Path) -> None:
    for name in ("pets", "cars"):
        build(folder_task(make_folder(name, side=100)), BICUBIC, root)
    age(root)
    before = files(root)
    prune(survey(root))
    assert files(root) == before


def test_prune_removes_orphans_but_no_shared_arrays(make_folder: MakeFolder, root: Path) -> None:
    gone, there = make_folder("gone", side=100, seed=1), make_folder("there", side=100, seed=1)
    lists = there / "test.txt"
    lists.write_text("".join(reversed(lists.read_text().splitlines(keepends=True))))
    kept = build(folder_task(there), BICUBIC, root)
    only = files(root)
    build(folder_task(gone), BICUBIC, root)
    shutil.rmtree(gone)
    found = survey(root)
    assert [(entry.task, entry.source_gone) for entry in found.entries] == [("own/gone", True), ("own/there", False)]
    assert {file.why for file in found.useless} == {"source gone"}
    assert sum(file.bytes for file in found.useless) == sum(files(root).values()) - sum(only.values())
    prune(found)
    assert files(root) == only
    assert cached(folder_task(there), BICUBIC, root) == kept


def test_a_manifest_that_does_not_say_its_folder_stays(make_folder: MakeFolder, root: Path) -> None:
    folder = make_folder()
    build(folder_task(folder), BICUBIC, root)
    (path,) = manifests(root)
    for record in ({"folder": None}, {}):
        manifest = {key: value for key, value in json.loads(path.read_text()).items() if key != "folder"}
        path.write_text(json.dumps({**manifest, **record}))
        shutil.rmtree(folder, ignore_errors=True)
        (entry,) = survey(root).entries
        assert (entry.folder, entry.source_gone, survey(root).useless) == (None, False, ())


@pytest.mark.parametrize("text", ["{", "[]", '{"task": "own/pets"}', "\xff"])
def test_a_damaged_manifest_goes_and_its_arrays_a_day_later(text: str, make_folder: MakeFolder, root: Path) -> None:
    build(folder_task(make_folder()), BICUBIC, root)
    (path,) = manifests(root)
    path.write_bytes(text.encode("latin1"))
    found = survey(root)
    assert [(file.path, file.why) for file in found.useless] == [(path, "damaged")]
    assert found.waiting == sum(files(root).values()) - len(text)
    age(root)
    assert survey(root).waiting == 0
    prune(survey(root))
    assert not files(root)


def test_prune_removes_temp_files_of_dead_writers(root: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here, me = host(), os.getpid()
    for folder in ("images", "labels", "tasks/own"):
        (root / folder).mkdir(parents=True)
    dead, running = root / f"images/.tmp-{here}-{ended.pid}-aa", root / f"labels/.tmp-{here}-{me}-bb"
    far, far_old = root / "tasks/own/.tmp-far-away-1-cc", root / "tasks/own/.tmp-far-away-1-dd"
    for path in (dead, running, far, far_old):
        path.write_text("part")
    os.utime(far_old, (LONG_AGO, LONG_AGO))
    found = survey(root)
    assert {(file.path, file.why, file.bytes) for file in found.useless} == {
        (dead, "unfinished", 4),
        (far_old, "unfinished", 4),
    }
    prune(found)
    assert {path.name for path in root.rglob("*") if path.is_file()} == {running.name, far.name}


def test_files_of_others_are_neither_counted_nor_removed(root: Path) -> None:
    others = ["images/holiday.npy", "images/.tmp-mine", "labels/a.txt", "tasks/own/notes.json", f"{'0' * 64}.npy"]
    for name in others:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("mine")
    age(root)
    assert survey(root).bytes == 0
    prune(survey(root))
    assert sorted(files(root)) == sorted(others)


@pytest.mark.parametrize("old", ["unnamed", "source gone"])
def test_pruning_during_a_build_does_not_disturb_it(old: str, make_folder: MakeFolder, root: Path) -> None:
    """The arrays lie there already, so that the build writes nothing new and only takes them over."""
    folder = make_folder("before", side=100)
    made = build(folder_task(folder), BICUBIC, root)
    wanted = {split: made.images(split).tobytes() for split in made.files}
    folder = folder.rename(folder.with_name("pets"))
    if old == "unnamed":
        shutil.rmtree(root / "tasks")
    age(root)
    pruned = []

    def progress(done: int, _: int) -> None:
        if done > 15:  # all images are known, so the arrays have been chosen
            prune(survey(root))
            pruned.append(done)

    task = folder_task(folder)
    again = build(task, BICUBIC, root, progress)
    assert pruned
    assert {split: again.images(split).tobytes() for split in again.files} == wanted
    assert cached(task, BICUBIC, root) == again


@pytest.mark.parametrize("stop_after", range(7))
def test_an_interrupted_prune_leaves_no_broken_manifest(
    stop_after: int, make_folder: MakeFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(side=100)
    build(folder_task(folder), BICUBIC, root)
    shutil.rmtree(folder)
    unlink, removed = Path.unlink, []

    def stopping(path: Path, missing_ok: bool = False) -> None:
        if len(removed) == stop_after:
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)
        removed.append(path)

    monkeypatch.setattr(Path, "unlink", stopping)
    found = survey(root)
    assert len(found.useless) == 7  # a manifest, and images and labels of three splits
    with raises_naming(DataError, "Permission denied"):
        prune(found)
    assert len(manifests(root)) == (stop_after == 0)
    assert len(list(root.rglob("*.npy"))) == (6 if stop_after == 0 else 7 - stop_after)


def said(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert main(["data", *command]) == 0
    return capsys.readouterr().out


def test_the_list_shows_every_entry_and_what_pruning_would_free(
    make_folder: MakeFolder, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(root))
    assert said(capsys, "cache", "--list") == f"{root} has 0.0 kB; shared images count once\n"
    gone, there = make_folder("gone", side=100, seed=1), make_folder("there", side=100)
    for folder in (gone, there):
        build(folder_task(folder), BICUBIC, root)
    age(root)
    shutil.rmtree(gone)
    day = time.strftime("%Y-%m-%d", time.localtime(LONG_AGO))
    head, _, first, second, total, hint = said(capsys, "cache", "--list").splitlines()
    assert head.split() == ["task", "form", "size", "last", "used", "source"]
    assert first.split()[:6] == ["own/gone", "24", "bicubic", "26.8", "kB", day]
    assert first.endswith(f"{gone} (gone)")
    assert second.split()[0] == "own/there"
    assert second.endswith(str(there))
    assert total.startswith(f"{root} has {sum(files(root).values()) / 1000:.1f} kB")
    assert re.fullmatch(r"`vtab-peft data cache --prune` would free 2\d\.\d kB", hint)


def test_a_dry_run_says_what_pruning_then_does(
    make_folder: MakeFolder, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(root))
    folder = make_folder(side=100)
    build(folder_task(folder), BICUBIC, root)
    age(root)
    shutil.rmtree(folder)
    (root / f"images/{'0' * 64}.npy").write_bytes(bytes(5000))  # perhaps of a build that runs elsewhere
    before = files(root)
    announced = said(capsys, "cache", "--prune", "--dry-run")
    assert files(root) == before
    kept = "kept: 5.0 kB without a task, younger than a day (perhaps of a running build)"
    size = f"{(sum(before.values()) - 5000) / 1000:.1f} kB"
    assert announced.splitlines()[:2] == [
        f"  own/pets: {folder}",
        f"{size} in 7 files: of tasks whose folder is gone",
    ]
    assert announced.endswith(f"would free {size} in {root}\n")
    assert kept in announced
    assert said(capsys, "cache", "--prune") == announced.replace("would free", "freed")
    assert files(root) == {f"images/{'0' * 64}.npy": 5000}
    age(root)
    assert said(capsys, "cache", "--prune").splitlines() == [
        "5.0 kB in 1 file: arrays that no task uses",
        f"freed 5.0 kB in {root}",
    ]
    assert said(capsys, "cache", "--prune") == f"nothing to remove in {root}\n"


def test_a_dry_run_of_the_list_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cache", "--list", "--dry-run"]) == 2
    assert "--prune" in capsys.readouterr().err


def test_status_counts_without_checking(make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = make_folder("good"), make_folder("bad")
    (bad / "images/test_0.png").unlink()
    (good / "images/test_0.png").write_bytes(b"not looked at")
    out = said(capsys, "status", "--tasks", str(good), str(bad)).splitlines()
    assert out[2].split() == ["own/good", "found", "6", "4", "5", "own"]
    assert out[3].split() == ["own/bad", "partial", "6", "4", "5", "unknown"]
    assert out[4:] == ["1 of 2 can be used; `data check` prints the reasons"]
    assert main(["data", "check", "--tasks", str(bad)]) == 1
    assert "1 listed images are not in" in capsys.readouterr().out
