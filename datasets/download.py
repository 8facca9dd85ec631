"""Download one file over HTTP: resumed after interruptions, verified, and visible only when complete."""

import contextlib
import http.client
import re
import shutil
import ssl
import time
import urllib.error
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .known_file import KnownFile
from .partial_download import FileVersion, PartialDownload, open_partial
from .task import DataError
from .web import Interrupted, open_url

BACKOFF_S = (2.0, 5.0, 15.0, 60.0, 120.0)
"""Seconds before each further attempt (our choice); the count restarts whenever `STEP` more bytes have arrived."""
STEP = 1 << 20
"""Bytes after which an attempt counts as progress (our choice)."""
LARGEST_FILE = 1 << 36
"""Bytes after which a download of unknown size is refused (our choice); the largest original file has 39 GB."""
CHUNK = 1 << 20
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses that are worth another attempt (RFC 9110, RFC 6585, RFC 8470)."""

ProgressFn = Callable[[int, int | None], None]
"""Called with (bytes received, bytes in all if known)."""
WaitFn = Callable[[float, str], object]
"""Called with the seconds before the next attempt and the reason of the last failure; returns after that time."""


class _Changed(Interrupted):
    """The server's file has changed; the bytes received so far are useless."""


def download(
    url: str,
    path: Path,
    known: KnownFile = KnownFile(),  # noqa: B008 - frozen
    progress: ProgressFn = lambda _done, _total: None,
    waits: Sequence[float] = BACKOFF_S,
    wait: WaitFn = lambda seconds, _reason: time.sleep(seconds),
) -> None:
    """Download `url` to `path` and create its folder.

    Raises:
        DataError: the file is unavailable, differs from `known`, or cannot be written.  After a lost connection or a
            full disk, the bytes received are kept and the next call resumes.  Wrong content is removed.
    """
    with open_partial(path, url) as part:
        failures, best = 0, part.size()
        while True:
            try:
                _attempt(part, known, progress)
                break
            except Interrupted as error:
                if isinstance(error, _Changed):
                    part.clear()
                if part.size() >= best + STEP:
                    failures, best = 0, part.size()
                if failures == len(waits):
                    kept = " to resume" if part.size() else ""
                    raise DataError(f"{url}: {error} ({failures + 1} attempts); try again later{kept}") from None
                wait(waits[failures], str(error))
                failures += 1
        try:
            known.verify(part.path)
        except DataError as error:
            part.remove()
            raise DataError(
                f"{url} is not the official file: {error}. It was removed; try again. If this repeats, the "
                f"publisher has changed the file: get the official one elsewhere and save it as {path}"
            ) from None
        part.finish()


def _attempt(part: PartialDownload, known: KnownFile, progress: ProgressFn) -> None:
    """Request the missing bytes once."""
    have, version = part.size(), part.version()
    if version is None:
        have = 0
    elif have == version.length:
        return
    with _response(part.url, _headers(have, version)) as response:
        offered = _offered(part.url, response)
        resumed = response.status == http.client.PARTIAL_CONTENT
        if resumed and (offered != version or _range_start(response) != have):
            raise _Changed("the server's file has changed")
        chunk = _read(response)
        _require_file(part, response, b"" if resumed else chunk)
        _require_size(part, offered, known)
        if not resumed:
            have = 0
            part.restart(offered)
        _require_space(part, offered, have)
        limit = known.size or offered.length or LARGEST_FILE
        while chunk:
            have += len(chunk)
            if have > limit:
                part.clear()
                raise DataError(f"{part.url} sends more than {limit:,} bytes; get the official file elsewhere")
            part.append(chunk)
            progress(have, offered.length)
            chunk = _read(response)
    expected = known.size if offered.length is None else offered.length
    if expected is not None and have < expected:
        raise Interrupted(f"the connection was lost after {have:,} of {expected:,} bytes")


def _headers(have: int, version: FileVersion | None) -> dict[str, str]:
    headers = {"User-Agent": "vtab-peft"}
    if version is not None:
        headers["Range"] = f"bytes={have}-"
        # RFC 9110, 13.1.5: If-Range must not use a weak tag.
        strong = version.etag if version.etag and not version.etag.startswith("W/") else None
        if validator := strong or version.modified:
            headers["If-Range"] = validator
    return headers


@contextlib.contextmanager
def _response(url: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    try:
        response = open_url(url, headers)
    except urllib.error.HTTPError as error:
        with error:
            reason = f"the server answers {error.code} {error.reason}"
        if error.code in TRANSIENT:
            raise Interrupted(reason) from None
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _Changed("the server's file has changed") from None
        raise DataError(
            f"{url}: {reason}; the file may have moved or require a login: download it with a browser"
        ) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DataError(
                f"{url}: its certificate is not valid ({error.reason.verify_message}); correct the certificates or the "
                "clock of this machine, or download the file with a browser"
            ) from None
        raise Interrupted(f"no connection ({error.reason})") from None
    except (http.client.HTTPException, OSError) as error:
        raise Interrupted(f"no answer ({error or type(error).__name__})") from None
    except (ValueError, OverflowError) as error:  # unusable addresses, ports and headers
        raise DataError(f"{url}: the answer is not valid HTTP ({error}); download the file with a browser") from None
    with response:
        if response.status not in (http.client.OK, http.client.PARTIAL_CONTENT):
            raise DataError(
                f"{url}: the server answers {response.status} {response.reason}; download the file with a browser"
            )
        yield response


def _offered(url: str, response: http.client.HTTPResponse) -> FileVersion:
    """Return the version of the file that a response offers; tags with other than printable characters are ignored.

    Raises:
        DataError: the stated length is impossible.
    """
    stated = response.headers["Content-Length"] if response.status == http.client.OK else None
    if content_range := response.headers["Content-Range"]:
        stated = content_range.rpartition("/")[2].replace("*", "") or None
    if stated is not None and (not re.fullmatch("[0-9]{1,15}", stated) or int(stated) > LARGEST_FILE):
        raise DataError(f"{url} states an impossible length ({stated[:20]!r}); download the file with a browser")
    tags = [response.headers[name] for name in ("ETag", "Last-Modified")]
    etag, modified = (tag if tag and re.fullmatch("[ -~]{1,500}", tag) else None for tag in tags)
    return FileVersion(url, etag, modified, None if stated is None else int(stated))


def _range_start(response: http.client.HTTPResponse) -> int | None:
    found = re.match(r"bytes ([0-9]{1,15})-", response.headers["Content-Range"] or "")
    return int(found[1]) if found else None


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)  # returns what has arrived, so that little is lost with a connection
    except (http.client.HTTPException, OSError) as error:
        raise Interrupted(f"the connection was lost ({error or type(error).__name__})") from None


def _require_file(part: PartialDownload, response: http.client.HTTPResponse, chunk: bytes) -> None:
    """Raise `DataError` if the server sends a web page instead of the file."""
    is_html = chunk.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))
    if (is_html or response.headers.get_content_type() == "text/html") and part.target.suffix not in (".html", ".htm"):
        raise DataError(
            f"{part.url} answers with a web page instead of the file (a login, a licence, a quota?); "
            f"download the file with a browser and save it as {part.target}"
        )


def _require_size(part: PartialDownload, offered: FileVersion, known: KnownFile) -> None:
    if None not in (known.size, offered.length) and known.size != offered.length:
        raise DataError(
            f"{part.url} offers {offered.length:,} bytes instead of {known.size:,}: the publisher has changed it. "
            f"Get the official file elsewhere and save it as {part.target}"
        )


def _require_space(part: PartialDownload, offered: FileVersion, have: int) -> None:
    missing, free = (offered.length or 0) - have, shutil.disk_usage(part.path.parent).free
    if missing > free:
        raise DataError(
            f"{part.target} needs {missing:,} more bytes, but only {free:,} are free; "
            "free some space, or choose another folder"
        )
