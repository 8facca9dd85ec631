"""One file to download, and an attempt that breaks off."""

from pathlib import Path

from fileserver import FileServer
from raises import raises_naming
from vtab_peft.datasets.download import download
from vtab_peft.datasets.task import DataError

BODY = bytes(range(256)) * 1200  # 307,200 bytes: more than sockets hold back
HALF = len(BODY) // 2


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def break_off(server: FileServer, target: Path, at: int = HALF) -> None:
    """One attempt that ends after `at` bytes."""
    server.cut_after = [at]
    with raises_naming(DataError, f"after {at:,} of "):
        download(server.url("/data.bin"), target, waits=())
    assert left_in(target.parent) == ["data.bin.part", "data.bin.part.json"]
