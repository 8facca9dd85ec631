"""Shifted tests of a task: its corrupted test images, and further lists `test_<name>.txt` in its folder."""

import hashlib
import math
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from .archive import read, read_list
from .atomic_io import temporary_name, write_array
from .cache import CachedTask, default_root
from .corruptions import CORRUPTIONS, SEVERITIES, VERSION, corrupt
from .first_of import first_of
from .pixels import CORES, decode, in_order, probe
from .raw.atomic_folder import remove_abandoned
from .task import DataError

LIST = re.compile(r"test_(?P<name>[^\W_][\w.+-]{0,99})\.txt", re.ASCII)
LARGEST = 1000
"""Most test images that are corrupted, at equal distances in the test list (ours: there are 35 copies of each)."""
RESERVED = ("clean", "corrupted", "gap", *CORRUPTIONS)
"""Names that a further list cannot have."""
SHOWN = 3
"""Images that a message names (our choice)."""


@dataclass(frozen=True)
class ShiftedTest:
    """A test that a trained model is evaluated on, beside the task's own."""

    name: str
    """Name of the corruption or of the list; `clean` for the images before they are corrupted."""
    severity: int
    """1 to 5 of a corruption, else 0."""
    data: str
    """Hash of what is evaluated, 16 hexadecimal digits."""
    labels: Callable[[], np.ndarray]
    """Returns [n] int64."""
    images: Callable[[], Iterator[np.ndarray]]
    """Yields n uint8 images [3, height, width]."""
    restricted: bool = False
    """True if only the classes of the labels compete, as in the evaluation of ImageNet-A and -R."""

    def array(self, folder: Path) -> np.ndarray:
        """[n, 3, height, width] uint8; it is written to `folder` at first, and mapped from there.

        Raises:
            DataError: an image is damaged, or the folder cannot be written.
        """
        path = folder / f"{self.data}.npy"
        if not path.exists():
            images = self.images()
            first = next(images)
            shape = (len(self.labels()), *first.shape)
            try:
                write_array(path, shape, np.dtype(np.uint8), chain([first], images))
            except OSError as error:
                raise DataError(
                    f"cannot write {math.prod(shape) / 1e6:,.0f} MB of shifted images to {folder}: {error.strerror}; "
                    "free some space there, or set VTAB_PEFT_CACHE to another folder"
                ) from None
        return np.load(path, mmap_mode="c")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder of the cache for arrays; it is removed at the end, like those that killed processes left."""
    root = default_root()
    root.mkdir(parents=True, exist_ok=True)
    remove_abandoned(root)
    folder = root / temporary_name()
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shifted_tests(data: CachedTask) -> list[ShiftedTest]:
    """Return the clean test, every corruption at every severity, and the further lists of a task.

    Raises:
        DataError: a further list is wrong.
    """
    return [*corrupted(data), *further_lists(data)]


def corrupted(data: CachedTask) -> list[ShiftedTest]:
    """Return the test images that are corrupted, unchanged (`clean`), and each corruption of them."""
    index = np.unique(np.linspace(0, data.counts["test"] - 1, LARGEST).round().astype(int))

    def labels() -> np.ndarray:
        return data.labels("test")[index]

    def images(name: str, severity: int) -> Iterator[np.ndarray]:
        pixels = data.images("test")
        if name == "clean":
            yield from (pixels[row] for row in index)
            return
        with ThreadPoolExecutor(CORES) as pool:
            yield from _sound(in_order(lambda row: corrupt(pixels[row], name, severity), index, pool))

    def test(name: str, severity: int) -> ShiftedTest:
        facts = f"{data.data} {len(index)} {data.native} {data.preprocessing} {VERSION} {name} {severity}"
        return ShiftedTest(name, severity, _digest(facts.encode()), labels, lambda: images(name, severity))

    return [test("clean", 0), *(test(name, severity) for name in CORRUPTIONS for severity in SEVERITIES)]


def further_lists(data: CachedTask) -> list[ShiftedTest]:
    """Return the lists `test_<name>.txt` of a task's folder, sorted by name.

    Raises:
        DataError: lines are wrong, images are missing, or an image is in train or val too.
    """
    folder = data.task.folder
    if folder is None:
        return []
    names = {match["name"]: path for path in sorted(folder.iterdir()) if (match := LIST.fullmatch(path.name))}
    if odd := [path.name for path in sorted(folder.glob("test_*.txt")) if path not in names.values()]:
        raise DataError(
            f"{folder}: {', '.join(odd)} cannot be a test: after test_, use letters, digits, hyphens and points"
        )
    if reserved := [path.name for name, path in names.items() if name in RESERVED]:
        raise DataError(f"{folder}: {', '.join(reserved)} has the name of another test; choose another name")
    return [_further_list(data, name, path) for name, path in names.items()]


def _further_list(data: CachedTask, name: str, path: Path) -> ShiftedTest:
    listing = read_list(path, data.classes)
    splits = read(data.task)
    learned = {file for split in ("train", "val") for file in splits[split].files}
    if both := [file for file in listing.files if file in learned]:
        raise DataError(f"{path}: {first_of(both, SHOWN)} are in train or val too; remove their lines")
    files = [path.parent / file for file in listing.files]
    with ThreadPoolExecutor(CORES) as pool:
        infos = list(_sound(in_order(probe, files, pool)))
    lines = (f"{info.sha256} {label}\n" for info, label in zip(infos, listing.labels, strict=True))
    facts = f"{data.classes} {data.preprocessing}\n" + "".join(lines)

    def images() -> Iterator[np.ndarray]:
        with ThreadPoolExecutor(CORES) as pool:
            yield from _sound(in_order(lambda file: decode(file, data.preprocessing), files, pool))

    labels = np.array(listing.labels, np.int64)
    return ShiftedTest(name, 0, _digest(facts.encode()), lambda: labels, images, restricted=True)


def _sound(results: Iterator) -> Iterator:
    """Yield the results, and raise the first `DataError` among them."""
    for result in results:
        if isinstance(result, DataError):
            raise result
        yield result


def _digest(facts: bytes) -> str:
    return hashlib.sha256(facts).hexdigest()[:16]
