"""Fault campaign: extract hostile archives and download from hostile servers, 100 in all.

    python perf/hostile_archives.py

Each archive or server must be refused with a `DataError`, or give exactly what it holds, within `LIMIT_S`.  Nothing may
be written outside the folder, and memory and disk are bounded.  Writes perf/results/hostile_archives.json.
"""

import bz2
import gzip
import io
import itertools
import lzma
import random
import socket
import stat
import sys
import tarfile
import tempfile
import threading
import time
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from measured import save
from vtab_peft.datasets import download as downloads
from vtab_peft.datasets import web
from vtab_peft.datasets.download import download
from vtab_peft.datasets.extract import extract
from vtab_peft.datasets.known_file import KnownFile
from vtab_peft.datasets.task import DataError

LIMIT_S = 120.0
"""Seconds within which each must end on a busy machine (our choice)."""
LARGEST_MEMORY = 64 << 20
"""Bytes of memory that Python may allocate for one (our choice)."""
LARGEST_DISK = 4 << 20
"""Bytes that an archive may extract to in this campaign; the suite's own limit is at least 1 GiB."""
SENT = 3 << 20
"""Largest download of unknown size in this campaign; the suite's own limit is 64 GiB."""
NAMES = {
    "up": "../x.png",
    "up inside": "images/../../x.png",
    "absolute": "/tmp/vtab-peft-hostile.png",
    "zero byte": "x\0.png",
    "long": "a" * 5000,
    "deep": "a/" * 2000 + "x",
    "empty": "",
    "point": ".",
    "twice": "x.png",
    "control characters": "\x1b]0;x\x07.png",
    "not UTF-8": "caf\udce9.png",
    "backslashes": "..\\..\\x.png",
    "end in a slash": "x.png/",
}
OK = b"HTTP/1.1 200 OK\r\n"


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar archive of the given members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as tar:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """Return a tar entry."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_of(*members: tuple[str, bytes], mode: int = 0) -> bytes:
    """Return a zip archive of the given members, with the type of their files if a mode is given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr, info.compress_type = name, mode << 16, zipfile.ZIP_DEFLATED
            file.writestr(info, data)
    return buffer.getvalue()


def archives(rng: random.Random) -> Iterator[tuple[str, str, bytes]]:
    """Yield a label, the file name and the bytes of each archive."""
    for label, name in NAMES.items():
        twice = 2 if label == "twice" else 1
        with suppress(UnicodeEncodeError, ValueError):  # a name that the format cannot hold
            yield f"tar: name {label}", "x.tar", tar_of(*[(member(name), b"x")] * twice)
        with suppress(UnicodeEncodeError, ValueError):
            yield f"zip: name {label}", "x.zip", zip_of(*[(name, b"x")] * twice)
    targets = ("../../etc/passwd", "/etc/passwd", "loop", "missing")
    for kind, target in itertools.product((tarfile.SYMTYPE, tarfile.LNKTYPE), targets):
        yield f"tar: link of type {kind!r} to {target}", "x.tar", tar_of((member("loop", kind, target), b""))
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"):
        yield f"tar: entry of type {kind!r}", "x.tar", tar_of((member("x", kind), b""))
    for mode in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR):
        yield f"zip: mode {mode:o}", "x.zip", zip_of(("x", b"/etc/passwd"), mode=mode | 0o777)
    plain = tar_of(*((member(f"images/{i}.png"), rng.randbytes(500)) for i in range(20)))
    zeros = bytes(50 << 20)
    yield "tar.gz: bomb", "x.tar.gz", gzip.compress(tar_of((member("x"), zeros)))
    yield "tar.xz: bomb", "x.tar.xz", lzma.compress(tar_of((member("x"), zeros)), preset=0)
    yield "zip: bomb", "x.zip", zip_of(("x", zeros))
    yield "gz: bomb", "x.h5.gz", gzip.compress(zeros)
    yield "tar: 20,000 empty files", "x.tar", tar_of(*((member(f"{i}"), b"") for i in range(20_000)))
    info = member("x")
    info.pax_headers = {"comment": "x" * (3 << 20)}
    yield "tar: pax header of 3 MB", "x.tar", tar_of((info, b""))
    yield "tar: GNU name of 3 MB", "x.tar", tar_of((member("x" * (3 << 20)), b""), form=tarfile.GNU_FORMAT)
    for pack, suffix in ((gzip.compress, "gz"), (bz2.compress, "bz2"), (lzma.compress, "xz")):
        packed = pack(plain)
        yield f"tar.{suffix}: cut", f"x.tar.{suffix}", packed[: len(packed) // 2]
        yield f"tar.{suffix}: wrong bytes", f"x.tar.{suffix}", packed[:40] + rng.randbytes(200) + packed[240:]
    zipped = bytearray(zip_of(*((f"{i}.png", rng.randbytes(300)) for i in range(20))))
    yield "zip: cut", "x.zip", bytes(zipped[: len(zipped) // 2])
    yield "zip: nothing in front of its directory", "x.zip", bytes(zipped[-22:])
    for number in range(10):
        for place in rng.sample(range(len(zipped)), 5):
            zipped[place] ^= rng.randrange(1, 256)
        yield f"zip: bytes changed, {number}", "x.zip", bytes(zipped)
    for name in ("x.zip", "x.tar", "x.tar.gz", "x.gz"):
        yield f"{name}: empty file", name, b""
        yield f"{name}: noise", name, rng.randbytes(4000)


def trickle(first: bytes) -> Iterator[bytes]:
    """Yield the beginning of an answer, then one byte now and then."""
    yield first
    for _ in range(200):
        time.sleep(0.05)
        yield b"x"


def endless(first: bytes, piece: bytes = bytes(100_000)) -> Iterator[bytes]:
    """Yield the beginning of an answer, then more without end."""
    return itertools.chain([first], itertools.repeat(piece))


def answer(text: str) -> Callable[[], Iterable[bytes]]:
    """Return an answer that is one piece of text."""
    return lambda: [text.encode()]


def servers() -> dict[str, Callable[[], Iterable[bytes]]]:
    """Return the answers of the servers by label."""
    lengths = ["9" * 5000, "-5", "x", "0x10", "1e9", "5, 6", str(2**63)]
    redirects = ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://[", "http://127.0.0.1:99999/x", "x" * 50_000, ""]
    statuses = ["200", "99999", "-1", "abc", "304 Not Modified", "206 Partial Content", "401 Denied", "500 Broken"]
    return {
        **{f"length {text[:20]}": answer(f"HTTP/1.1 200 OK\r\nContent-Length: {text}\r\n\r\nabc") for text in lengths},
        **{f"redirect to {to[:30]}": answer(f"HTTP/1.1 302 x\r\nLocation: {to}\r\n\r\n") for to in redirects},
        **{f"status {text}": answer(f"HTTP/1.1 {text}\r\n\r\nabc") for text in statuses},
        "body without end": lambda: endless(OK + b"\r\n"),
        "headers without end": lambda: endless(OK, b"X-Padding: " + b"x" * 1000 + b"\r\n"),
        "one header without end": lambda: endless(OK + b"X: ", b"x" * 1000),
        "chunks without end": lambda: endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n"),
        "chunk of negative size": lambda: [OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc"],
        "chunk of huge size": lambda: [OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 300 + b"\r\nabc"],
        "slow body": lambda: trickle(OK + b"\r\n"),
        "slow headers": lambda: trickle(OK + b"X: "),
        "slow status": lambda: trickle(b"HT"),
        "nothing": lambda: [],
        "noise": lambda: [bytes(range(256)) * 20],
        "web page": lambda: [OK + b"Content-Type: text/html\r\n\r\n<html>log in</html>"],
        "range that was not asked": lambda: [b"HTTP/1.1 206 x\r\nContent-Range: bytes 5-9/10\r\n\r\nabcde"],
    }


def serve(pieces: Callable[[], Iterable[bytes]]) -> socket.socket:
    """Answer each request on a new port with the given pieces, until the socket is closed."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), connection:
                connection.recv(65536)
                for piece in pieces():
                    connection.sendall(piece)

    threading.Thread(target=accept, daemon=True).start()
    return listener


def outcome(label: str, act: Callable[[Path], object]) -> dict[str, Any]:
    """Call `act` with a new folder; return how it ended, and its problems."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "around" / "inside"
        folder.mkdir(parents=True)
        tracemalloc.start()
        began, problems, ended = time.monotonic(), [], "accepted"
        try:
            act(folder)
        except DataError as error:
            ended = "refused"
            if len(str(error)) > 10_000:
                problems.append(f"a message of {len(str(error)):,} characters")
        except BaseException as error:
            ended = "raised"
            problems.append(f"{type(error).__name__}: {error}"[:300])
        seconds, memory = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if seconds > LIMIT_S:
            problems.append(f"took {seconds:.0f} s")
        if memory > LARGEST_MEMORY:
            problems.append(f"took {memory:,} bytes of memory")
        own = (folder, folder.parent)
        outside = [path for path in Path(place).rglob("*") if path not in own and folder not in path.parents]
        outside += [path for path in (Path("/tmp/vtab-peft-hostile.png"),) if path.exists()]
        if outside:
            problems.append(f"wrote {outside[0]} outside its folder")
        if any(path.is_symlink() or not (path.is_file() or path.is_dir()) for path in folder.rglob("*")):
            problems.append("wrote a link or a device")
        return {"case": label, "ended": ended, "seconds": round(seconds, 2), "problems": problems}


def extraction(name: str, data: bytes, folder: Path) -> None:
    """Extract an archive beside its folder, with a limit of a few megabytes."""
    archive = folder / name
    archive.write_bytes(data)
    (folder / "out").mkdir()
    extract(archive, folder / "out", limit=LARGEST_DISK)


def reception(pieces: Callable[[], Iterable[bytes]], known: KnownFile, folder: Path) -> None:
    """Download from a server that answers in this way."""
    with serve(pieces) as listener:
        download(f"http://127.0.0.1:{listener.getsockname()[1]}/x.zip", folder / "x.zip", known, waits=(0.0,))


def main() -> int:
    downloads.LARGEST_FILE, web.TIMEOUT_S = SENT, 0.5
    rows = [
        outcome(label, lambda folder, name=name, data=data: extraction(name, data, folder))
        for label, name, data in archives(random.Random(0))
    ]
    archived = len(rows)
    rows += [
        outcome(f"server: {label}", lambda folder, pieces=pieces: reception(pieces, KnownFile(1_000_000), folder))
        for label, pieces in servers().items()
    ]
    found = {
        "archives": archived,
        "servers": len(rows) - archived,
        "ended": dict(Counter(row["ended"] for row in rows)),
        "with_problems": sum(bool(row["problems"]) for row in rows),
        "longest_seconds": max(row["seconds"] for row in rows),
        "rows": rows,
    }
    for row in rows:
        if row["problems"]:
            print(row)
    save("hostile_archives", found, torch.device("cpu"))
    print(archived, len(rows) - archived, found["ended"])
    return int(found["with_problems"] > 0)


if __name__ == "__main__":
    sys.exit(main())
