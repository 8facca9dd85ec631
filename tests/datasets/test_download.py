"""Tests of downloads: complete and verified or absent, and resumed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from downloads import BODY, HALF, break_off, left_in
from fileserver import FileServer, Request
from raises import raises_naming
from vtab_peft.datasets import download as module
from vtab_peft.datasets.download import BACKOFF_S, download
from vtab_peft.datasets.known_file import KnownFile
from vtab_peft.datasets.task import DataError

AT_ONCE = (0.0, 0.0)


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


@pytest.mark.parametrize("kind", RIGHT)
def test_the_right_checksum_is_accepted(kind: str, server: FileServer, target: Path) -> None:
    download(server.url("/data.bin"), target, RIGHT[kind], waits=())
    assert target.exists()


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
