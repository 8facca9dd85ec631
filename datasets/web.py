"""Open addresses over HTTP: only http and https, never from https to http, and never slower than a least rate."""

import http.client
import io
import time
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from .task import DataError

TIMEOUT_S = 60.0
"""Seconds without a byte after which a connection counts as lost (our choice)."""
LEAST_BYTES = 60_000
"""Bytes that must arrive in each `TIMEOUT_S` (our choice: 1 kB/s); a slower connection counts as lost."""


class Interrupted(Exception):
    """This attempt ended early; another may succeed."""


def open_url(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Request a file and follow redirects.

    Raises:
        DataError: the address, or one that it redirects to, is refused.
        Interrupted: the connection is too slow; also raised while the response is read.
        OSError, http.client.HTTPException, ValueError, OverflowError: as raised by `urllib`.
    """
    _require_web(url, url)
    opener = urllib.request.OpenerDirector()  # unlike `urlopen`, without ftp, file and data
    for handler in (
        *(urllib.request.ProxyHandler, _Http, _Https, _Redirects),
        *(urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor),
    ):
        opener.add_handler(handler())
    return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)


def _require_web(url: str, asked: str) -> None:
    """Raise `DataError` unless `url` is http or https, and https if `asked` is; raise `ValueError` for wrong ports."""
    parts = urlsplit(url)
    scheme, _ = parts.scheme, parts.port
    if scheme not in ("http", "https"):
        raise DataError(f"{asked}: refused an address of {scheme or 'no scheme'}; only http and https are used")
    if scheme == "http" and urlsplit(asked).scheme == "https":
        raise DataError(f"{asked}: refused a redirect to http, which is not encrypted; download it with a browser")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def http_error_302(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except (DataError, ValueError):  # ValueError: urllib cannot parse the address
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        _require_web(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _MinimumRate(io.RawIOBase):
    """Bytes of a connection, in headers and body; raises `Interrupted` if too few arrive in `TIMEOUT_S`."""

    def __init__(self, raw: Any) -> None:
        self.raw, self.received, self.begun = raw, 0, time.monotonic()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self.raw.readinto(buffer)
        self.received += count or 0
        passed = time.monotonic() - self.begun
        if count and passed > TIMEOUT_S:
            if self.received < LEAST_BYTES:
                raise Interrupted(f"the connection is too slow: {self.received:,} bytes in {passed:.0f} seconds")
            self.received, self.begun = 0, time.monotonic()
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fp = io.BufferedReader(_MinimumRate(self.fp.detach()))


class _Rated(urllib.request.AbstractHTTPHandler):
    def do_open(self, http_class: Any, req: Any, **options: Any) -> Any:
        def connect(*args: Any, **others: Any) -> http.client.HTTPConnection:
            connection = http_class(*args, **others)
            connection.response_class = _Response
            return connection

        return super().do_open(connect, req, **options)  # pyright: ignore[reportArgumentType]


class _Http(_Rated, urllib.request.HTTPHandler):
    pass


class _Https(_Rated, urllib.request.HTTPSHandler):
    pass
