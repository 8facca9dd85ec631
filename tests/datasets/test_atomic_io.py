"""Tests of atomic writes: complete or absent after power failures, on full disks, at any clock time."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vtab_peft.datasets import atomic_io as atomic
from vtab_peft.datasets.atomic_io import atomic_write, create, host, is_abandoned, make_folder, temporary_name


def replace(path: Path, data: bytes) -> None:
    with atomic_write(path) as file:
        file.write(data)


Log = list[tuple[str, str]]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    """What the disk is told, in order: ("sync" or "name", path); a temporary file is called `new`."""
    events: Log = []
    fsync, link, rename = os.fsync, os.link, Path.replace

    def shown(path: Any) -> str:
        found = Path(path)
        name = "new" if found.name.startswith(atomic.PREFIX) else found.name
        return str((found.parent / name).relative_to(tmp_path))

    def logged_fsync(number: int) -> None:
        events.append(("sync", shown(Path(f"/proc/self/fd/{number}").readlink())))
        fsync(number)

    def logged_link(source: Any, target: Any) -> None:
        events.append(("name", shown(target)))
        link(source, target)

    def logged_rename(source: Path, target: Any) -> Path:
        events.append(("name", shown(target)))
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "link", logged_link)
    monkeypatch.setattr(Path, "replace", logged_rename)
    return events


@pytest.mark.parametrize("write", [replace, create])
def test_content_is_synced_before_the_rename(write: Callable[[Path, bytes], Any], tmp_path: Path, log: Log) -> None:
    write(tmp_path / "a/b/x.json", b"{}")
    assert log == [("sync", "."), ("sync", "a"), ("sync", "a/b/new"), ("name", "a/b/x.json"), ("sync", "a/b")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("write", [replace, create])
def test_a_failing_step_leaves_the_old_or_the_new_file(
    write: Callable[[Path, bytes], Any], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def failing(real: Callable[..., Any], at: int) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == at:
                raise OSError(code, os.strerror(code))
            return real(*arguments, **named)

        return step

    fails = 0
    for at in range(1, 10):
        target, steps = tmp_path / f"{at}/x.json", 0
        make_folder(target.parent)
        if write is replace:
            target.write_bytes(b"old")
        with monkeypatch.context() as broken:
            for holder, name in ((Path, "open"), (os, "fsync"), (os, "link"), (Path, "replace"), (os, "open")):
                broken.setattr(holder, name, failing(getattr(holder, name), at))
            try:
                write(target, b"new")
            except OSError as error:
                fails += error.errno == code
        left = {path.name: path.read_bytes() for path in target.parent.iterdir()}
        assert set(left) <= {"x.json"}, left
        assert left.get("x.json", b"old") in (b"old", b"new")
    assert fails >= 4


def test_files_are_written_without_folder_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def files_only(number: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{number}"):  # noqa: PTH112
            raise OSError(errno.EINVAL, "Invalid argument")
        real(number)

    monkeypatch.setattr(os, "fsync", files_only)
    assert create(tmp_path / "a/x", b"1")
    replace(tmp_path / "a/x", b"2")
    assert (tmp_path / "a/x").read_bytes() == b"2"


@pytest.mark.parametrize("jump", [-10 * 365 * 24 * 3600, 10 * 365 * 24 * 3600])
def test_a_clock_jump_does_not_remove_live_files(jump: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with atomic_write(tmp_path / "x") as file:
        file.write(b"1")
        monkeypatch.setattr(time, "time", lambda: now + jump)
        atomic.remove_temp_files(tmp_path)
    assert (tmp_path / "x").read_bytes() == b"1"


def test_temp_files_from_the_future_are_abandoned() -> None:
    mine = f"{atomic.PREFIX}{host()}-{os.getpid()}-aa"
    assert not is_abandoned(mine, 0.0)
    assert not is_abandoned(f"{atomic.PREFIX}far-7-aa", time.time() + 60)
    assert is_abandoned(f"{atomic.PREFIX}far-7-aa", time.time() + 2 * atomic.DAY)


@pytest.mark.parametrize("name", [".tmp-", ".tmp-mine", ".tmp-a-b", ".tmp-a-b-c", ".tmp---"])
def test_a_name_that_no_writer_gives_is_left_for_a_day(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("mine")
    atomic.remove_temp_files(tmp_path)
    assert path.exists()
    os.utime(path, (0, 0))
    atomic.remove_temp_files(tmp_path)
    assert not path.exists()


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="needs PID namespaces")
def test_names_tell_the_machine_and_its_pid_namespace() -> None:
    namespace = os.readlink("/proc/self/ns/pid").removeprefix("pid:[").removesuffix("]")  # noqa: PTH115
    assert temporary_name().startswith(f".tmp-{os.uname().nodename}-{namespace}-{os.getpid()}-")


def test_where_there_are_no_namespaces_the_machine_is_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "NAMESPACE", tmp_path / "none")
    assert host() == os.uname().nodename
    assert not is_abandoned(temporary_name(), 0.0)


def test_temp_files_of_other_containers_go_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes have numbers of their own; most of them are nobody's here."""
    (tmp_path / "namespace").touch()
    with monkeypatch.context() as there:
        there.setattr(atomic, "NAMESPACE", tmp_path / "namespace")
        there.setattr(os, "getpid", lambda: 10**9)
        name = temporary_name()
    assert not is_abandoned(name, time.time() - 3600)
    assert is_abandoned(name, time.time() - 2 * atomic.DAY)
    monkeypatch.setattr(atomic, "NAMESPACE", tmp_path / "namespace")
    assert is_abandoned(name, time.time()), "its neighbours there can tell at once"


def test_a_process_number_that_there_cannot_be_is_nobody() -> None:
    assert is_abandoned(f"{atomic.PREFIX}{host()}-{10**30}-aa", time.time())
