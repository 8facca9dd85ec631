"""Size and checksums of a file before it is downloaded, as its publisher or another library states them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from .reading import open_regular
from .task import DataError


@dataclass(frozen=True)
class KnownFile:
    """Facts to verify a download with; None where a fact is not known."""

    size: int | None = None
    """Size in bytes."""
    sha256: str | None = None
    md5: str | None = None
    """Used only without a SHA-256: it detects damage, but not a malicious change."""

    def verify(self, path: Path) -> None:
        """Compare a file with these facts.

        Raises:
            DataError: the size or the checksum differs, or the file cannot be read.
        """
        algorithm, expected = ("sha256", self.sha256) if self.sha256 else ("md5", self.md5)
        try:
            size = path.stat().st_size
            if self.size is not None and size != self.size:
                raise DataError(f"{path} has {size:,} bytes; the official file has {self.size:,}")
            if expected is None:
                return
            with open_regular(path) as file:
                found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        if found != expected:
            raise DataError(f"{path} has the {algorithm.upper()} {found}; the official file has {expected}")
