"""CIFAR-100 as pickles and as binary records, written here in the format of its publisher."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_files import RNG, noise, numbered, same
from raises import raises_naming
from vtab_peft.datasets.raw import cifar100
from vtab_peft.datasets.raw.sources import SOURCES
from vtab_peft.datasets.task import DataError


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes bytes as Python 2 wrote its texts, which is how CIFAR-100 was pickled in 2009."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_str(self, text: bytes) -> None:
        start = b"U" + bytes([len(text)]) if len(text) < 256 else b"T" + struct.pack("<i", len(text))
        self.write(start + text)
        self.memoize(text)

    dispatch[bytes] = save_str


def python2(content: object, path: Path) -> None:
    with path.open("wb") as file:
        Python2Pickler(file, 2).dump(content)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def python3(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=4))


@pytest.fixture
def cifar_rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Images [n, 32, 32, 3] and fine labels of a small train and test part."""
    monkeypatch.setattr(cifar100, "ROWS", {"train": 50, "test": 12})
    return {part: (noise(n, 32, 32, 3), [int(x) for x in RNG.integers(0, 100, n)]) for part, n in cifar100.ROWS.items()}


@pytest.mark.parametrize("write", [python2, python3])
def test_cifar_as_python_pickles(write: Any, cifar_rows: dict, tmp_path: Path) -> None:
    (tmp_path / "cifar-100-python").mkdir()
    for part, (images, labels) in cifar_rows.items():
        planes = np.stack([np.concatenate([image[..., c].ravel() for c in range(3)]) for image in images])
        content = {b"data": planes, b"fine_labels": labels, b"coarse_labels": [0] * len(labels), b"batch_label": b"1"}
        write(content, tmp_path / "cifar-100-python" / part)
    splits = SOURCES["cifar"].read(tmp_path)
    for split, part in (("train", "train"), ("val", "train"), ("test", "test")):
        images, labels = cifar_rows[part]
        assert same(splits[split], numbered(images), numbered(labels))
    assert (len(splits["train"]), len(splits["val"]), len(splits["test"])) == (50, 5, 12)


def test_cifar_as_binary_records(cifar_rows: dict, tmp_path: Path) -> None:
    (tmp_path / "cifar-100-binary").mkdir()
    for part, (images, labels) in cifar_rows.items():
        records = [
            bytes([19, label]) + image[..., 0].tobytes() + image[..., 1].tobytes() + image[..., 2].tobytes()
            for image, label in zip(images, labels, strict=True)
        ]
        (tmp_path / "cifar-100-binary" / f"{part}.bin").write_bytes(b"".join(records))
    splits = SOURCES["cifar"].read(tmp_path)
    images, labels = cifar_rows["test"]
    assert same(splits["test"], numbered(images), numbered(labels))
    (tmp_path / "cifar-100-binary" / "train.bin").write_bytes(b"".join(records))
    with raises_naming(DataError, "12 train images"):
        SOURCES["cifar"].read(tmp_path)
    (tmp_path / "cifar-100-binary" / "train.bin").write_bytes(b"x" * 1000)
    with raises_naming(DataError, "train.bin"):
        SOURCES["cifar"].read(tmp_path)


class Harmful:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("hidden_in", ["content", "array"])
def test_a_pickle_that_wants_to_run_something_is_refused(protocol: int, hidden_in: str, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for harmful in (
        Harmful(os.system, f"touch {tmp_path}/run"),
        Harmful(exec, f"open('{tmp_path}/run', 'w')"),
        Harmful(np.load, f"{tmp_path}/x.npy"),
        Harmful(getattr, "text", "upper"),
    ):
        data = harmful if hidden_in == "content" else np.array([harmful], dtype=object)
        (folder / "train").write_bytes(pickle.dumps({b"data": data, b"fine_labels": []}, protocol))
        with raises_naming(DataError, "pickle"):
            SOURCES["cifar"].read(tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02}q", b"not a pickle", pickle.dumps([1]), pickle.dumps({b"data": 1})]
)
def test_a_damaged_pickle_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "train").write_bytes(content)
    with raises_naming(DataError, tmp_path / "cifar-100-python/train"):
        SOURCES["cifar"].read(tmp_path)
