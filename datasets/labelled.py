"""Read labelled images of other layouts: one folder per class, or a CSV file; huggingface.py has a third.

Each source becomes `LabelledImages`; draw.py makes the splits of a task from it.
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal, NoReturn

from PIL import Image

from .raw.source import Examples, Picture
from .reading import read_text
from .task import DataError

Subset = Literal["all", "train", "val", "test"]
SUBSETS: dict[str, Subset] = {
    **{"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"},
    **{"test": "test", "testing": "test"},
}
"""Names of folders, and of splits of CSV files and Hugging Face data sets."""
COLUMNS = ("path", "label", "split")
"""Columns of a CSV file that are read; `split` is optional."""
PICTURES = {"", ".arw", ".avif", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".hif", ".jxl", ".nef", ".raw", ".svg"}
"""Extensions of pictures that the installed Pillow may not read (our choice); other files are no pictures."""


@dataclass(frozen=True)
class LabelledImages:
    """Labelled images, in the subsets that their source has."""

    name: str
    class_names: tuple[str, ...]
    subsets: Mapping[Subset, Examples]
    """`all`, or `train` with any of `val` and `test`.  Keys are unique names, such as paths relative to the source."""
    left_out: tuple[str, ...] = ()
    """Remarks on what the source has beside its labelled images."""


@dataclass(frozen=True)
class Listed:
    """A subset before its classes are numbered."""

    keys: Sequence[str]
    labels: Sequence[str]
    picture: Callable[[int], Picture]


def from_class_folders(root: Path) -> LabelledImages:
    """Read torchvision's ImageFolder layout: <class>/..., or <subset>/<class>/... with the names of `SUBSETS`.

    Classes are numbered in the order of their sorted names, over all subsets.  Images in subfolders of a class count.
    Hidden files and files without an image extension that Pillow knows are left out.

    Raises:
        DataError: there are fewer than two classes, classes beside the subsets, or two folders for one subset.
    """
    folders = _subfolders(root)
    named: list[tuple[Subset, Path]] = [
        (SUBSETS[folder.name.lower()], folder) for folder in folders if folder.name.lower() in SUBSETS
    ]
    places: dict[Subset, Path] = dict(named)
    if "train" not in places:
        places = {"all": root}
    elif twice := [f"{f.name}/ and {places[subset].name}/" for subset, f in named if places[subset] is not f]:
        raise DataError(f"{root} has {twice[0]} for one subset; leave one of them")
    elif others := [folder.name for folder in folders if folder not in places.values()]:
        if any(_subfolders(place) for place in places.values()):
            raise DataError(f"{root} has {others[0]}/ beside train/; give a folder that has only subsets or classes")
        places = {"all": root}  # of pictures of trains, beside those of cars
    listed: dict[Subset, Listed] = {}
    left_out: list[str] = []
    endings = Image.registered_extensions()
    for subset, place in places.items():
        below = {folder: list(_visible_files(folder)) for folder in _subfolders(place)}
        by_class = {folder: _images(files) for folder, files in below.items()}
        left_out += [f"{folder} has no images, so it is no class" for folder, files in by_class.items() if not files]
        links = [link for folder in by_class for link in _linked_folders(folder)]
        left_out += [f"{link} is a link to a folder, which is not followed; move its images here" for link in links]
        if kinds := _unknown_pictures(chain(*below.values())):
            left_out.append(
                f"left out below {place}, because Pillow does not know their extension: {kinds}; convert them"
            )
        beside = [path for path in place.iterdir() if not path.name.startswith(".")]
        lost = _lost_links(chain(beside, *below.values()))
        left_out += [f"{link} is a link that leads nowhere; restore its target or remove it" for link in lost]
        if loose := sum(path.suffix.lower() in endings and path.is_file() for path in place.iterdir()):
            left_out.append(f"{loose} of the images lie in {place} itself, in no class, and are left out")
        found = [(folder.name, file) for folder, files in by_class.items() for file in files]
        if not found and subset in ("val", "test"):
            left_out.append(f"{place} has no images; the splits are drawn as without it")
            continue
        files = [file for _, file in found]
        keys = [file.relative_to(root).as_posix() for file in files]
        listed[subset] = Listed(keys, [name for name, _ in found], files.__getitem__)
    if not any(part.keys for part in listed.values()):
        raise DataError(f"{root} has no class folders with images; give the folder that contains one folder per class")
    return replace(numbered(root.name, str(root), listed), left_out=tuple(left_out))


def from_csv(path: Path) -> LabelledImages:
    """Read a CSV file with a header and the columns `path`, `label` and, optionally, `split`.

    Paths are relative to the file's folder.  Labels are names of classes; whole numbers are sorted as numbers.

    Raises:
        DataError: a column or a value is missing, or a split is unknown; the message names the line.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=None), skipinitialspace=True)  # any line ending
    try:
        lines = [(reader.line_num, line) for line in reader]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from None
    if missing := {"path", "label"} - set(reader.fieldnames or ()):
        found = ", ".join(reader.fieldnames or ()) or "none"
        advice = "; separate them by commas" if {";", "\t"} & set(found) else ""
        needed = f"no column {' or '.join(sorted(missing))}; needed are path, label and maybe split"
        raise DataError(f"{path} has {needed}; its columns are {found!r:.100}{advice}")
    if twice := [name for name in COLUMNS if list(reader.fieldnames or ()).count(name) > 1]:
        raise DataError(f"{path} has the column {twice[0]} more than once; leave one of them")
    rows: dict[Subset, list[tuple[str, str]]] = {}
    spelled: dict[str, str] = {}
    for number, line in lines:
        file, label, split = ((line.get(name) or "").strip() for name in COLUMNS)
        subset = SUBSETS.get(split.lower()) if split else "all"
        if not file or not label:
            raise DataError(f"{path}:{number}: the line has no {'label' if file else 'path'}")
        if subset is None:
            raise DataError(f"{path}:{number}: the split {split!r:.80} is unknown; known are {', '.join(SUBSETS)}")
        if (known := spelled.setdefault(os.path.normpath(file), file)) != file:
            raise DataError(f"{path}:{number}: {file} and {known} are one image; list each image once")
        rows.setdefault(subset, []).append((file, label))
    listed: dict[Subset, Listed] = {}
    for subset, pairs in rows.items():
        files = [path.parent / file for file, _ in pairs]
        listed[subset] = Listed([file for file, _ in pairs], [label for _, label in pairs], files.__getitem__)
    return numbered(path.stem, str(path), listed)


def numbered(name: str, where: str, listed: Mapping[Subset, Listed], class_names: Sequence[str] = ()) -> LabelledImages:
    """Number the classes: in the order of `class_names`, or else of their sorted names.

    Raises:
        DataError: there are fewer than two classes, no training images, an image twice, or other subsets beside `all`.
    """
    used = {label for part in listed.values() for label in part.labels}
    whole_numbers = all(label.isascii() and label.isdecimal() for label in used)
    names = tuple(class_names) or tuple(sorted(used, key=int) if whole_numbers else sorted(used))
    if len(used) < 2:
        raise DataError(f"{where} has images of {len(used)} class{'es' * (not used)}; a task needs at least 2")
    if ("all" in listed) == ("train" in listed) or ("all" in listed and len(listed) > 1):
        raise DataError(f"{where} has the subsets {', '.join(listed)}; a task needs train, or images without subsets")
    keys = [key for part in listed.values() for key in part.keys]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{where} lists {twice} twice; list each image once")
    if odd := next((text for text in (*names, *keys) if not _is_one_line(text)), None):
        raise DataError(f"{where}: the name {odd!r} cannot be a line of a list; rename it")
    numbers = {text: number for number, text in enumerate(names)}
    return LabelledImages(
        name,
        names,
        {
            subset: Examples(part.keys, [numbers[label] for label in part.labels], part.picture)
            for subset, part in listed.items()
        },
    )


def _is_one_line(text: str) -> bool:
    """Return True for valid text without line breaks, null characters, or spaces at its ends."""
    return "\0" not in text and text.splitlines() == [text.strip()] and text.encode(errors="replace").decode() == text


def _images(files: Iterable[Path]) -> list[Path]:
    """Return the files with an image extension that Pillow knows, sorted.

    Links that lead nowhere are among them: reading them fails, so that they are not left out in silence.
    """
    endings = Image.registered_extensions()
    images = [path for path in files if path.suffix.lower() in endings]
    return sorted(path for path in images if os.path.isfile(path) or not os.path.exists(path))  # noqa: PTH110, PTH113


def _unknown_pictures(files: Iterable[Path]) -> str:
    """Return the extensions of files that may be pictures, but not for Pillow, with their numbers: `2 .heic`."""
    endings = PICTURES - Image.registered_extensions().keys()
    counts = Counter(path.suffix.lower() for path in files if path.suffix.lower() in endings and path.is_file())
    return endings_in_words(counts)


def endings_in_words(counts: Counter[str], shown: int | None = None) -> str:
    """Return numbers and extensions of files, such as `2 .heic, 1 without any`: the most frequent ones, or all."""
    known = [f"{number} {ending or 'without any'}" for ending, number in counts.most_common(shown)]
    return ", ".join([*known, *(["..."] if len(counts) > len(known) else [])])


def _visible_files(folder: Path) -> Iterator[Path]:
    """Yield everything below `folder` but folders and what is hidden; raise `DataError` if a folder cannot be read."""
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _refuse(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: the folder cannot be read ({error.strerror}); change its permissions")


def _linked_folders(folder: Path) -> list[Path]:
    """Return the links to folders below `folder`, sorted; hidden ones are left out."""
    below = (Path(place) / name for place, names, _ in os.walk(folder) for name in names if not name.startswith("."))
    return sorted(path for path in below if path.is_symlink())


def _lost_links(files: Iterable[Path]) -> list[Path]:
    """Return the links to nothing that are no images, such as those to folders on another disk, sorted."""
    endings = Image.registered_extensions()
    others = [path for path in files if path.suffix.lower() not in endings]
    return sorted(path for path in others if path.is_symlink() and not path.exists())


def _subfolders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        _refuse(error)
