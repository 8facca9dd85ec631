"""Downloads that are refused: wrong files, web pages, full disks and folders."""

import errno
import fcntl
import hashlib
import os
from pathlib import Path

import pytest
from downloads import BODY, HALF, break_off, left_in
from fileserver import FileServer
from raises import raises_naming
from vtab_peft.datasets import download as module
from vtab_peft.datasets.download import download
from vtab_peft.datasets.known_file import KnownFile
from vtab_peft.datasets.task import DataError

WRONG = {"SHA256": KnownFile(sha256="0" * 64, md5=hashlib.md5(BODY).hexdigest()), "MD5": KnownFile(md5="0" * 32)}


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
