"""Stored predictions: reading the `.npz` file beside a record."""

import zipfile

import numpy as np

from .schema import Run


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
    try:
        with np.load(path) as archive:
            correct = archive["correct"]
            accuracy = float(correct.mean())
    except FileNotFoundError:
        raise PredictionsMissing(f"{path} is missing") from None
    except KeyError:
        raise PredictionsDamaged(f"{path.name} has no array `correct`") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise PredictionsDamaged(f"{path.name} cannot be read ({error})") from None
    if not correct.ndim == 1 or not abs(accuracy - run.accuracy) <= 1e-6:
        raise PredictionsDamaged(f"{path.name} contradicts the accuracy in its JSON")
    return correct
