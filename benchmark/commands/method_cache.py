"""A cache of the rows of `list methods`, because loading torch and timm takes seconds."""

import hashlib
import json
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...datasets.atomic_io import atomic_write
from ...datasets.cache import default_root
from ...datasets.reading import read_regular
from ...datasets.task import DataError

METHODS = Path(__file__).resolve().parents[2] / "methods"


def cached_rows() -> list[dict[str, Any]]:
    """Return the rows of the registry without plug-ins.

    They are made again after any change of `methods/`, of the code that makes rows, and of torch, timm and peft.  A
    cache that cannot be read or written is not used.
    """
    identity = _identity()
    with suppress(OSError, DataError, ValueError, KeyError, TypeError):
        found = json.loads(read_regular(default_root() / "methods.json"))
        if found["identity"] == identity:
            return found["rows"]
    from .method_rows import methods

    rows = methods()
    with suppress(OSError, DataError), atomic_write(default_root() / "methods.json") as file:
        file.write(json.dumps({"identity": identity, "rows": rows}).encode())
    return rows


def _identity() -> str:
    """Return a hash of what the rows depend on."""
    digest = hashlib.sha256()
    sources = [path for path in METHODS.iterdir() if path.suffix in (".py", ".csv")]
    for path in sorted([*sources, *Path(__file__).parent.glob("method_*.py")]):
        digest.update(path.name.encode() + path.read_bytes())
    for package in ("torch", "timm", "peft"):
        with suppress(PackageNotFoundError):
            digest.update(f"{package} {version(package)}".encode())
    return digest.hexdigest()
