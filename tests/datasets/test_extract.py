"""Tests of extracting archives: only into their folder, up to a bound, or refused with a reason."""

import errno
import fcntl
import gzip
import io
import os
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from raises import raises_naming
from vtab_peft.datasets import extract as module
from vtab_peft.datasets.extract import bound, extract, extracted, is_archive, merge
from vtab_peft.datasets.task import DataError

LINK = stat.S_IFLNK | 0o777
FILES = {"images/a/1.png": b"one", "images/a/2.png": b"two" * 1000, "labels.txt": b"a b\n", "empty": b""}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def make_tar(path: Path, files: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as file:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for info in more:
            file.addfile(info)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_entry(path: Path, name: str, mode: int, data: bytes = b"content") -> Path:
    """As the program zip writes it: with the type of the file."""
    with zipfile.ZipFile(path, "a") as file:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        file.writestr(info, data)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "around" / "inside"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz", "X.ZIP"])
def test_every_kind_of_archive_gives_its_files(name: str, tmp_path: Path, inside: Path) -> None:
    make: Callable[[Path, dict[str, bytes]], Path] = make_zip if name.lower().endswith("zip") else make_tar
    told: list[int] = []
    assert is_archive(name)
    extract(make(tmp_path / name, FILES), inside, progress=told.append)
    assert content(inside) == FILES
    assert told[-1] >= sum(map(len, FILES.values()))


def test_a_gzipped_file_gives_the_file(tmp_path: Path, inside: Path) -> None:
    archive = tmp_path / "labels.h5.gz"
    archive.write_bytes(gzip.compress(b"labels"))
    extract(archive, inside)
    assert content(inside) == {"labels.h5": b"labels"}


@pytest.mark.parametrize("name", ["train_32x32.mat", "x.hdf5", "NWPU-RESISC45.rar", "", "zip"])
def test_other_files_are_no_archives(name: str) -> None:
    assert not is_archive(name)


@pytest.mark.parametrize("name", ["../evil", "images/../../evil", "{outside}/evil", "..", "a/.."])
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_path_out_of_the_folder_is_refused(name: str, suffix: str, tmp_path: Path, inside: Path) -> None:
    make = make_zip if suffix == ".zip" else make_tar
    archive = make(tmp_path / f"x{suffix}", {name.format(outside=tmp_path): b"evil"})
    with raises_naming(DataError, archive, name.format(outside=tmp_path)):
        extract(archive, inside)
    assert set(content(tmp_path)) == {archive.name}


def test_an_entry_without_a_name_is_refused(tmp_path: Path, inside: Path) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as file:
        info = zipfile.ZipInfo("x")
        info.filename = ""
        file.writestr(info, b"content")
    with raises_naming(DataError, archive):
        extract(archive, inside)
    assert content(inside) == {}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["../../../etc/passwd", "/etc/passwd"])
def test_a_link_out_of_the_folder_is_refused(kind: bytes, target: str, tmp_path: Path, inside: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", {}, special("images/link", kind, target))
    with raises_naming(DataError, archive, "images/link", "passwd"):
        extract(archive, inside)


def test_a_zipped_link_out_of_the_folder_is_refused(tmp_path: Path, inside: Path) -> None:
    with raises_naming(DataError, "link", "../secret"):
        extract(zip_entry(tmp_path / "x.zip", "link", LINK, b"../../secret"), inside)


def test_nothing_is_written_through_a_link(tmp_path: Path, inside: Path) -> None:
    """First a link to a folder outside, then a file "below" it: the oldest trick there is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = make_tar(tmp_path / "x.tar", {}, special("door", tarfile.SYMTYPE, str(outside)))
    with tarfile.open(archive, "a") as file:
        info = tarfile.TarInfo("door/evil")
        info.size = 4
        file.addfile(info, io.BytesIO(b"evil"))
    with raises_naming(DataError, "door", outside):
        extract(archive, inside)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_link_to_a_file_of_the_archive_becomes_that_file(suffix: str, tmp_path: Path, inside: Path) -> None:
    archive = tmp_path / f"x{suffix}"
    if suffix == ".zip":
        zip_entry(make_zip(archive, FILES), "images/same.png", LINK, b"a/1.png")
    else:
        links = (special("images/same.png", tarfile.SYMTYPE, "a/1.png"), special("h", tarfile.LNKTYPE, "labels.txt"))
        make_tar(archive, FILES, *links)
    extract(archive, inside)
    assert (inside / "images/same.png").read_bytes() == b"one"
    assert not any(path.is_symlink() for path in inside.rglob("*"))
    assert suffix == ".zip" or (inside / "h").read_bytes() == b"a b\n"


def test_a_link_to_nothing_is_refused(tmp_path: Path, inside: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", FILES, special("link", tarfile.SYMTYPE, "nothing"))
    with raises_naming(DataError, archive, "link", "nothing"):
        extract(archive, inside)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(kind: bytes, tmp_path: Path, inside: Path) -> None:
    with raises_naming(DataError, "x.tar", "odd"):
        extract(make_tar(tmp_path / "x.tar", {}, special("odd", kind)), inside)


def test_a_zip_that_states_types_gives_its_files_and_no_pipes(tmp_path: Path, inside: Path) -> None:
    archive = zip_entry(tmp_path / "x.zip", "regular", stat.S_IFREG | 0o644)
    extract(archive, inside)
    assert content(inside) == {"regular": b"content"}
    with raises_naming(DataError, "x.zip", "pipe"):
        extract(zip_entry(archive, "pipe", stat.S_IFIFO | 0o644), inside)


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.gz"])
def test_a_bomb_is_stopped_at_the_bound(name: str, tmp_path: Path, inside: Path) -> None:
    """Four megabytes of zeros; what an archive says of its own size is not asked."""
    zeros, archive = bytes(4 << 20), tmp_path / name
    if name == "x.gz":
        archive.write_bytes(gzip.compress(zeros))
    else:
        (make_zip if name == "x.zip" else make_tar)(archive, {"zeros": zeros})
    with raises_naming(DataError, archive, "2,000,000 bytes"):
        extract(archive, inside, limit=2_000_000)
    assert sum(len(data) for data in content(inside).values()) <= 2_000_000


def test_empty_files_count_as_well(tmp_path: Path, inside: Path) -> None:
    archive = make_tar(tmp_path / "x.tar.gz", {f"{number}": b"" for number in range(1000)})
    with raises_naming(DataError, archive, "100,000 bytes"):
        extract(archive, inside, limit=100_000)
    assert len(list(inside.iterdir())) < 200


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"], ids=["pax", "global pax", "GNU name", "GNU link"])
@pytest.mark.parametrize(("size", "count"), [(64 << 20, 1), (500_000, 3)])
def test_long_tar_headers_use_little_memory(kind: bytes, size: int, count: int, tmp_path: Path, inside: Path) -> None:
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, size
    archive = tmp_path / "x.tar.gz"
    with gzip.open(archive, "wb", 1) as file:
        for _ in range(count):
            file.write(info.tobuf())
            file.write(bytes(-(-size // 512) * 512))
    tracemalloc.start()
    with raises_naming(DataError, archive):
        extract(archive, inside)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20


@pytest.mark.slow
def test_thousands_of_entries_are_all_extracted(tmp_path: Path, inside: Path) -> None:
    names = [f"{number:05d}" for number in range(3000)]
    archive = make_tar(tmp_path / "x.tar.gz", dict.fromkeys(names, b"x"))
    extract(archive, inside)
    assert sorted(content(inside)) == names


def test_the_bound_hangs_on_the_archives_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_tar(tmp_path / "x.tar", FILES)
    assert bound(archive) == 1 << 30
    monkeypatch.setattr(module, "FLOOR", 0)
    assert bound(archive) == 20 * archive.stat().st_size


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.h5.gz"])
def test_a_damaged_archive_is_reported(name: str, tmp_path: Path, inside: Path) -> None:
    archive = tmp_path / name
    if name.endswith("h5.gz"):
        archive.write_bytes(gzip.compress(os.urandom(5000)))
    else:
        (make_zip if name == "x.zip" else make_tar)(archive, {"a": os.urandom(5000)})
    archive.write_bytes(archive.read_bytes()[:3000])
    with raises_naming(DataError, archive, "damaged"):
        extract(archive, inside)


def test_a_flipped_byte_is_noticed(tmp_path: Path, inside: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {"a": os.urandom(5000)})
    data = bytearray(archive.read_bytes())
    data[2000] ^= 1
    archive.write_bytes(data)
    with raises_naming(DataError, archive, "damaged"):
        extract(archive, inside)


@pytest.mark.parametrize("name", ["cut.tar", "header.tar", "content.tar.gz", "cut.tar.gz"])
def test_a_tar_that_ends_early_or_has_another_checksum_is_damaged(name: str, tmp_path: Path, inside: Path) -> None:
    """`tarfile` alone gives the entries before the damage, and reads no checksum behind the last entry."""
    plain = make_tar(tmp_path / "x.tar", {f"{number}": os.urandom(512) for number in range(4)}).read_bytes()
    data = bytearray(plain if name.endswith("tar") else gzip.compress(plain, 0))
    if name.startswith("cut"):
        del data[2048 if name == "cut.tar" else -8 :]
    else:
        data[2048 if name == "header.tar" else 2800] ^= 1
    archive = tmp_path / name
    archive.write_bytes(data)
    with raises_naming(DataError, archive, "damaged"):
        extract(archive, inside)


def test_a_compressed_tar_needs_no_end_mark(tmp_path: Path, inside: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", {"a": b"one"}).rename(tmp_path / "x.tar.gz")
    archive.write_bytes(gzip.compress(archive.read_bytes()[:1024]))
    extract(archive, inside)
    assert content(inside) == {"a": b"one"}


def test_what_place_leaves_out_is_not_written(tmp_path: Path, inside: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", FILES)
    extract(archive, inside, place=lambda name: name.removeprefix("images/") if name.startswith("images/") else None)
    assert set(content(inside)) == {"a/1.png", "a/2.png"}


def test_a_full_disk_is_reported(tmp_path: Path, inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    archive = make_zip(tmp_path / "x.zip", {"folder/": b""})
    monkeypatch.setattr(Path, "mkdir", full)
    with raises_naming(DataError, archive, inside, "No space left on device"):
        extract(archive, inside)


def test_the_hidden_folder_vanishes_with_and_without_an_error(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", FILES)
    with extracted(archive) as folder:
        assert content(folder) == FILES
        (folder / "labels.txt").rename(tmp_path / "labels.txt")
    archive.write_bytes(b"no zip")
    with pytest.raises(DataError), extracted(archive):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.txt", "x.zip"]


def test_what_a_killed_process_left_is_not_taken_for_content(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", FILES)
    (tmp_path / ".x.zip.unpacked").mkdir()
    (tmp_path / ".x.zip.unpacked" / "half").write_text("written")
    with extracted(archive) as folder:
        assert content(folder) == FILES


def test_two_processes_do_not_unpack_one_archive(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", FILES)
    with archive.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with raises_naming(DataError, archive, "another process"), extracted(archive):
            pass


def test_merge_keeps_other_files_and_replaces_same(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for root, files in ((source, {"both/new": "1", "both/same": "2"}), (target, {"both/same": "0", "both/old": "3"})):
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    merge(source, target)
    assert content(target) == {"both/new": b"1", "both/same": b"2", "both/old": b"3"}
