"""Faults of the cache: damaged images, killed builds, full disks and lost files."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cached_tasks import BICUBIC, MakeFolder, pixels
from PIL import Image, ImageFile
from raises import raises_naming
from vtab_peft.datasets import atomic_io as atomic
from vtab_peft.datasets import cache
from vtab_peft.datasets.cache import build, cached
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.task import DataError

BUILD = """
import sys
from pathlib import Path
from vtab_peft.datasets.cache import build
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.pixels import Preprocessing
folder, root, stop_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def progress(done, total):
    if done == stop_at:
        print("stopped", flush=True)
        sys.stdin.read()

print(build(folder_task(folder), Preprocessing(24, "bicubic"), root, progress).data)
"""


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def builder(folder: Path, root: Path, stop_at: int = -1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(folder), str(root), str(stop_at)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a truncated image": (truncate, "is damaged"),
    "an empty file": (lambda path: path.write_bytes(b""), "the file is empty"),
    "a text": (lambda path: path.write_text("<html>Not found</html>"), "Pillow cannot identify"),
    "16 bits": (lambda path: Image.new("I;16", (12, 12)).save(path, "PNG"), "more than 8 bits a channel"),
}


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_images_are_named_and_not_cached(damage: str, suffix: str, make_folder: MakeFolder, root: Path) -> None:
    act, message = DAMAGE[damage]
    folder = make_folder(side=32, suffix=suffix)
    bad = [folder / f"images/train800_0.{suffix}", folder / f"images/test_3.{suffix}"]
    for path in bad:
        act(path)
    with raises_naming(DataError, "own/pets") as caught:
        build(folder_task(folder), BICUBIC, root)
    assert str(caught.value).count(message) == 2
    assert all(str(path) in str(caught.value) for path in bad)
    assert cached(folder_task(folder), BICUBIC, root) is None
    assert not any(".tmp-" in name or name.startswith("tasks") for name in files(root))


def test_of_many_damaged_images_ten_are_named(make_folder: MakeFolder, root: Path) -> None:
    folder = make_folder()
    for path in (folder / "images").iterdir():
        path.write_bytes(b"")
    with raises_naming(DataError, "perhaps more") as caught:
        build(folder_task(folder), BICUBIC, root)
    assert str(caught.value).count("the file is empty") == 10


def test_truncated_images_are_refused_despite_pillows_flag(
    make_folder: MakeFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(side=32)
    truncate(folder / "images/test_1.png")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with raises_naming(DataError, "LOAD_TRUNCATED_IMAGES"):
        build(folder_task(folder), BICUBIC, root)


def test_a_killed_build_leaves_no_complete_files(make_folder: MakeFolder, root: Path) -> None:
    folder = make_folder(side=100)
    process = builder(folder, root, stop_at=15 + 6 + 4 + 2)  # amid the test images
    assert process.stdout is not None
    assert process.stdout.readline() == "stopped\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert any(".tmp-" in name for name in files(root))
    assert cached(folder_task(folder), BICUBIC, root) is None
    rebuilt = build(folder_task(folder), BICUBIC, root)
    assert not any(".tmp-" in name for name in files(root))
    clean = build(folder_task(folder), BICUBIC, root.with_name("clean"))
    assert (rebuilt.data, pixels(rebuilt)) == (clean.data, pixels(clean))


def test_a_build_keeps_the_files_of_a_running_build(make_folder: MakeFolder, root: Path) -> None:
    folder = make_folder(side=100)
    process = builder(folder, root, stop_at=15 + 6 + 4 + 2)
    assert process.stdout is not None
    process.stdout.readline()
    mine = build(folder_task(folder), BICUBIC, root)
    assert any(".tmp-" in name for name in files(root))
    output, _ = process.communicate("go on")
    assert (process.returncode, output.strip()) == (0, mine.data)
    assert not any(".tmp-" in name for name in files(root))
    assert cached(folder_task(folder), BICUBIC, root) == mine


def test_two_builders_at_once_both_succeed(make_folder: MakeFolder, root: Path) -> None:
    folder = make_folder(side=100)
    both = [builder(folder, root) for _ in range(2)]
    outputs = [process.communicate()[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    found = cached(folder_task(folder), BICUBIC, root)
    assert found is not None
    assert outputs == [found.data] * 2
    assert not any(".tmp-" in name for name in files(root))


def test_leftovers_of_another_machine_go_after_a_day(root: Path) -> None:
    root.mkdir()
    fresh, old = root / ".tmp-far-away-host-1-aa", root / ".tmp-far-away-host-1-bb"
    for path in (fresh, old):
        path.write_text("")
    os.utime(old, (0, 0))
    atomic.remove_temp_files(root)
    assert files(root) == {fresh.name}


def test_too_little_space_is_said_before_anything_is_decoded(
    make_folder: MakeFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: full)
    with raises_naming(DataError, "own/pets (0.0 MB)", root, "0.0 MB are free"):
        build(folder_task(make_folder(side=100)), BICUBIC, root)
    assert not files(root)


def test_a_full_disk_is_named_and_leaves_no_files(
    make_folder: MakeFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    task = folder_task(make_folder(side=100))
    with monkeypatch.context() as full:
        full.setattr(atomic.os, "fsync", fsync)
        with raises_naming(DataError, "No space left on device", "VTAB_PEFT_CACHE"):
            build(task, BICUBIC, root)
    assert not files(root)
    assert cached(task, BICUBIC, root) is None
    assert build(task, BICUBIC, root) == cached(task, BICUBIC, root)


@pytest.mark.parametrize("harm", ["cut", "gone"])
@pytest.mark.parametrize("kind", ["images", "labels", "tasks"])
def test_a_cache_that_lost_something_is_built_again(kind: str, harm: str, make_folder: MakeFolder, root: Path) -> None:
    task = folder_task(make_folder())
    made = build(task, BICUBIC, root)
    for path in [path for path in (root / kind).rglob("*") if path.is_file()]:
        path.unlink() if harm == "gone" else path.write_bytes(path.read_bytes()[:-5])
    assert cached(task, BICUBIC, root) is None
    assert pixels(build(task, BICUBIC, root)) == pixels(made)
    assert cached(task, BICUBIC, root) == made


def test_a_cache_whose_source_is_gone_says_so(make_folder: MakeFolder, root: Path) -> None:
    folder = make_folder()
    task = folder_task(folder)
    build(task, BICUBIC, root)
    shutil.rmtree(folder)
    with raises_naming(DataError, folder):
        cached(task, BICUBIC, root)
