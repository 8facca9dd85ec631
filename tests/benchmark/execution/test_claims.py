"""Several commands on one results folder: a cell belongs to one of them, and to nobody once that one is gone."""

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from vtab_peft.benchmark.execution.locks import EXPIRES_SECONDS, Claims, current
from vtab_peft.benchmark.storage.json_io import StoreError
from vtab_peft.datasets import atomic_io as atomic
from vtab_peft.datasets.atomic_io import host

KEY = "0123456789abcdef"


def left_by(folder: Path, *, host: str, process: int, age: float = 0.0) -> Path:
    """A claim that somebody else made and last touched `age` seconds ago."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{KEY}.json"
    path.write_text(json.dumps({"cell": "svhn · lora", "host": host, "process": process, "started": time.time() - age}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_cell_has_one_holder_until_it_is_released(tmp_path: Path) -> None:
    first, second = Claims(tmp_path / "claims"), Claims(tmp_path / "claims")
    assert first.take(KEY, "svhn · lora")
    assert not second.take(KEY, "svhn · lora")
    assert str(second.holder(KEY)) == f"process {os.getpid()} on {host()}"
    first.release(KEY)
    assert second.take(KEY, "svhn · lora")


def test_nothing_is_left_once_all_is_given_back(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims")
    for key in (KEY, KEY[::-1]):
        assert claims.take(key, "svhn · lora")
    claims.close()
    assert not list(tmp_path.iterdir())


def test_who_leaves_takes_along_what_the_dead_have_left(tmp_path: Path) -> None:
    """The cell of such a claim may be stored, so that nobody would ever take it over."""
    left_by(tmp_path / "claims", host="elsewhere", process=1, age=EXPIRES_SECONDS + 30)
    Claims(tmp_path / "claims").close()
    assert not list(tmp_path.iterdir())


def test_who_leaves_does_not_touch_the_claims_of_the_living(tmp_path: Path) -> None:
    path = left_by(tmp_path / "claims", host="elsewhere", process=1)
    Claims(tmp_path / "claims").close()
    assert [*(tmp_path / "claims").iterdir()] == [path]


def test_a_claim_outlives_its_folder_being_removed_by_who_leaves(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "claims")
    assert claims.take(KEY, "svhn · lora")
    claims.close()
    assert claims.take(KEY, "svhn · lora")


def test_the_claim_of_a_dead_process_is_taken_over_at_once(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left_by(tmp_path, host=host(), process=dead.pid)
    assert Claims(tmp_path).take(KEY, "svhn · lora")


def test_the_claim_of_another_container_of_the_same_name_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes have numbers of their own; most of them are nobody's here."""
    (tmp_path / "namespace").touch()
    there = Claims(tmp_path / "claims")
    with monkeypatch.context() as inside:
        inside.setattr(atomic, "NAMESPACE", tmp_path / "namespace")
        inside.setattr(os, "getpid", lambda: 10**9)
        assert there.take(KEY, "svhn · lora")
    assert not Claims(tmp_path / "claims").take(KEY, "svhn · lora")
    os.utime(tmp_path / "claims" / f"{KEY}.json", (time.time() - EXPIRES_SECONDS - 30,) * 2)
    assert Claims(tmp_path / "claims").take(KEY, "svhn · lora")


@pytest.mark.parametrize(
    ("age", "taken"),
    [(0.0, False), (EXPIRES_SECONDS - 30, False), (EXPIRES_SECONDS + 30, True), (-60.0, False), (-1e8, True)],
    ids=["fresh", "old", "expired", "clocks that differ", "from before the clock was set back"],
)
def test_a_claim_of_another_machine_expires(tmp_path: Path, age: float, taken: bool) -> None:
    left_by(tmp_path, host="elsewhere", process=1, age=age)
    assert Claims(tmp_path).take(KEY, "svhn · lora") is taken
    assert len(list(tmp_path.iterdir())) == 1, "nothing lies beside it"


def test_who_lost_a_claim_does_not_remove_that_of_its_successor(tmp_path: Path) -> None:
    slow, quick = Claims(tmp_path), Claims(tmp_path)
    assert slow.take(KEY, "svhn · lora")
    (tmp_path / f"{KEY}.json").unlink()
    assert quick.take(KEY, "svhn · lora")
    slow.release(KEY)
    assert (tmp_path / f"{KEY}.json").exists()


def test_claims_that_cannot_be_read_are_respected_until_they_expire(tmp_path: Path) -> None:
    path = tmp_path / f"{KEY}.json"
    path.write_bytes(b"")  # as it is in the instant before it is written
    assert not Claims(tmp_path).take(KEY, "svhn · lora")
    os.utime(path, (0, 0))
    assert Claims(tmp_path).take(KEY, "svhn · lora")


def test_current_claims_are_listed_with_who_stands_behind_them(tmp_path: Path) -> None:
    left_by(tmp_path, host="elsewhere", process=7, age=2 * EXPIRES_SECONDS)
    ((key, claim, abandoned),) = current(tmp_path)
    assert (key, claim.cell, claim.host, claim.process, abandoned) == (KEY, "svhn · lora", "elsewhere", 7, True)


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_clock_that_differs_from_the_file_systems_makes_no_living_claim_abandoned(
    minutes: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by(tmp_path, host="elsewhere", process=1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 60 * minutes)
    assert [abandoned for _, _, abandoned in current(tmp_path)] == [False]
    assert not Claims(tmp_path).take(KEY, "svhn · lora")


def test_claims_in_a_folder_where_one_may_only_look_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by(tmp_path, host="elsewhere", process=1)
    left = tmp_path.stat().st_mtime_ns

    def refused(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    assert [abandoned for _, _, abandoned in current(tmp_path)] == [False]
    assert tmp_path.stat().st_mtime_ns == left


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*claims"):
        Claims(tmp_path / "claims").take(KEY, "svhn · lora")
