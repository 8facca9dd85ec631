"""dSprites: 737,280 binary images of 64 x 64 in a fixed order (https://github.com/google-deepmind/dsprites-dataset).

The images come from the hdf5 file that TFDS reads, from the npz file, or from re-rendered images in the same order
with 8 pixels a byte.  A key is the row (tensorflow/datasets image_classification/dsprites.py).
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..reading import import_optional, read_array_header, require_regular
from ..task import DataError, SplitName
from .source import Examples, Source, original_files, tfds_order

LATENTS = {"colour": 1, "shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}
"""Number of values of each latent; the first varies slowest in the order of the images."""
BLOCK = 4096
"""Images that are read at a time (our choice): 16 MB."""
FILES = original_files("dsprites")


def read(raw: Path, latent: str, label: Callable[[int], int]) -> Mapping[SplitName, Examples]:
    """Read train[:800], the first 200 of train[80%:90%] and train[90%:] (task_adaptation/data/dsprites.py)."""
    path = FILES[0].find(raw)
    keys = [str(row) for row in range(_rows())]
    order = tfds_order(keys, "train")
    val, test = len(order) * 80 // 100, len(order) * 90 // 100
    parts: dict[SplitName, Sequence[int]] = {
        "train": order[:800],
        "val": order[val : val + 200],
        "test": order[test:],
    }
    wanted = np.unique(np.concatenate([np.asarray(rows, np.int64) for rows in parts.values()]))
    packed = _images(path, wanted)
    values = np.unravel_index(wanted, tuple(LATENTS.values()))[list(LATENTS).index(latent)]
    place = {int(row): i for i, row in enumerate(wanted)}

    def examples(rows: Sequence[int]) -> Examples:
        at = [place[row] for row in rows]
        return Examples(
            [keys[row] for row in rows], [label(int(values[i])) for i in at], lambda i: _pixels(packed[at[i]])
        )

    return {split: examples(rows) for split, rows in parts.items()}


def _rows() -> int:
    return int(np.prod(list(LATENTS.values())))


def _pixels(packed: np.ndarray) -> np.ndarray:
    """Unpack 512 bytes to [64, 64] uint8 with values 0 and 255."""
    return np.unpackbits(packed).reshape(64, 64) * np.uint8(255)


def _images(path: Path, wanted: np.ndarray) -> np.ndarray:
    """Return the `wanted` rows in ascending order, [n, 512] uint8 with 8 pixels a byte.

    All images are read once, in blocks: they are compressed as one stream and take 3 GB in memory.
    """
    packed = path.name == (FILES[0].stand_in or ("",))[0]
    found, row = [], 0
    try:
        require_regular(path)
        for block in _hdf5_blocks(path) if path.suffix == ".hdf5" else _npz_blocks(path, packed):
            begin, end = np.searchsorted(wanted, (row, row + len(block)))
            chosen = block[wanted[begin:end] - row]
            found.append(chosen if packed else np.packbits(chosen.reshape(len(chosen), -1), axis=1))
            row += len(block)
    except (OSError, KeyError, ValueError, IndexError, zlib.error, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as dSprites ({error}); download it again") from None
    return np.concatenate(found)


def _hdf5_blocks(path: Path) -> Iterator[np.ndarray]:
    h5py = import_optional("h5py", "dsprites")
    with h5py.File(path, "r") as file:
        images: Any = file["imgs"]
        _examine(images.shape, images.dtype, (64, 64))
        for start in range(0, len(images), BLOCK):
            yield images[start : start + BLOCK]


def _npz_blocks(path: Path, packed: bool) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(path) as archive, archive.open("imgs_packed.npy" if packed else "imgs.npy") as file:
        shape, kind = read_array_header(file)
        _examine(shape, kind, (512,) if packed else (64, 64))
        size = int(np.prod(shape[1:]))
        for start in range(0, shape[0], BLOCK):
            count = min(BLOCK, shape[0] - start)
            yield np.frombuffer(file.read(count * size), np.uint8).reshape(count, *shape[1:])


def _examine(shape: tuple[int, ...], kind: np.dtype, image: tuple[int, ...]) -> None:
    if shape != (_rows(), *image) or kind != np.uint8:
        raise ValueError(f"images are {kind} {shape} instead of uint8 {(_rows(), *image)}")


def _location(position: int) -> int:
    """Map the 32 positions to 16 classes."""
    return position // 2


def _orientation(angle: int) -> int:
    """Map the 40 angles to 16 classes: floor(angle / 2.5), alternately 3 and 2 angles."""
    return 2 * angle // 5


def _source(task: str, latent: str, label: Callable[[int], int]) -> Source:
    members = [[value for value in range(LATENTS[latent]) if label(value) == i] for i in range(16)]
    names = tuple(f"{latent} {values[0]} to {values[-1]}" for values in members)
    return Source(task, "dsprites", FILES, names, partial(read, latent=latent, label=label))


SOURCES = (
    _source("dsprites_loc", "x", _location),
    _source("dsprites_ori", "orientation", _orientation),
)
