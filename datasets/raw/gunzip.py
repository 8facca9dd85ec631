"""Decompress gzipped originals once, so that their content can be mapped into memory."""

import gzip
import shutil
import zlib
from pathlib import Path

from ..atomic_io import atomic_write, remove_temp_files
from ..reading import require_regular
from ..task import DataError


def gunzipped(path: Path) -> Path:
    """Return `x` for `x.gz`, written beside it on the first call, or `path` itself if it is not gzipped.

    Raises:
        DataError: the file is damaged, or the result cannot be written.
    """
    if path.suffix != ".gz":
        return path
    plain = path.with_suffix("")
    if plain.exists():
        return plain
    try:
        require_regular(path)
        remove_temp_files(path.parent)  # they may take gigabytes
        with gzip.open(path) as packed, atomic_write(plain) as file:
            shutil.copyfileobj(packed, file, 1 << 20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); download it again") from None
    except OSError as error:
        raise DataError(f"cannot decompress {path} in its folder ({error.strerror}); decompress it yourself") from None
    return plain
