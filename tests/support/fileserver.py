"""A local web server with configurable faults, and archives to serve."""

import io
import tarfile
import threading
import zipfile
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    path: str
    range: str | None
    if_range: str | None
    sent: int = 0
    """Bytes of the body that were sent."""


class FileServer:
    """Serves `files` by path, and records every request."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.requests: list[Request] = []
        self.ranges = True
        """True if the server supports range requests."""
        self.heeds_if_range = True
        self.etag: str | None = '"first"'
        self.modified: str | None = formatdate(1_700_000_000, usegmt=True)
        self.content_type = "application/octet-stream"
        self.moved: dict[str, str] = {}
        """Redirects: path -> URL."""
        self.cut_after: list[int] = []
        """Bytes after which the next answers are cut off."""
        self.refuse: list[int] = []
        """Error statuses of the next answers."""
        self.pause_after: int | None = None
        """Bytes after which the server sends nothing more."""
        self._stop = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def __enter__(self) -> "FileServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted, if_range = handler.headers["Range"], handler.headers["If-Range"]
        request = Request(handler.path, wanted, if_range)
        self.requests.append(request)
        path = handler.path.partition("?")[0]
        if path in self.moved:
            handler.send_response(302)
            handler.send_header("Location", self.moved[path])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if self.refuse or path not in self.files:
            handler.send_error(self.refuse.pop(0) if self.refuse else 404)
            return
        body = self.files[path]
        holds = not self.heeds_if_range or if_range in (None, self.etag, self.modified)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges and holds else None
        if start is not None and start >= len(body):
            handler.send_error(416)
            return
        handler.send_response(200 if start is None else 206)
        if start is not None:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        body = body[start or 0 :]
        for name, value in (("ETag", self.etag), ("Last-Modified", self.modified)):
            if value:
                handler.send_header(name, value)
        handler.send_header("Content-Type", self.content_type)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        request.sent = self.cut_after.pop(0) if self.cut_after else self.pause_after or len(body)
        handler.wfile.write(body[: request.sent])
        if self.pause_after:
            self._stop.wait()


def _handler(server: FileServer) -> Any:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
