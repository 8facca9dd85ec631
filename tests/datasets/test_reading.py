"""Tests of reading: only regular files of a bounded size, and messages that say why an image is not found."""

import io
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vtab_peft.benchmark.cli import main
from vtab_peft.datasets import reading
from vtab_peft.datasets.archive import examine
from vtab_peft.datasets.check import check
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.pixels import decode, probe
from vtab_peft.datasets.reading import is_complete_array, read_array_header, read_bytes
from vtab_peft.datasets.task import DataError

MakeFolder = Callable[..., Path]


@pytest.mark.parametrize("name", ["test.txt", "images/test_0.png", "task.toml", "classes.txt"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(
    kind: str, name: str, make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_folder() / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    assert main(["data", "check", "--deep", "--tasks", str(path.parents[name.count("/")])]) == 1
    assert str(path) in capsys.readouterr().out


def test_files_over_the_limit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(11))
    assert read_bytes(path, 11) == bytes(11)
    with pytest.raises(DataError, match=str(path)):
        read_bytes(path, 10)
    assert reading.LARGEST_TEXT < reading.LARGEST_FILE


def test_a_pipe_is_no_array(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npy")
    assert not is_complete_array(tmp_path / "x.npy")


def test_an_array_with_a_damaged_header_is_incomplete(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((3, 4), np.uint8))
    good = path.read_bytes()
    assert is_complete_array(path)
    with path.open("rb") as file:
        assert read_array_header(file) == ((3, 4), np.uint8)
    refused = 0
    for position in range(8, 70):
        for byte in b"([{'\0":
            damaged = good[:position] + bytes([byte]) + good[position + 1 :]
            path.write_bytes(damaged)
            try:
                read_array_header(io.BytesIO(damaged))
            except ValueError:  # numpy raises TokenError for most of these
                assert not is_complete_array(path), (position, byte)
                refused += 1
    assert refused > 200
    for damaged in (good[:-1], good + b"0", good[:50], b""):
        path.write_bytes(damaged)
        assert not is_complete_array(path), damaged


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("version = 1" + 23 * "0", "version"),
        ("version = -5", "version"),
        ("version = 0", "version"),
        ("version = true", "version"),
        ("version = 1" + 5000 * "0", "task.toml"),
        ("name = " + 5000 * "[" + 5000 * "]", "task.toml"),
        ("suite = 5", "suite"),
    ],
)
def test_wrong_facts_name_file_and_field(text: str, named: str, make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "task.toml").write_text(text)
    with pytest.raises(DataError) as caught:
        folder_task(folder)
    assert str(folder / "task.toml") in str(caught.value)
    assert named in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_large_intact_image_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("1", (14_000, 14_000)).save(path)
    for read in (probe, lambda path: decode(path, None)):
        with pytest.raises(DataError) as caught:
            read(path)
        assert "megapixels" in str(caught.value)
        assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("listed", "present", "named"),
    [
        ("images\\new.png", "images/new.png", "\\"),
        (unicodedata.normalize("NFC", "images/é.png"), unicodedata.normalize("NFD", "images/é.png"), "NFD"),
        (unicodedata.normalize("NFD", "images/é.png"), unicodedata.normalize("NFC", "images/é.png"), "NFC"),
        ("images/new.PNG", "images/new.png", "images/new.png: capital"),
    ],
)
def test_names_that_nearly_match_are_explained(listed: str, present: str, named: str, make_folder: MakeFolder) -> None:
    folder = make_folder()
    (folder / "images/test_0.png").rename(folder / present)
    path = folder / "test.txt"
    path.write_text(path.read_text().replace("images/test_0.png", listed))
    (problem,) = examine(folder_task(folder))[1]
    assert named in problem.text.partition(": ")[2].partition(listed)[2]
    path.write_text(path.read_text().replace(listed, present))
    assert check(folder_task(folder)).state == "found"


def test_a_cache_in_an_unknown_home_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VTAB_PEFT_CACHE", "~nobody-of-this-name/x")
    assert main(["data", "cache", "--list"]) == 1
    assert "~nobody-of-this-name/x" in capsys.readouterr().err
