"""Stored predictions: reading the `.npz` file beside a record."""

import hashlib
import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...datasets.reading import InvalidFile, read_array_header, read_regular
from .schema import Run

LARGEST = 1 << 28
"""Bytes of the largest file and of the largest array in it (ours; logits of sun397 are the largest with 17 MB)."""
KINDS = {
    **{"predictions": (np.dtype("<u2"), 1), "correct": (np.dtype(bool), 1)},
    **{"logits": (np.dtype("<f2"), 2), "labels": (np.dtype("<u2"), 1)},
}
"""Arrays of the file, with their type and number of axes."""


class PredictionsMissing(Exception):
    """The file of the predictions does not exist."""


class PredictionsDamaged(Exception):
    """The file cannot be read or contradicts the record; the message says how."""


@dataclass(frozen=True)
class Predictions:
    """The stored predictions of a run, in the order of the evaluated split."""

    classes: np.ndarray
    """[images] class indices."""
    correct: np.ndarray
    """[images] bool."""
    logits: np.ndarray | None
    """[images, classes] float16, minus the largest of each image, which changes neither softmax nor argmax; None unless
    the run was made with `--keep-logits`."""
    labels: np.ndarray | None = None
    """[images] true classes; kept with the logits."""


def load_predictions(run: Run) -> Predictions:
    """Return the predictions of a run, checked against its record.

    Raises:
        PredictionsMissing, PredictionsDamaged: There is no such file, or it is not what the record says.
    """
    path = run.path.with_suffix(".npz")
    arrays = read_predictions(path)
    classes, correct, logits, labels = (arrays.get(n) for n in ("predictions", "correct", "logits", "labels"))
    assert classes is not None, "`read_predictions` requires it"
    if correct is None:
        raise PredictionsDamaged(f"{path.name} has no array `correct`")
    if not len(correct) or not abs(float(correct.mean()) - run.accuracy) <= 1e-6:
        raise PredictionsDamaged(f"{path.name} contradicts the accuracy in its JSON")
    if hashlib.sha256(classes.tobytes()).hexdigest() != run.predictions_sha256:
        raise PredictionsDamaged(f"{path.name} does not match the hash in its JSON")
    if logits is not None and (wrong := wrong_logits(logits, classes, run.classes)):
        raise PredictionsDamaged(f"{path.name} has {wrong}")
    if (logits is None) != (labels is None) or (labels is not None and ((classes == labels) != correct).any()):
        raise PredictionsDamaged(f"{path.name} has labels that contradict the rest")
    return Predictions(classes, correct, logits, labels)


def wrong_logits(logits: np.ndarray, predictions: np.ndarray, classes: int) -> str:
    """Return what is wrong with logits [images, classes] of the predictions [images]; empty if nothing is."""
    if logits.shape[1] != classes or not np.isfinite(logits).all():
        return f"logits that are not finite numbers for {classes} classes"
    if predictions.max(initial=0) < classes:
        predicted = np.take_along_axis(logits, predictions[:, None].astype(np.intp), axis=1)[:, 0]
        if (predicted == logits.max(axis=1)).all():
            return ""
    return "logits of other predictions"


def per_class_accuracy(correct: np.ndarray, labels: np.ndarray, classes: int) -> list[float | None]:
    """Return the accuracy of each class in [0, 1]; None for a class without an example."""
    return [float(correct[labels == c].mean()) if (labels == c).any() else None for c in range(classes)]


def load_correct(run: Run) -> np.ndarray:
    """Return [images] bool, True for correct predictions of a run.  Raises as `load_predictions`."""
    return load_predictions(run).correct


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the file: `predictions`, and those of the others that were stored.

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
    """Return an array; raise `ValueError` if it is of another kind, or larger than its data or the limit."""
    if archive.getinfo(f"{name}.npy").file_size > LARGEST:
        raise ValueError(f"`{name}` has more than {LARGEST:,} bytes")
    stream = io.BytesIO(archive.read(f"{name}.npy"))
    shape, kind = read_array_header(stream)
    data = stream.read()
    wanted, axes = KINDS[name]
    if kind != wanted or len(shape) != axes or math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(f"`{name}` is {kind} {shape}, not {wanted} of {axes} axes")
    return np.frombuffer(data, kind).reshape(shape)
