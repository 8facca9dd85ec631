"""Interrupted and concurrent builds: full disks, kills, leftovers, and other builders."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import small_kitti
from PIL import Image
from raises import raises_naming
from small_kitti import listing, pixels, source, verdict
from vtab_peft.datasets.raw import atomic_folder as module
from vtab_peft.datasets.raw.build import build
from vtab_peft.datasets.task import DataError

pytestmark = pytest.mark.usefixtures("small_kitti")


def test_a_full_disk_leaves_nothing_and_the_old_task_whole(
    raw: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, write = [], Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) > 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with raises_naming(DataError, "No space left on device"):
            build(source(), raw, data)
    assert listing(data) == []
    build(source(), raw, data)
    written.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with raises_naming(DataError, "No space left"):
            build(source(), raw, data, again=True)
    assert (listing(data), verdict(data, deep=True).state) == (["kitti"], "found")


BUILDER = """
import sys, time
sys.path.insert(0, {support!r})
from pathlib import Path
from small_kitti import make_small, source
from vtab_peft.datasets.raw.build import build
make_small()
def tell(done, of):
    if done == 40:
        print("most is written", flush=True)
        sys.stdin.readline()
build(source(), Path({raw!r}), Path({data!r}), tell)
"""


def builder(raw: Path, data: Path) -> subprocess.Popen:
    """A process that builds kitti, and waits for a line when most of it is written."""
    script = BUILDER.format(support=str(Path(small_kitti.__file__).parent), raw=str(raw), data=str(data))
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "most is written\n"
    return process


def test_a_killed_build_leaves_no_task_and_is_cleaned_up(raw: Path, data: Path) -> None:
    process = builder(raw, data)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = listing(data)
    assert left.startswith(".tmp-")
    assert verdict(data).state == "missing"
    (data / ".tmp-strange").mkdir()  # nobody's: not of this project's making
    build(source(), raw, data)
    assert (listing(data), verdict(data, deep=True).state) == ([".tmp-strange", "kitti"], "found")


class Killed(BaseException):
    """Stands in for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("atomic", [True, False], ids=["exchange", "two renames"])
@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_between_the_renames_leaves_a_task(
    atomic: bool, renames: int, raw: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(source(), raw, data)
    left = iter(range(renames))

    def rename(path: Path, target: Path, rename: Callable = Path.rename) -> Path:
        if next(left, None) is None:
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr(module.shutil, "rmtree", lambda *_, **__: None)
        if not atomic:
            patch.setattr(module, "_exchange", lambda *_: False)
        with suppress(Killed):
            build(source(), raw, data, again=True)
    if atomic:
        assert (data / "kitti").is_dir()
    assert verdict(data, deep=True).state == "found"
    build(source(), raw, data)
    assert [name for name in listing(data) if not name.startswith(".tmp-")] == ["kitti"]


def test_a_build_that_changes_nothing_removes_leftovers(raw: Path, data: Path) -> None:
    build(source(), raw, data)
    process = builder(raw, data.with_name("other"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = data.with_name("other").iterdir()
    left.rename(data / left.name)
    assert not build(source(), raw, data).made
    assert listing(data) == ["kitti"]


def test_leftovers_of_other_machines_go_after_a_day(raw: Path, data: Path) -> None:
    old, new = (data / f".tmp-elsewhere-{number}-{'a' * 32}" for number in (1, 2))
    for folder in (old, new):
        (folder / "images").mkdir(parents=True)
    yesterday = time.time() - 25 * 3600
    for folder in (old / "images", old):
        os.utime(folder, (yesterday, yesterday))
    os.utime(new, (yesterday, yesterday))  # its images folder is still being written to
    build(source(), raw, data)
    assert listing(data) == [new.name, "kitti"]


def test_two_builders_at_once_end_with_one_whole_task(raw: Path, data: Path) -> None:
    processes = [builder(raw, data) for _ in range(2)]
    assert len(listing(data)) == 2  # both are at work
    for process in processes:
        process.communicate("go on\n")
    assert [process.returncode for process in processes] == [0, 0]
    assert (listing(data), verdict(data, deep=True).state) == (["kitti"], "found")


def test_a_builder_that_is_overtaken_leaves_the_others_task(raw: Path, data: Path) -> None:
    def overtake(done: int, of: int) -> None:
        if done == of:
            assert build(source(), raw, data).made

    black = source(lambda *_: np.zeros((2, 2), np.uint8))
    assert build(black, raw, data, overtake).folder == data / "kitti"
    with Image.open(data / "kitti/images/test/000029.png") as picture:
        assert np.array_equal(np.asarray(picture), pixels("test", 29))
    assert listing(data) == ["kitti"]
