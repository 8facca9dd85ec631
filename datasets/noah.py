"""Task folders with the few-shot lists that NOAH published for five data sets.

The lists lie in `raw/noah_lists`; the images are those of the original data sets, which the user has.
"""

import json
import lzma
from collections import defaultdict
from pathlib import Path

from .archive import read
from .folder import folder_task
from .raw.atomic_folder import atomic_folder
from .reading import expanded
from .task import DataError, Task, nearest

LISTS = Path(__file__).parent / "raw" / "noah_lists"
IMAGES = {
    "fgvc_aircraft": "images",
    "food101": "images",
    "oxford_flowers102": "jpg",
    "oxford_pets": "images",
    "stanford_cars": "(with cars_train and cars_test)",
}
"""Task -> folder of images in the original archive."""
SOURCE = "lists of github.com/ZhangYuanhan-AI/NOAH, commit e9c55f3 (arXiv:2206.04673)"


def noah_task(name: str, images: Path, folder: Path) -> Task:
    """Make a task folder with NOAH's lists, and a link `images` to the images.

    train is the union of the few-shot lists, which are `shots_<k>_seed_<s>.txt`; val and test are NOAH's.

    Raises:
        ValueError: there are no lists for `name`.
        DataError: images are missing, or the folder is not empty or cannot be written.
    """
    if name not in IMAGES:
        raise ValueError(f"NOAH has no lists for {name!r}{nearest(name, IMAGES)}; it has them for {', '.join(IMAGES)}")
    images, folder = expanded(images).resolve(), expanded(folder).resolve()
    if not images.is_dir():
        raise DataError(f"there is no folder {images}; give the original folder of images, {IMAGES[name]}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists already; give a new or empty folder")
    facts = {"suite": "noah", "name": name, "source": SOURCE}
    try:
        with atomic_folder(folder) as staged:
            (staged / "images").symlink_to(images)
            for file, lines in lists(name).items():
                (staged / file).write_text("".join(lines), "utf-8")
            text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in facts.items())
            (staged / "task.toml").write_text(text, "utf-8")
            read(folder_task(staged))  # raises for missing images
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}; nothing was left behind") from None
    return folder_task(folder)


def lists(name: str) -> dict[str, list[str]]:
    """Return file name -> lines of the lists of a task folder."""
    found: dict[str, list[str]] = defaultdict(list)
    with lzma.open(LISTS / f"{name}.txt.xz", "rt", encoding="utf-8") as text:
        for line in text:
            file, label, members = line.split()
            names = members.split(",")
            shots = [member.split(".") for member in names if "." in member]
            for target in (
                *(f"{split}.txt" for split in ("val", "test") if split in names),
                *(["train.txt"] if shots else []),
                *(f"shots_{count}_seed_{seed}.txt" for count, seed in shots),
            ):
                found[target].append(f"images/{file} {label}\n")
    return dict(found)
