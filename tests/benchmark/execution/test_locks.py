"""Locks of runs: one command holds a run, and another may take it over once the holder is gone."""

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from vtab_peft.benchmark.execution.locks import EXPIRES_SECONDS, RunLocks, list_locks
from vtab_peft.benchmark.storage.json_io import StoreError
from vtab_peft.datasets import atomic_io
from vtab_peft.datasets.atomic_io import host

RUN_ID = "0123456789abcdef"


def foreign_lock(folder: Path, *, host: str, process: int, age: float = 0.0) -> Path:
    """Write the lock of another process, touched `age` seconds ago."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{RUN_ID}.json"
    path.write_text(json.dumps({"cell": "svhn · lora", "host": host, "process": process, "started": time.time() - age}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_run_has_one_holder_until_release(tmp_path: Path) -> None:
    first, second = RunLocks(tmp_path / "claims"), RunLocks(tmp_path / "claims")
    assert first.acquire(RUN_ID, "svhn · lora")
    assert not second.acquire(RUN_ID, "svhn · lora")
    assert str(second.holder(RUN_ID)) == f"process {os.getpid()} on {host()}"
    first.release(RUN_ID)
    assert second.acquire(RUN_ID, "svhn · lora")


def test_close_leaves_no_file(tmp_path: Path) -> None:
    locks = RunLocks(tmp_path / "claims")
    for run_id in (RUN_ID, RUN_ID[::-1]):
        assert locks.acquire(run_id, "svhn · lora")
    locks.close()
    assert not list(tmp_path.iterdir())


def test_close_removes_abandoned_locks(tmp_path: Path) -> None:
    """The run of such a lock may be stored, so that no command would ever acquire it."""
    foreign_lock(tmp_path / "claims", host="elsewhere", process=1, age=EXPIRES_SECONDS + 30)
    RunLocks(tmp_path / "claims").close()
    assert not list(tmp_path.iterdir())


def test_close_keeps_locks_of_live_processes(tmp_path: Path) -> None:
    path = foreign_lock(tmp_path / "claims", host="elsewhere", process=1)
    RunLocks(tmp_path / "claims").close()
    assert [*(tmp_path / "claims").iterdir()] == [path]


def test_locks_can_be_acquired_after_close(tmp_path: Path) -> None:
    locks = RunLocks(tmp_path / "claims")
    assert locks.acquire(RUN_ID, "svhn · lora")
    locks.close()
    assert locks.acquire(RUN_ID, "svhn · lora")


def test_a_lock_of_a_dead_process_is_taken_over_at_once(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    foreign_lock(tmp_path, host=host(), process=dead.pid)
    assert RunLocks(tmp_path).acquire(RUN_ID, "svhn · lora")


def test_a_container_with_the_same_host_name_is_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process numbers mean other processes, or none, here."""
    (tmp_path / "namespace").touch()
    there = RunLocks(tmp_path / "claims")
    with monkeypatch.context() as inside:
        inside.setattr(atomic_io, "NAMESPACE", tmp_path / "namespace")
        inside.setattr(os, "getpid", lambda: 10**9)
        assert there.acquire(RUN_ID, "svhn · lora")
    assert not RunLocks(tmp_path / "claims").acquire(RUN_ID, "svhn · lora")
    os.utime(tmp_path / "claims" / f"{RUN_ID}.json", (time.time() - EXPIRES_SECONDS - 30,) * 2)
    assert RunLocks(tmp_path / "claims").acquire(RUN_ID, "svhn · lora")


@pytest.mark.parametrize(
    ("age", "taken"),
    [(0.0, False), (EXPIRES_SECONDS - 30, False), (EXPIRES_SECONDS + 30, True), (-60.0, False), (-1e8, True)],
    ids=["fresh", "old", "expired", "clocks that differ", "from before the clock was set back"],
)
def test_a_lock_of_another_machine_expires(tmp_path: Path, age: float, taken: bool) -> None:
    foreign_lock(tmp_path, host="elsewhere", process=1, age=age)
    assert RunLocks(tmp_path).acquire(RUN_ID, "svhn · lora") is taken
    assert len(list(tmp_path.iterdir())) == 1, "no temporary file is left"


def test_release_keeps_the_lock_of_a_successor(tmp_path: Path) -> None:
    slow, quick = RunLocks(tmp_path), RunLocks(tmp_path)
    assert slow.acquire(RUN_ID, "svhn · lora")
    (tmp_path / f"{RUN_ID}.json").unlink()
    assert quick.acquire(RUN_ID, "svhn · lora")
    slow.release(RUN_ID)
    assert (tmp_path / f"{RUN_ID}.json").exists()


def test_unreadable_locks_hold_until_they_expire(tmp_path: Path) -> None:
    path = tmp_path / f"{RUN_ID}.json"
    path.write_bytes(b"")  # as another writer may leave it for a moment
    assert not RunLocks(tmp_path).acquire(RUN_ID, "svhn · lora")
    os.utime(path, (0, 0))
    assert RunLocks(tmp_path).acquire(RUN_ID, "svhn · lora")


@pytest.mark.parametrize(
    "text",
    [
        '{"cell": "x", "host": "h", "process": "12", "started": 0.0}',
        '{"cell": "x", "host": "h", "process": -1, "started": 0.0}',
        '{"cell": "x", "host": "h", "process": 1, "started": 1e400}',
        "[" * 100_000,
        None,
    ],
)
def test_damaged_locks_are_named_and_others_read(text: str | None, tmp_path: Path) -> None:
    foreign_lock(tmp_path, host="elsewhere", process=7)
    path = tmp_path / f"{'a' * 16}.json"
    path.write_text(text) if text is not None else os.mkfifo(path)
    locks, (problem,) = list_locks(tmp_path)
    assert [lock.process for _, lock, _ in locks] == [7]
    assert str(path) in problem


def test_locks_are_listed_with_their_holders(tmp_path: Path) -> None:
    foreign_lock(tmp_path, host="elsewhere", process=7, age=2 * EXPIRES_SECONDS)
    ((run_id, lock, abandoned),), problems = list_locks(tmp_path)
    assert problems == []
    assert (run_id, lock.run, lock.host, lock.process, abandoned) == (RUN_ID, "svhn · lora", "elsewhere", 7, True)


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_wrong_clock_abandons_no_live_lock(minutes: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign_lock(tmp_path, host="elsewhere", process=1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 60 * minutes)
    assert [abandoned for _, _, abandoned in list_locks(tmp_path)[0]] == [False]
    assert not RunLocks(tmp_path).acquire(RUN_ID, "svhn · lora")


def test_locks_in_a_read_only_folder_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign_lock(tmp_path, host="elsewhere", process=1)
    before = tmp_path.stat().st_mtime_ns

    def refused(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    assert [abandoned for _, _, abandoned in list_locks(tmp_path)[0]] == [False]
    assert tmp_path.stat().st_mtime_ns == before


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("")
    with pytest.raises(StoreError) as raised:
        RunLocks(tmp_path / "claims").acquire(RUN_ID, "svhn · lora")
    assert str(tmp_path / "claims") in str(raised.value)
