"""What the sources that are made of image files share."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..archive import read_text
from ..task import DataError, SplitName
from .source import Examples, first_1000, tfds_order


def lines(path: Path) -> list[str]:
    """The lines of a list file, without the empty ones.

    Raises:
        DataError: it cannot be read, or holds none.
    """
    found = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if not found:
        raise DataError(f"{path} is empty; get it again")
    return found


def official(train: Examples, validation: Examples, test: Examples) -> dict[SplitName, Examples]:
    """The splits of a task whose original has a validation set: train[:800], validation[:200] and all of test.

    The examples come as the original lists them, and are put into the order of TFDS's splits of these names.
    """
    return {
        "train": train.take(tfds_order(train.keys, "train")[:800]),
        "val": validation.take(tfds_order(validation.keys, "validation")[:200]),
        "test": test.take(tfds_order(test.keys, "test")),
    }


def require(paths: Iterable[Path]) -> None:
    """Find out that image files are absent before hours are spent on the others; the message names one of them."""
    absent = [path for path in paths if not path.is_file()]
    if absent:
        others = f" (and {len(absent) - 1} more files)" if len(absent) > 1 else ""
        raise DataError(f"there is no {absent[0]}{others}; unpack the download again")


def class_id(name: str, names: Sequence[str], where: str) -> int:
    """TFDS's number of a class; `where` says what named it."""
    try:
        return names.index(name)
    except ValueError:
        raise DataError(f"{where}: {name!r} is none of the {len(names)} classes {names[0]} to {names[-1]}") from None


def number(text: str, first: int, last: int, where: str) -> int:
    """The integer that `text` stands for, from `first` to `last`."""
    try:
        value = int(text)
    except ValueError:
        value = first - 1
    if not first <= value <= last:
        raise DataError(f"{where}: {text!r} is no number from {first} to {last}")
    return value


def class_folders(root: Path, class_names: Sequence[str]) -> Examples:
    """A folder `<class>/<file>.jpg` as TFDS keys it, `<class>_<file>.jpg`, in alphabetical order.

    Raises:
        DataError: a class has no folder, or no image in it.
    """
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = sorted((root / name).glob("*.jpg"))
        if not found:
            raise DataError(f"{root / name}: has no .jpg files, or is not there; unpack the download again")
        files += found
        labels += [label] * len(found)
    return Examples([f"{file.parent.name}_{file.name}" for file in files], labels, lambda i: files[i])


def sixty_twenty_twenty(whole: Examples) -> dict[SplitName, Examples]:
    """The splits of a task whose original is one set: 60 % of TFDS's train hold the 800, 20 % the 200, 20 % are test.

    The 800 are the first of all.  Limits are rounded down (google-research/task_adaptation data/eurosat.py,
    data/resisc45.py).
    """
    order = tfds_order(whole.keys, "train")
    val_from = len(order) * 60 // 100
    test_from = val_from + len(order) * 20 // 100
    return {**first_1000(whole, order, val_from), "test": whole.take(order[test_from:])}
