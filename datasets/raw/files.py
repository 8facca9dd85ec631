"""Helpers for sources that consist of image files, lists and MATLAB files.

TFDS prepares the images of some tasks with OpenCV, an optional dependency.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..reading import read_text, require_regular
from ..task import DataError
from .source import Examples

COLOUR = 3
"""IMREAD_COLOR | IMREAD_ANYDEPTH, the flags with which TFDS decodes."""


def lines(path: Path) -> list[str]:
    """Return the non-empty lines of a list file; raise `DataError` if there are none."""
    found = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if not found:
        raise DataError(f"{path} is empty; download it again")
    return found


def require_files(paths: Iterable[Path]) -> None:
    """Raise `DataError` if files are missing, before time is spent on the others."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        others = f" (and {len(missing) - 1} more files)" if len(missing) > 1 else ""
        raise DataError(f"there is no {missing[0]}{others}; unpack the archive again")


def class_id(name: str, names: Sequence[str], where: str) -> int:
    """Return the position of a class in `names`; `where` is the place that error messages report."""
    try:
        return names.index(name)
    except ValueError:
        raise DataError(f"{where}: {name!r} is none of the {len(names)} classes {names[0]} to {names[-1]}") from None


def number(text: str, first: int, last: int, where: str) -> int:
    """Parse an integer from `first` to `last`; `where` is the place that error messages report."""
    try:
        value = int(text)
    except ValueError:
        value = first - 1
    if not first <= value <= last:
        raise DataError(f"{where}: {text!r} is not a number from {first} to {last}")
    return value


def class_folders(root: Path, class_names: Sequence[str]) -> Examples:
    """Return the files `<class>/<file>.jpg` in alphabetical order, with TFDS's keys `<class>_<file>.jpg`.

    Raises:
        DataError: a class has no folder or no image.
    """
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = sorted((root / name).glob("*.jpg"))
        if not found:
            raise DataError(f"{root / name}: the folder is missing or has no .jpg files; unpack the archive again")
        files += found
        labels += [label] * len(found)
    return Examples([f"{file.parent.name}_{file.name}" for file in files], labels, lambda i: files[i])


def load_mat(path: Path, *names: str) -> list[np.ndarray]:
    """Return arrays of a MATLAB 5 file.

    Raises:
        DataError: the file cannot be read, or an array is missing.
    """
    from scipy.io import loadmat  # imported here: slow, and few tasks need it

    try:
        require_regular(path)
        content = loadmat(path, variable_names=names)
        return [content[name] for name in names]
    except Exception as error:  # scipy raises many types on damaged files
        arrays = " and ".join(names)
        raise DataError(f"{path} is not a MATLAB 5 file with {arrays} ({error!r}); download it again") from None


def decode(cv2: Any, path: Path, data: bytes) -> np.ndarray:
    """Decode an image to BGR pixels [height, width, 3] uint8; `path` is used in error messages only."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), COLOUR) if data else None
    if image is None:
        raise DataError(f"{path}: OpenCV cannot decode this image; unpack the archive again")
    return image


def jpeg(cv2: Any, image: np.ndarray, quality: int) -> bytes:
    """Encode BGR pixels [height, width, 3] uint8 as JPEG."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
