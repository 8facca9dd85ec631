"""One file over HTTP: from where an earlier attempt broke off, checked, and under its name only when it is whole."""

import contextlib
import http.client
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .known_files import KnownFile
from .partial_download import FileVersion, PartialDownload, open_partial
from .task import DataError

BACKOFF_S = (2.0, 5.0, 15.0, 60.0, 120.0)
"""Seconds before each further attempt (ours); counted anew whenever `STEP` more bytes have come."""
STEP = 1 << 20
"""Bytes after which an attempt was of use (ours)."""
SILENCE = 60.0
"""Seconds without a byte after which a connection counts as cut (ours)."""
CHUNK = 1 << 20
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers that another attempt may turn into a file (RFC 9110, RFC 6585, RFC 8470)."""

ProgressFn = Callable[[int, int | None], None]
"""Called with the bytes that are there, and those of the whole file where known."""
Wait = Callable[[float, str], object]
"""Called with the seconds before the next attempt, and why the last one failed; it is to return when they are over."""


class Interrupted(Exception):
    """This attempt ended too early; another may succeed."""


class _Changed(Interrupted):
    """What has come is of another version than what the server has now: it is of no use."""


def download(
    url: str,
    path: Path,
    known: KnownFile = KnownFile(),  # noqa: B008 - frozen
    progress: ProgressFn = lambda _done, _total: None,
    waits: Sequence[float] = BACKOFF_S,
    wait: Wait = lambda seconds, _why: time.sleep(seconds),
) -> None:
    """Put the file at `url` to `path`; the folder is made where it is missing.

    Raises:
        DataError: it cannot be had, is not what is `known` of it, or cannot be written.  After a cut connection or
            a full disk the part stays, and the next call goes on from there; what is wrong is removed.
    """
    with open_partial(path, url) as part:
        failures, best = 0, part.size()
        while True:
            try:
                _attempt(part, known, progress)
                break
            except Interrupted as cut:
                if isinstance(cut, _Changed):
                    part.clear()
                if part.size() >= best + STEP:
                    failures, best = 0, part.size()
                if failures == len(waits):
                    kept = ": what has come is kept, and it goes on from there" if part.size() else ""
                    raise DataError(f"{url}: {cut} ({failures + 1} attempts); try again later{kept}") from None
                wait(waits[failures], str(cut))
                failures += 1
        try:
            known.verify(part.path)
        except DataError as error:
            part.remove()
            raise DataError(
                f"{url} is not the file that was published: {error}. It was removed; try again, and if it stays so, "
                f"the file has changed at its home: get the published one elsewhere and put it at {path}"
            ) from None
        part.finish()


def _attempt(part: PartialDownload, known: KnownFile, progress: ProgressFn) -> None:
    """One request, for what is missing."""
    have, version = part.size(), part.version()
    if version is None:
        have = 0
    elif have == version.length:
        return
    with _answer(part.url, _headers(have, version)) as answer:
        offered = _offered(part.url, answer)
        resumed = answer.status == http.client.PARTIAL_CONTENT
        if resumed and (offered != version or _start(answer) != have):
            raise _Changed("the server's file has changed")
        chunk = _read(answer)
        _refuse_other_things(part, answer, chunk, offered, known, resumed)
        if not resumed:
            have = 0
            part.restart(offered)
        _refuse_without_room(part, offered, have)
        while chunk:
            part.append(chunk)
            have += len(chunk)
            progress(have, offered.length)
            chunk = _read(answer)
    if have != (offered.length if offered.length is not None else have):
        raise Interrupted(f"the connection was cut after {have:,} of {offered.length:,} bytes")


def _headers(have: int, version: FileVersion | None) -> dict[str, str]:
    headers = {"User-Agent": "vtab-peft"}
    if version is not None:
        headers["Range"] = f"bytes={have}-"
        # RFC 9110, 13.1.5: a weak tag must not be used here.
        strong = version.etag if version.etag and not version.etag.startswith("W/") else None
        if validator := strong or version.modified:
            headers["If-Range"] = validator
    return headers


@contextlib.contextmanager
def _answer(url: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENCE)
    except urllib.error.HTTPError as error:
        with error:
            said = f"the server says {error.code} {error.reason}"
        if error.code in PASSING:
            raise Interrupted(said) from None
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _Changed("the server's file has changed") from None
        raise DataError(f"{url}: {said}; its home may have moved, or wants a login: get the file by hand") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            why = f"its certificate is not valid ({error.reason.verify_message})"
            raise DataError(f"{url}: {why}; correct this machine's certificates or clock, or get it by hand") from None
        raise Interrupted(f"no connection ({error.reason})") from None
    except (http.client.HTTPException, OSError) as error:
        raise Interrupted(f"no answer ({error or type(error).__name__})") from None
    with answer:
        if answer.status not in (http.client.OK, http.client.PARTIAL_CONTENT):
            raise DataError(f"{url}: the server says {answer.status} {answer.reason}; get the file by hand")
        yield answer


def _offered(url: str, answer: http.client.HTTPResponse) -> FileVersion:
    length = re.search(r"/(\d+)$", answer.headers["Content-Range"] or "") or re.search(
        r"(\d+)", (answer.headers["Content-Length"] or "") if answer.status == http.client.OK else ""
    )
    return FileVersion(url, answer.headers["ETag"], answer.headers["Last-Modified"], int(length[1]) if length else None)


def _start(answer: http.client.HTTPResponse) -> int | None:
    found = re.match(r"bytes (\d+)-", answer.headers["Content-Range"] or "")
    return int(found[1]) if found else None


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(CHUNK)  # what is there, so that little is lost with a connection
    except (http.client.HTTPException, OSError) as error:
        raise Interrupted(f"the connection was cut ({error or type(error).__name__})") from None


def _refuse_other_things(
    part: PartialDownload,
    answer: http.client.HTTPResponse,
    chunk: bytes,
    offered: FileVersion,
    known: KnownFile,
    resumed: bool,
) -> None:
    """A web page in the file's place, and a file of another length than the published one."""
    looks = chunk.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")) and not resumed
    if (looks or answer.headers.get_content_type() == "text/html") and part.whole.suffix not in (".html", ".htm"):
        raise DataError(
            f"{part.url} answers with a web page and not with a file (a login, a licence, a quota?); "
            f"open it in a browser, get the file by hand and put it at {part.whole}"
        )
    if None not in (known.size, offered.length) and known.size != offered.length:
        raise DataError(
            f"{part.url} offers {offered.length:,} bytes; published are {known.size:,}: it has changed at its home. "
            f"Get the published file elsewhere and put it at {part.whole}"
        )


def _refuse_without_room(part: PartialDownload, offered: FileVersion, have: int) -> None:
    missing, free = (offered.length or 0) - have, shutil.disk_usage(part.path.parent).free
    if missing > free:
        raise DataError(
            f"{part.whole} needs {missing:,} more bytes and {free:,} are free there; "
            "make room, or choose another folder"
        )
