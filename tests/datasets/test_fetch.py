"""Tests of `data fetch`: original files in the raw folder, or instructions for manual downloads."""

import hashlib
import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fileserver import FileServer, tarred, zipped
from raises import raises_naming
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands import data_fetch as fetching
from vtab_peft.benchmark.commands.data_fetch import ProgressPrinter
from vtab_peft.datasets.download import ProgressFn
from vtab_peft.datasets.fetch import Item, fetch
from vtab_peft.datasets.raw.source import RawFile, Source
from vtab_peft.datasets.raw.sources import SOURCES
from vtab_peft.datasets.task import DataError

PUBLIC = {
    "/svhn/train_32x32.mat": b"pixels" * 1000,
    "/dtd/dtd-r1.0.1.tar.gz": tarred({"dtd/labels/test1.txt": b"x", "dtd/images/banded/1.jpg": b"y"}),
    "/kitti/data_object_image_2.zip": zipped({"training/image_2/0.png": b"i", "testing/image_2/0.png": b"t"}),
    "/kitti/data_object_label_2.zip": zipped({"training/label_2/0.txt": b"l"}),
    "/pcam/train_y.h5.gz": b"gzipped, and wanted like that",
}


@pytest.fixture
def server(server: FileServer) -> FileServer:
    server.files = dict(PUBLIC)
    return server


class Silent:
    """Nobody wants to know."""

    def begin(self, what: str) -> ProgressFn:
        return lambda _done, _total: None

    def note(self, text: str) -> None:
        pass


SILENT = Silent()


def item(server: FileServer, path: str, url: str, raw: Path, **facts: Any) -> Item:
    return Item(("task",), raw, RawFile(path, server.url(url), **facts))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_plain_file_lies_under_its_path(server: FileServer, tmp_path: Path) -> None:
    known = sha256(PUBLIC["/svhn/train_32x32.mat"])
    wanted = item(server, "train_32x32.mat", "/svhn/train_32x32.mat?raw=true", tmp_path, sha256=known)
    assert wanted.state == "to fetch"
    fetch(wanted, SILENT)
    assert (tmp_path / "train_32x32.mat").read_bytes() == PUBLIC["/svhn/train_32x32.mat"]
    assert wanted.state == "present"
    fetch(wanted, SILENT)
    assert len(server.requests) == 1


def test_a_wrong_file_put_there_by_hand_is_named(server: FileServer, tmp_path: Path) -> None:
    wanted = item(server, "train_32x32.mat", "/svhn/train_32x32.mat", tmp_path, sha256="0" * 64)
    wanted.download.write_bytes(b"half of it")
    with raises_naming(DataError, wanted.download, "0" * 64):
        fetch(wanted, SILENT)
    assert names(tmp_path) == {"train_32x32.mat"}


def test_an_archive_is_unpacked_and_does_not_stay(server: FileServer, tmp_path: Path) -> None:
    fetch(item(server, "dtd", "/dtd/dtd-r1.0.1.tar.gz", tmp_path), SILENT)
    assert names(tmp_path) == {"dtd/labels/test1.txt", "dtd/images/banded/1.jpg"}


def test_an_archive_that_is_wanted_as_it_is_stays_packed(server: FileServer, tmp_path: Path) -> None:
    fetch(item(server, "train_y.h5.gz", "/pcam/train_y.h5.gz", tmp_path, instead=("train_y.h5",)), SILENT)
    assert names(tmp_path) == {"train_y.h5.gz"}


def test_two_archives_share_a_folder(server: FileServer, tmp_path: Path) -> None:
    for part, archive in (("image_2", "data_object_image_2"), ("label_2", "data_object_label_2")):
        fetch(item(server, f"training/{part}", f"/kitti/{archive}.zip", tmp_path), SILENT)
    assert names(tmp_path) == {"training/image_2/0.png", "training/label_2/0.txt", "testing/image_2/0.png"}


def test_another_accepted_form_counts_as_there(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "train_y.h5").write_bytes(b"unpacked")
    assert item(server, "train_y.h5.gz", "/x", tmp_path, instead=("train_y.h5",)).state == "present"


def test_a_manual_archive_is_verified_extracted_and_kept(server: FileServer, tmp_path: Path) -> None:
    data = PUBLIC["/dtd/dtd-r1.0.1.tar.gz"]
    (tmp_path / "dtd-r1.0.1.tar.gz").write_bytes(data)
    wanted = item(server, "dtd", "/dtd/dtd-r1.0.1.tar.gz", tmp_path, sha256=sha256(data), manual="log in")
    assert wanted.state == "to extract"
    fetch(wanted, SILENT)
    assert (tmp_path / "dtd").is_dir()
    assert (tmp_path / "dtd-r1.0.1.tar.gz").exists()
    assert server.requests == []


def test_a_wrong_archive_put_there_by_hand_is_left_alone(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "dtd.zip").write_bytes(zipped({"dtd/x": b""}))
    wanted = item(server, "dtd", "/dtd.zip", tmp_path, sha256="0" * 64)
    with raises_naming(DataError, tmp_path / "dtd.zip", "SHA256", "0" * 64):
        fetch(wanted, SILENT)
    assert names(tmp_path) == {"dtd.zip"}


def test_a_wrong_archive_leaves_no_files(server: FileServer, tmp_path: Path) -> None:
    with raises_naming(DataError, "dtd-r1.0.1.tar.gz", "textures"):
        fetch(item(server, "textures", "/dtd/dtd-r1.0.1.tar.gz", tmp_path), SILENT)
    assert names(tmp_path) == {"dtd-r1.0.1.tar.gz"}


def test_a_mirror_is_used_when_the_publisher_is_gone(server: FileServer, tmp_path: Path) -> None:
    data = PUBLIC["/dtd/dtd-r1.0.1.tar.gz"]
    mirror = RawFile("dtd", server.url("/dtd/dtd-r1.0.1.tar.gz"), md5=hashlib.md5(data).hexdigest())
    gone = item(server, "dtd", "/gone/textures.tar.gz", tmp_path, mirror=mirror)
    fetch(gone, SILENT)
    assert (tmp_path / "dtd").is_dir()
    assert [request.path for request in server.requests] == ["/gone/textures.tar.gz", "/dtd/dtd-r1.0.1.tar.gz"]
    gone = item(server, "dtd", "/gone/textures.tar.gz", tmp_path, mirror=RawFile("dtd", server.url("/gone/too")))
    with raises_naming(DataError, "/gone/textures", "/gone/too", "404"):
        fetch(replace(gone, folder=tmp_path / "other"), SILENT)


def test_a_file_with_a_mirror_is_retried_once(server: FileServer, tmp_path: Path) -> None:
    mirror = RawFile("dtd", server.url("/dtd/dtd-r1.0.1.tar.gz"))
    gone = item(server, "dtd", "/gone/textures.tar.gz", tmp_path, mirror=mirror)
    server.refuse = [503, 503]
    fetch(gone, SILENT, waits=(0, 0, 0))
    assert (tmp_path / "dtd").is_dir()
    assert [request.path for request in server.requests].count("/gone/textures.tar.gz") == 2


def test_manual_downloads_make_no_request(server: FileServer, tmp_path: Path) -> None:
    wanted = item(server, "NWPU", "/page", tmp_path, manual="accept the licence and unpack it", instead=("nwpu",))
    with raises_naming(DataError, "accept the licence", "/page", tmp_path / "NWPU", "nwpu"):
        fetch(wanted, SILENT)
    assert server.requests == []


# The command


@pytest.fixture
def small(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """Two small sources in the place of the real ones, and one that wants a hand."""
    monkeypatch.setattr(fetching, "fetch", partial(fetch, waits=(0.0,)))

    def source(task: str, *files: RawFile) -> Source:
        return Source(task, task, files, (), lambda _: {})

    table = {
        "svhn": source("svhn", RawFile("train_32x32.mat", server.url("/svhn/train_32x32.mat"))),
        "dtd": source("dtd", RawFile("dtd", server.url("/dtd/dtd-r1.0.1.tar.gz"))),
        "eurosat": source("eurosat", RawFile("2750", server.url("/gone.zip"))),
    }
    monkeypatch.setattr(fetching, "SOURCES", {**SOURCES, **table})
    return server


def test_the_command_fetches_and_names_the_next_step(
    small: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    small.refuse = [503]
    assert main(["data", "fetch", "svhn", "dtd", "--raw", str(raw)]) == 0
    assert names(raw) == {"svhn/train_32x32.mat", "dtd/dtd/labels/test1.txt", "dtd/dtd/images/banded/1.jpg"}
    out, err = capsys.readouterr()
    assert f"svhn: train_32x32.mat: in {raw}/svhn, after" in out
    assert f"next: vtab-peft data build --raw {raw} --data FOLDER" in out
    assert "download train_32x32.mat\n" in err
    assert "download train_32x32.mat: 100 % of 6.0 kB\n" in err
    assert "extract dtd-r1.0.1.tar.gz\n" in err
    assert "the server answers 503 Service Unavailable; next attempt in 0 s\n" in err
    assert "\r" not in err
    assert main(["data", "fetch", "svhn", "--raw", str(raw)]) == 0
    assert "exists" in capsys.readouterr().out


def test_on_a_terminal_a_bar_shows_the_bytes() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    printer = ProgressPrinter(terminal := Terminal())
    printer.begin("download x")(500, 1000)
    printer.begin("unpack x")(200_000_000, None)
    printer.note("the connection was cut")
    assert printer.bar is not None
    assert (printer.bar.n, printer.bar.total) == (200_000_000, None)
    printer.close()
    assert "download x: " in terminal.getvalue()
    assert "the connection was cut\n" in terminal.getvalue()
    assert "unpack x: " in terminal.getvalue()


def test_an_archive_that_is_no_longer_needed_is_named(
    small: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "dtd" / "dtd-r1.0.1.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(PUBLIC["/dtd/dtd-r1.0.1.tar.gz"])
    assert main(["data", "fetch", "dtd", "--raw", str(tmp_path)]) == 0
    assert f"{archive} is no longer needed" in capsys.readouterr().out


def test_one_failure_does_not_stop_the_others(
    small: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "fetch", "eurosat", "svhn", "--raw", str(tmp_path)]) == 1
    assert (tmp_path / "svhn/train_32x32.mat").exists()
    err = capsys.readouterr().err
    assert "the server answers 404" in err
    assert "eurosat\n" in err


def test_a_dry_run_prints_the_table_without_requests(
    small: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw" / "dtd" / "dtd").mkdir(parents=True)
    arguments = ["data", "fetch", "dtd", "svhn", "cifar", "resisc45", "--raw", str(tmp_path / "raw"), "--dry-run"]
    assert main(arguments) == 0
    rows = {line.split()[0]: line.split("  ") for line in capsys.readouterr().out.splitlines()}
    cells = {task: [cell.strip() for cell in row if cell] for task, row in rows.items()}
    assert cells["task"] == ["task", "file", "size", "state", "source"]
    assert cells["dtd"][1:4] == ["dtd", "unknown", "present"]
    assert cells["svhn"][1:] == ["train_32x32.mat", "unknown", "to fetch", small.url("/svhn/train_32x32.mat")]
    assert cells["cifar"][1:4] == ["cifar-100-binary", "168.5 MB", "to fetch"]
    assert cells["resisc45"][3:] == ["manual", "https://gcheng-nwpu.github.io/#Datasets"]
    assert small.requests == []
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("task", "page", "place"),
    [
        ("resisc45", "https://gcheng-nwpu.github.io/#Datasets", "resisc45/NWPU-RESISC45"),
        (
            "diabetic_retinopathy",
            "https://www.kaggle.com/c/diabetic-retinopathy-detection/data",
            "diabetic_retinopathy/trainLabels.csv",
        ),
    ],
)
def test_manual_downloads_name_page_and_place(
    task: str, page: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(fetching, "fetch", lambda *_: None)  # the one file of Kaggle's that is public
    assert main(["data", "fetch", task, "--raw", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert f"{task}: " in out
    assert "manual download" in out
    assert f"from {page}\n" in out
    assert f"to {tmp_path / place}" in out
    assert f"{task}\n" in err


def test_caltech101_is_sent_to_the_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "caltech101", "--raw", str(tmp_path)]) == 0
    assert "`vtab-peft data fetch caltech101 --archive --data FOLDER` gets the task" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [[], ["--archive"], ["--data", "x"], ["--raw", "x", "--data", "y"], ["--raw", "x", "--archive"]]
)
def test_a_target_folder_is_required(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "svhn", *options]) == 2
    err = capsys.readouterr().err
    assert all(option in err for option in ("--raw FOLDER", "--archive --data FOLDER"))


def test_ctrl_c_exits_with_130(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "fetch", stopped)
    assert main(["data", "fetch", "svhn", "--raw", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err
