"""Tests of downloads from servers that never end, are too slow, or redirect to other protocols."""

import itertools
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hostile_archives import OK, serve, trickle
from vtab_peft.datasets import download as module
from vtab_peft.datasets import web
from vtab_peft.datasets.download import download
from vtab_peft.datasets.known_file import KnownFile
from vtab_peft.datasets.task import DataError


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@contextmanager
def serving(answer: Callable[[], Iterable[bytes]]) -> Iterator[str]:
    """Yield the host of a server that answers each request with the given pieces."""
    listener = serve(answer)
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize("known", [KnownFile(3_000_000), KnownFile()], ids=["known size", "unknown size"])
def test_an_endless_answer_ends_at_the_limit(known: KnownFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_FILE", 5_000_000)
    received: list[int] = []
    endless = itertools.repeat(bytes(100_000))
    with serving(lambda: itertools.chain([OK + b"\r\n"], endless)) as host, pytest.raises(DataError) as caught:
        download(f"http://{host}/x", tmp_path / "x", known, lambda done, _: received.append(done), waits=())
    assert f"{known.size or 5_000_000:,}" in str(caught.value)
    assert max(received) <= 5_000_000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "start",
    [OK + b"\r\n", OK + b"X-Padding: ", OK + b"Transfer-Encoding: chunked\r\n\r\n", b"HT"],
    ids=["body", "headers", "chunks", "status"],
)
def test_a_trickle_ends(start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT_S", 0.5)
    begun = time.monotonic()
    with serving(lambda: trickle(start)) as host, pytest.raises(DataError):
        download(f"http://{host}/x", tmp_path / "x", waits=(0.0,))
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize(
    "location",
    ["ftp://127.0.0.1/x", "file:///etc/passwd", "data:,x", "http://[/x", "http://127.0.0.1:99999/x", "http://a..b/x"],
)
def test_redirects_to_elsewhere_are_refused(location: str, tmp_path: Path) -> None:
    answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    with serving(lambda: [answer]) as host, pytest.raises(DataError) as caught:
        download(f"http://{host}/x", tmp_path / "x", waits=(0.0,))
    assert host in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_short_answer_of_unstated_length_is_a_lost_connection(tmp_path: Path) -> None:
    bodies = [bytes(400), bytes(1000)]
    with serving(lambda: [OK + b"\r\n", bodies.pop(0)]) as host:
        download(f"http://{host}/x.bin", tmp_path / "x.bin", KnownFile(1000), waits=(0,))
    assert (tmp_path / "x.bin").stat().st_size == 1000


@pytest.mark.parametrize("url", ["ftp://example.org/x", "file:///etc/passwd", "x"])
def test_other_protocols_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        download(url, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_no_step_down_from_https() -> None:
    with pytest.raises(DataError):
        web._require_web("http://example.org/x", "https://example.org/x")
    web._require_web("https://example.org/x", "http://example.org/x")


@pytest.mark.parametrize("length", ["9" * 5000, "-5", "1e3", "5, 6", str(1 << 50), "0x10"])
@pytest.mark.parametrize("name", ["Content-Length", "Content-Range"])
def test_impossible_lengths_are_refused(name: str, length: str, tmp_path: Path) -> None:
    value = f"bytes 0-4/{length}" if name == "Content-Range" else length
    answer = OK + f"{name}: {value}\r\n\r\nhello".encode()
    with serving(lambda: [answer]) as host, pytest.raises(DataError):
        download(f"http://{host}/x", tmp_path / "x", waits=())
    assert not list(tmp_path.iterdir())


def test_a_partial_record_with_wrong_types_is_ignored(tmp_path: Path) -> None:
    with serving(lambda: [OK + b"Content-Length: 5\r\n\r\nhello"]) as host:
        for record in (
            '{"url": 5}',
            "[]",
            "[" * 10_000,
            f'{{"url": "http://{host}/x", "etag": 5, "modified": [], "length": "5"}}',
        ):
            (tmp_path / "x.part").write_bytes(b"hel")
            (tmp_path / "x.part.json").write_text(record)
            download(f"http://{host}/x", tmp_path / "x")
            assert (tmp_path / "x").read_bytes() == b"hello"
