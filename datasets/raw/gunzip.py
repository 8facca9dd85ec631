"""Files that are published gzipped, as plain files that can be read from anywhere in them."""

import gzip
import shutil
import zlib
from pathlib import Path

from ..atomic_io import atomic_write, remove_temp_files
from ..task import DataError


def gunzipped(path: Path) -> Path:
    """`path`, or for `x.gz` the file `x` beside it, which is made on the first call; whole or not at all.

    Raises:
        DataError: the file is damaged, or there is no room or no right to write beside it.
    """
    if path.suffix != ".gz":
        return path
    plain = path.with_suffix("")
    if plain.exists():
        return plain
    try:
        remove_temp_files(path.parent)  # they may be gigabytes
        with gzip.open(path) as packed, atomic_write(plain) as file:
            shutil.copyfileobj(packed, file, 1 << 20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); get it again") from None
    except OSError as error:
        raise DataError(f"cannot unpack {path} beside itself ({error.strerror}); unpack it by hand") from None
    return plain
