"""Tests of downloads: complete and verified or absent, resumed, and refused with advice."""

import errno
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fileserver import FileServer, Request
from raises import raises_naming
from vtab_peft.datasets import download as module
from vtab_peft.datasets.download import BACKOFF_S, download
from vtab_peft.datasets.known_file import KnownFile
from vtab_peft.datasets.task import DataError

BODY = bytes(range(256)) * 1200  # 307,200 bytes: more than sockets hold back
HALF = len(BODY) // 2
AT_ONCE = (0.0, 0.0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "*")
    with FileServer({"/data.bin": BODY}) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "data.bin"


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def break_off(server: FileServer, target: Path, at: int = HALF) -> None:
    """One attempt that ends after `at` bytes."""
    server.cut_after = [at]
    with raises_naming(DataError, f"after {at:,} of "):
        download(server.url("/data.bin"), target, waits=())
    assert left_in(target.parent) == ["data.bin.part", "data.bin.part.json"]


def test_the_whole_file_arrives_and_progress_is_told_in_bytes(server: FileServer, target: Path) -> None:
    told: list[tuple[int, int | None]] = []
    download(server.url("/data.bin"), target, progress=lambda done, total: told.append((done, total)))
    assert target.read_bytes() == BODY
    assert left_in(target.parent) == ["data.bin"]
    assert told[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_after_a_cut_connection_only_the_rest_is_asked_for(server: FileServer, target: Path) -> None:
    server.cut_after = [HALF]
    download(server.url("/data.bin"), target, waits=AT_ONCE)
    assert target.read_bytes() == BODY
    assert [request.range for request in server.requests] == [None, f"bytes={HALF}-"]
    assert server.requests[1].if_range == server.etag


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: FileServer, target: Path) -> None:
    break_off(server, target)
    told: list[int] = []
    download(server.url("/data.bin"), target, progress=lambda done, _total: told.append(done), waits=())
    assert target.read_bytes() == BODY
    assert server.requests[-1].range == f"bytes={HALF}-"
    assert min(told) > HALF
    assert left_in(target.parent) == ["data.bin"]


def test_waits_grow_and_end_in_an_error(server: FileServer, target: Path) -> None:
    waited: list[tuple[float, str]] = []
    server.cut_after = [10] * 10
    server.ranges = False
    with raises_naming(DataError, server.url("/data.bin"), "10 of 307,200 bytes", "4 attempts"):
        download(server.url("/data.bin"), target, waits=(1, 2, 3), wait=lambda *told: waited.append(told))
    why = "the connection was lost after 10 of 307,200 bytes"
    assert waited == [(1, why), (2, why), (3, why)]
    assert sorted(BACKOFF_S) == list(BACKOFF_S)


def test_attempts_that_bring_something_are_not_counted(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP", 1000)
    server.cut_after = [30_000] * 8
    download(server.url("/data.bin"), target, waits=(0,))
    assert target.read_bytes() == BODY
    assert len(server.requests) == 9


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_refusal_is_tried_again(status: int, server: FileServer, target: Path) -> None:
    server.refuse = [status]
    download(server.url("/data.bin"), target, waits=AT_ONCE)
    assert target.read_bytes() == BODY


def test_a_redirected_download_goes_on_as_well(server: FileServer, target: Path) -> None:
    """GitHub and Zenodo send to another address each time."""
    server.moved["/here"] = server.url("/data.bin")
    server.cut_after = [HALF]
    download(server.url("/here"), target, waits=AT_ONCE)
    assert target.read_bytes() == BODY
    assert server.requests[-1] == Request("/data.bin", f"bytes={HALF}-", server.etag, len(BODY) - HALF)


def test_a_server_without_ranges_sends_the_whole_file_again(server: FileServer, target: Path) -> None:
    server.ranges = False
    server.cut_after = [HALF]
    download(server.url("/data.bin"), target, waits=AT_ONCE)
    assert target.read_bytes() == BODY
    assert [request.sent for request in server.requests] == [HALF, len(BODY)]


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("change", ["etag", "modified", "length"])
def test_a_file_that_changed_between_attempts_starts_anew(
    change: str, heeds_if_range: bool, server: FileServer, target: Path
) -> None:
    """Also where the server sends a range of the new file although it was told to do so for the old one only."""
    if change != "etag":
        server.etag = None
    if change == "length":
        server.modified = None
    break_off(server, target)
    new = BODY[::-1] if change != "length" else BODY[::-1] + b"more"
    server.files["/data.bin"] = new
    server.etag = server.etag and '"new"'
    server.modified = server.modified and "Tue, 02 Jan 2024 00:00:00 GMT"
    server.heeds_if_range = heeds_if_range
    download(server.url("/data.bin"), target, waits=AT_ONCE)
    assert target.read_bytes() == new


def test_a_file_that_shrank_below_what_has_come_starts_anew(server: FileServer, target: Path) -> None:
    break_off(server, target)
    server.files["/data.bin"], server.heeds_if_range = b"short", False
    download(server.url("/data.bin"), target, waits=AT_ONCE)
    assert target.read_bytes() == b"short"


def test_a_weak_tag_is_no_condition_for_a_range(server: FileServer, target: Path) -> None:
    server.etag = 'W/"weak"'
    break_off(server, target)
    download(server.url("/data.bin"), target, waits=())
    assert server.requests[-1].if_range == server.modified


def test_a_part_without_version_is_not_resumed(server: FileServer, target: Path) -> None:
    break_off(server, target)
    facts = {"url": server.url("/data.bin"), "etag": None, "modified": None, "length": None}
    target.with_name("data.bin.part.json").write_text(json.dumps(facts))
    download(server.url("/data.bin"), target, waits=())
    assert target.read_bytes() == BODY
    assert server.requests[-1].range is None


@pytest.mark.parametrize("damage", ["none", "not JSON", "{}", '{"url": 1}'])
def test_a_part_of_unknown_descent_is_not_continued(damage: str, server: FileServer, target: Path) -> None:
    break_off(server, target)
    record = target.with_name("data.bin.part.json")
    record.unlink() if damage == "none" else record.write_text(damage)
    download(server.url("/data.bin"), target, waits=())
    assert target.read_bytes() == BODY
    assert server.requests[-1].range is None


def test_a_part_of_another_address_is_not_continued(server: FileServer, target: Path) -> None:
    break_off(server, target)
    server.files["/mirror/data.bin"] = BODY
    download(server.url("/mirror/data.bin"), target, waits=())
    assert server.requests[-1].range is None


RIGHT = {
    "SHA256": KnownFile(len(BODY), hashlib.sha256(BODY).hexdigest()),
    "MD5": KnownFile(md5=hashlib.md5(BODY).hexdigest()),
}
WRONG = {"SHA256": KnownFile(sha256="0" * 64, md5=RIGHT["MD5"].md5), "MD5": KnownFile(md5="0" * 32)}


@pytest.mark.parametrize("kind", RIGHT)
def test_the_right_checksum_is_accepted(kind: str, server: FileServer, target: Path) -> None:
    download(server.url("/data.bin"), target, RIGHT[kind], waits=())
    assert target.exists()


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_checksum_leaves_nothing(kind: str, server: FileServer, target: Path) -> None:
    with raises_naming(DataError, server.url("/data.bin"), kind, WRONG[kind].sha256 or WRONG[kind].md5):
        download(server.url("/data.bin"), target, WRONG[kind], waits=())
    assert left_in(target.parent) == []


def test_a_wrong_length_is_refused_before_the_download(server: FileServer, target: Path) -> None:
    with raises_naming(DataError, server.url("/data.bin"), "307,200 bytes", "instead of 5"):
        download(server.url("/data.bin"), target, KnownFile(size=5), waits=())
    assert left_in(target.parent) == []


def test_a_missing_file_is_reported_at_once(server: FileServer, target: Path) -> None:
    with raises_naming(DataError, server.url("/nothing"), "404"):
        download(server.url("/nothing"), target, waits=(9, 9))
    assert len(server.requests) == 1
    assert left_in(target.parent) == []


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_refused_and_the_part_kept(kind: str, server: FileServer, target: Path) -> None:
    """Quota and login pages come with status 200, some of them as if they were data."""
    break_off(server, target)
    server.files["/data.bin"] = b"\n <!DOCTYPE html><html>Please log in</html>"
    server.content_type, server.etag = kind, '"page"'
    with raises_naming(DataError, server.url("/data.bin"), "web page", target):
        download(server.url("/data.bin"), target, waits=())
    assert target.with_name("data.bin.part").read_bytes() == BODY[:HALF]


def test_markup_in_the_middle_of_a_file_is_no_web_page(server: FileServer, target: Path) -> None:
    server.files["/data.bin"] = body = BODY[:HALF] + b"<html>" + BODY
    break_off(server, target)
    download(server.url("/data.bin"), target, waits=())
    assert target.read_bytes() == body


def test_a_disk_that_takes_little_at_a_time_gets_everything(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:1000]))
    download(server.url("/data.bin"), target, waits=())
    assert target.read_bytes() == BODY


def test_nobody_there_is_tried_again_and_then_reported(server: FileServer, target: Path) -> None:
    url = server.url("/data.bin")
    server.close()
    with raises_naming(DataError, "refused", "3 attempts"):
        download(url, target, waits=AT_ONCE)


def test_a_full_disk_keeps_what_came_and_says_how_much(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes the first 100,000 bytes, half of a write as disks do, and then no more."""
    real, room = os.write, 100_000

    def write(file: int, data: bytes | memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(file, data[:room])
        room -= written
        return written

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        with raises_naming(DataError, "no space", target, "100,000 bytes"):
            download(server.url("/data.bin"), target, waits=())
    download(server.url("/data.bin"), target, waits=())
    assert target.read_bytes() == BODY
    assert server.requests[-1].range == "bytes=100000-"


def test_too_little_room_is_seen_before_the_first_byte(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = module.shutil.disk_usage(target.parents[1])._replace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with raises_naming(DataError, target, "307,200", "1,000"):
        download(server.url("/data.bin"), target, waits=())
    assert left_in(target.parent) == []


def test_a_folder_that_cannot_be_made_is_named(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("a file")
    with raises_naming(DataError, tmp_path / "raw/data.bin"):
        download(server.url("/data.bin"), tmp_path / "raw" / "data.bin", waits=())


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_an_unwritable_folder_is_named(server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    target.parent.chmod(0o500)
    with raises_naming(DataError, "Permission denied"):
        download(server.url("/data.bin"), target, waits=())


def test_two_processes_do_not_write_one_file(server: FileServer, target: Path) -> None:
    break_off(server, target)
    with target.with_name("data.bin.part").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with raises_naming(DataError, "another process", target):
            download(server.url("/data.bin"), target, waits=())
    assert target.with_name("data.bin.part").read_bytes() == BODY[:HALF]


def test_a_killed_download_goes_on(server: FileServer, target: Path) -> None:
    server.pause_after = HALF
    code = "import sys; from pathlib import Path; from vtab_peft.datasets.download import download as d; "
    code += "d(sys.argv[1], Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", code, server.url("/data.bin"), str(target)])
    part = target.with_name("data.bin.part")
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size == HALF) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    assert part.stat().st_size == HALF
    server.pause_after = None
    download(server.url("/data.bin"), target, RIGHT["SHA256"], waits=())
    assert target.read_bytes() == BODY
    assert server.requests[-1].range == f"bytes={HALF}-"
