"""Manifests of the cache: one per task and preprocessing, with its facts, its arrays and their checksums."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from .atomic_io import atomic_write
from .checksum import is_intact
from .reading import read_json
from .task import SPLITS, DataError, SplitName

FILE_NAME = re.compile(r".+-[0-9a-f]{16}\.json")
ArrayName = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Checksums = Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9a-f]{8})*\Z")]
Images = Annotated[int, msgspec.Meta(ge=0, lt=2**40)]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Content of a manifest.

    Raises:
        ValueError: a split is missing.  Reading also checks types, and that names of files stay in the cache.
    """

    task: str
    """Label, such as `vtab1k/cifar`."""
    classes: Images
    counts: dict[SplitName, Images]
    data: str
    """Data hash, see `identity.data_hash`."""
    images: dict[SplitName, ArrayName]
    """File of each split in `images/`, without ending."""
    labels: dict[SplitName, ArrayName]
    """File of each split in `labels/`, without ending: the SHA-256 of the labels."""
    native: bool
    preprocessing: dict[str, Any]
    provenance: str
    stamp: str
    """Fingerprint of the sources, see `identity.source_fingerprint`."""
    folder: str | None = None
    """Source folder; None for procedural tasks and in the oldest manifests."""
    pillow: str = ""
    """Version of Pillow that decoded the images; decoders differ in their pixels."""
    checksums: dict[str, Checksums] = field(default_factory=dict)
    """Array relative to the cache -> `checksum.checksum`; empty in manifests of older versions."""
    repeated: Images = 0
    """Test images that are byte for byte in train or val; zero in manifests of older versions."""

    def __post_init__(self) -> None:
        if any(own.keys() != set(SPLITS) for own in (self.counts, self.images, self.labels)):
            raise ValueError("counts, images or labels lack a split")

    def files(self, root: Path) -> dict[SplitName, tuple[Path, Path]]:
        """Return the images and labels of each split."""
        return {
            split: (root / "images" / f"{self.images[split]}.npy", root / "labels" / f"{self.labels[split]}.npy")
            for split in SPLITS
        }

    def arrays(self, root: Path) -> list[Path]:
        """Return all files of images and labels."""
        return [file for pair in self.files(root).values() for file in pair]

    def damaged(self, root: Path, full: bool) -> list[Path]:
        """Return the arrays whose content differs from their checksums; see `checksum.is_intact`."""
        known = [(path, self.checksums.get(name_of(path, root))) for path in self.arrays(root)]
        return [path for path, expected in known if expected is not None and not is_intact(path, expected, full)]

    def save(self, path: Path) -> None:
        with atomic_write(path) as file:
            file.write(json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n")


def name_of(array: Path, root: Path) -> str:
    """Return the name by which `Manifest.checksums` lists an array."""
    return array.relative_to(root).as_posix()


def read_manifest(path: Path) -> Manifest | None:
    """Return a manifest, or None if it is missing or damaged."""
    try:
        return read_json(path, Manifest)
    except DataError:
        return None


def manifests(root: Path) -> Iterator[tuple[Path, Manifest | None]]:
    """Yield every manifest of a cache with its path; None for damaged ones."""
    for path in sorted((root / "tasks").glob("*/*.json")):
        if FILE_NAME.fullmatch(path.name):
            manifest = read_manifest(path)
            if manifest is not None or path.exists():  # another process may have just removed it
                yield path, manifest
