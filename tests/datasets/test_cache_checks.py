"""Tests of the checks of cached arrays: damage is found and repaired, and decoders do not share pixels."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cached_tasks import BICUBIC, MakeFolder, pixels
from vtab_peft.benchmark.cli import main
from vtab_peft.datasets import cache, checksum
from vtab_peft.datasets.cache import build, cached
from vtab_peft.datasets.checksum import is_intact
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.manifest import read_manifest
from vtab_peft.datasets.task import SPLITS


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def manifest_of(root: Path) -> Path:
    (path,) = (root / "tasks").rglob("*.json")
    return path


def zero(path: Path) -> None:
    np.save(path, np.zeros_like(np.load(path)))


def flip_a_byte(path: Path) -> None:
    """Change one byte without a trace in size and times."""
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("kind", [0, 1], ids=["images", "labels"])
@pytest.mark.parametrize("harm", [zero, flip_a_byte])
def test_damaged_arrays_are_not_used(
    harm: Callable[[Path], None], kind: int, make_folder: MakeFolder, root: Path
) -> None:
    task = folder_task(make_folder())
    made = build(task, BICUBIC, root)
    before, path = pixels(made), made.files["test"][kind]
    harm(path)
    assert cached(task, BICUBIC, root) is None
    again = build(task, BICUBIC, root)
    assert again.replaced == ((path,) if kind == 0 else ())
    assert pixels(again) == before
    assert again.labels("test").tolist() == [0, 1, 0, 1, 0]
    assert cached(task, BICUBIC, root, full=True) == made


def test_large_files_are_checked_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksum, "BLOCK", 10)
    path = tmp_path / "x.npy"
    path.write_bytes(bytes(995))
    expected = checksum.checksum(path)
    assert len(expected) == 100 * checksum.DIGITS
    for place, seen in [(0, True), (15, False), (994, True)]:
        path.write_bytes(bytes(place) + b"x" + bytes(994 - place))
        assert is_intact(path, expected, full=False) is not seen
        assert not is_intact(path, expected, full=True)
    path.write_bytes(bytes(980))
    assert not is_intact(path, expected, full=False)


def test_arrays_younger_than_the_manifest_are_checked_in_full(
    make_folder: MakeFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksum, "BLOCK", 100)
    monkeypatch.setattr(checksum, "SAMPLED", 2)
    task = folder_task(make_folder())
    path = build(task, BICUBIC, root).files["test"][0]
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    os.utime(path, (0, 0))
    assert cached(task, BICUBIC, root)
    assert cached(task, BICUBIC, root, full=True) is None
    path.touch()
    assert cached(task, BICUBIC, root) is None


def test_caches_of_older_versions_are_found_and_get_checksums(make_folder: MakeFolder, root: Path) -> None:
    task = folder_task(make_folder())
    made = build(task, BICUBIC, root)
    new, old = cache._manifest_paths(task, BICUBIC, root)
    manifest = json.loads(new.read_text())
    del manifest["checksums"]
    old.write_text(json.dumps(manifest))
    new.unlink()
    assert cached(task, BICUBIC, root) == made
    upgraded = read_manifest(manifest_of(root))
    assert upgraded is not None
    assert set(upgraded.checksums) == {str(path.relative_to(root)) for pair in made.files.values() for path in pair}
    zero(made.files["train"][0])
    assert cached(task, BICUBIC, root) is None


def test_two_decoders_never_share_pixels(make_folder: MakeFolder, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = folder_task(make_folder())
    mine = build(task, BICUBIC, root)
    monkeypatch.setattr(cache.PIL, "__version__", "12.3.0")
    assert cached(task, BICUBIC, root) is None
    other = build(task, BICUBIC, root)
    assert other.data == mine.data
    assert not {other.files[split][0] for split in SPLITS} & {mine.files[split][0] for split in SPLITS}
    monkeypatch.undo()
    assert cached(task, BICUBIC, root) == mine


def test_an_old_manifest_of_another_decoder_is_not_used(make_folder: MakeFolder, root: Path) -> None:
    task = folder_task(make_folder())
    build(task, BICUBIC, root)
    new, old = cache._manifest_paths(task, BICUBIC, root)
    old.write_text(new.read_text().replace(cache.PIL.__version__, "12.3.0"))
    new.unlink()
    assert cached(task, BICUBIC, root) is None


@pytest.mark.parametrize("field", ["classes", "counts", "images", "labels", "native", "preprocessing", "checksums"])
@pytest.mark.parametrize("value", [None, -1, "../../x", [], {"train": 5}, 10**30, {"a": {}}], ids=str)
def test_manifests_with_wrong_fields_are_damaged(
    field: str, value: object, make_folder: MakeFolder, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = folder_task(make_folder())
    made = build(task, BICUBIC, root)
    path = manifest_of(root)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    found = cached(task, BICUBIC, root)
    assert found is None or found.files == made.files
    assert main(["data", "cache", "--list"]) == 0
    assert build(task, BICUBIC, root) == made


def test_deep_check_finds_damaged_caches(
    make_folder: MakeFolder, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder()
    made = build(folder_task(folder), BICUBIC, root)
    command = ["data", "check", "--tasks", str(folder), "--deep"]
    assert main(command) == 0
    flip_a_byte(made.files["val"][0])
    capsys.readouterr()
    assert main(command) == 1
    assert str(made.files["val"][0]) in capsys.readouterr().out
