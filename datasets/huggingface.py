"""Read labelled images with Hugging Face's package `datasets`."""

from importlib import import_module
from pathlib import Path
from typing import Any

from .labelled import SUBSETS, LabelledImages, Listed, Subset, numbered
from .raw.source import Picture
from .reading import expanded, import_optional
from .task import DataError

PREFIX = "hf:"
"""Prefix of such a source."""


def from_huggingface(name: str) -> LabelledImages:
    """Read a data set of the hub by its name, or a folder of parquet files or of `save_to_disk`.

    The first column of images is used, and the first column of class labels, or else the column `label`, `labels` or
    `cls`.  Encoded images are taken unchanged.

    Raises:
        DataError: the package or the data set is missing, or it has no images, no labels, or other splits.
    """
    import_optional("datasets.load", f"the source {PREFIX}{name}", "hf")  # in a checkout, `datasets` is also our folder
    hub = import_module("datasets")
    parts = _parts(hub, name)
    listed: dict[Subset, Listed] = {}
    class_names: list[str] = []
    for split, part in parts.items():
        if split != "all" and split.lower() not in SUBSETS:
            raise DataError(f"{PREFIX}{name} has the split {split!r}; known are {', '.join(SUBSETS)}")
        image, label = _columns(hub, name, part)
        labels, named = list(part[label]), hasattr(part.features[label], "int2str")
        if any(value is None or value != value or (named and value < 0) for value in labels):  # NaN is not itself
            raise DataError(f"{PREFIX}{name}: the split {split} has images without a label; remove this split")
        if named:  # each split may number the classes in its own way
            names = list(part.features[label].names)
            class_names += [text for text in names if text not in class_names]
            labels = [names[number] for number in labels]
        elif any(isinstance(value, list | dict) for value in labels):
            raise DataError(f"{PREFIX}{name}: the column {label} has several labels per image; give each image one")
        subset: Subset = "all" if split == "all" else SUBSETS[split.lower()]
        keys = [f"{split}/{position:09d}" for position in range(len(labels))]
        listed[subset] = Listed(keys, [str(text) for text in labels], _Pictures(part, image, hub))
    return numbered(Path(name).name, f"{PREFIX}{name}", listed, class_names)


def _parts(hub: Any, name: str) -> dict[str, Any]:
    """Return the splits of a data set; `all` for the only one."""
    folder = expanded(name)
    try:
        if folder.is_dir() and not any(folder.rglob("*.parquet")):
            loaded = hub.load_from_disk(str(folder))
        else:
            loaded = hub.load_dataset(str(folder) if folder.is_dir() else name)
    except Exception as error:  # errors of the package, of its HTTP library and of the disk
        raise DataError(f"{PREFIX}{name} cannot be read: {type(error).__name__}: {error}") from None
    parts = dict(loaded) if isinstance(loaded, dict) else {"all": loaded}
    return parts if set(parts) != {"train"} else {"all": parts["train"]}


def _columns(hub: Any, name: str, part: Any) -> tuple[str, str]:
    features = part.features
    images = [column for column, kind in features.items() if isinstance(kind, hub.Image)]
    labels = [column for column, kind in features.items() if isinstance(kind, hub.ClassLabel)]
    labels += [column for column in ("label", "labels", "cls") if column in features]
    if not images or not labels:
        missing = "images" if not images else "class labels, and none is called label"
        raise DataError(f"{PREFIX}{name} has no column of {missing}; its columns are {', '.join(features)}")
    return images[0], labels[0]


class _Pictures:
    """Return the encoded image at a position."""

    def __init__(self, part: Any, column: str, hub: Any) -> None:
        self.rows, self.column = part.select_columns([column]).cast_column(column, hub.Image(decode=False)), column

    def __call__(self, position: int) -> Picture:
        found = self.rows[position][self.column] or {"bytes": b"", "path": None}
        return Path(found["path"]) if found["bytes"] is None else found["bytes"]
