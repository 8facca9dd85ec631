"""Stored predictions: reading the `.npz` file beside a record."""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ...datasets.reading import InvalidFile, read_regular
from .schema import Run

LARGEST = 1 << 28
"""Bytes of the largest file and of the largest array in it (ours; three bytes per test image)."""
KINDS = {"predictions": np.dtype("<u2"), "correct": np.dtype(bool)}
"""Arrays of the file and their types."""


class PredictionsMissing(Exception):
    """The file of the predictions does not exist."""


class PredictionsDamaged(Exception):
    """The file cannot be read or contradicts the record; the message says how."""


def load_correct(run: Run) -> np.ndarray:
    """Return [images] bool, True for correct predictions of a run.

    Raises:
        PredictionsMissing, PredictionsDamaged: There is no such file, or it is not what the record says.
    """
    path = run.path.with_suffix(".npz")
    correct = read_predictions(path).get("correct")
    if correct is None:
        raise PredictionsDamaged(f"{path.name} has no array `correct`")
    if not len(correct) or not abs(float(correct.mean()) - run.accuracy) <= 1e-6:
        raise PredictionsDamaged(f"{path.name} contradicts the accuracy in its JSON")
    return correct


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the file: `predictions` [images], and `correct` [images] if it was stored.

    Raises:
        PredictionsMissing, PredictionsDamaged: There is no such file, or it holds something else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(read_regular(path, LARGEST))) as archive:
            present = [name for name in KINDS if f"{name}.npy" in archive.namelist()]
            arrays = {name: _array(archive, name) for name in present}
    except FileNotFoundError:
        raise PredictionsMissing(f"{path} is missing") from None
    except InvalidFile as error:
        raise PredictionsDamaged(f"{path.name} cannot be read ({error.reason})") from None
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise PredictionsDamaged(f"{path.name} cannot be read ({error})") from None
    if "predictions" not in arrays or len({len(array) for array in arrays.values()}) > 1:
        raise PredictionsDamaged(f"{path.name} has no array `predictions`, or arrays of different lengths")
    return arrays


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return an array of one axis; raise `ValueError` if it is another one, or larger than its data or the limit."""
    if archive.getinfo(f"{name}.npy").file_size > LARGEST:
        raise ValueError(f"`{name}` has more than {LARGEST:,} bytes")
    stream = io.BytesIO(archive.read(f"{name}.npy"))
    np.lib.format.read_magic(stream)  # numpy writes version 1 for every plain array
    shape, _, kind = np.lib.format.read_array_header_1_0(stream)
    data = stream.read()
    if kind != KINDS[name] or shape != (len(data) // kind.itemsize,) or len(data) % kind.itemsize:
        raise ValueError(f"`{name}` is {kind} {shape}, not {KINDS[name]} of one axis")
    return np.frombuffer(data, kind)
