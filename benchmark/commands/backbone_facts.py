"""Backbones as plain data for `list backbones`.

Building a model to count its parameters takes seconds, so `backbone_sizes.csv` holds class and parameters of each
architecture at each image size.  Models of plug-ins and of other versions of timm are built when they are listed.

    python -m vtab_peft.benchmark.commands.backbone_facts      counts what is missing and rewrites the file
"""

import csv
from pathlib import Path
from typing import Any

import torch

from ...datasets.atomic_io import atomic_write
from ..engine.backbone import facts, names

TABLE = Path(__file__).with_name("backbone_sizes.csv")
HEAD = ("architecture", "image_size", "class", "parameters")

Size = tuple[str, int]
"""Class in timm, and number of parameters without the classifier."""
Key = tuple[str, int]
"""Architecture and image size in pixels."""


def backbones() -> list[dict[str, Any]]:
    """Return a row for each backbone, ordered by class and number of parameters."""
    rows, sizes = [], load()
    for name in names():
        known, key = facts(name), key_of(name)
        family, parameters = sizes.get(key) or count(name)
        rows.append(
            {
                "name": name,
                "class": family,
                "parameters": parameters,
                "image_size": known.image_size,
                "licence": known.licence,
                "hub": known.hub,
                "mean": known.mean,
                "std": known.std,
            }
        )
    return sorted(rows, key=lambda row: (row["class"], row["parameters"], row["name"]))


def count(name: str) -> Size:
    """Return class and size of one of `names`, built without memory."""
    known = facts(name)
    with torch.device("meta"):
        vit = known.build(known.image_size)
    return type(vit).__name__, sum(parameter.numel() for parameter in vit.parameters())


def load() -> dict[Key, Size]:
    """Read the file."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return {(r["architecture"], int(r["image_size"])): (r["class"], int(r["parameters"])) for r in rows}


def key_of(name: str) -> Key:
    """Return the row of the file that a backbone has."""
    return name.partition(".")[0], facts(name).image_size


def write() -> None:
    """Count the backbones that the file lacks, drop those that timm no longer has, and rewrite it."""
    known = load() if TABLE.exists() else {}
    found = {key_of(name): known.get(key_of(name)) or count(name) for name in names()}
    lines = [",".join(HEAD), *(",".join(map(str, (*key, *size))) for key, size in sorted(found.items())), ""]
    with atomic_write(TABLE) as file:
        file.write("\n".join(lines).encode())


if __name__ == "__main__":
    write()
