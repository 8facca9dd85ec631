"""Tests of the cache: Pillow's pixels, shared arrays, and detected changes."""

import importlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from cached_tasks import BICUBIC, MakeFolder
from PIL import Image
from raises import raises_naming
from torchvision import transforms
from vtab_peft.datasets.cache import build, cached, default_root
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.pixels import Preprocessing, decode
from vtab_peft.datasets.task import SPLITS, DataError, Split, SplitName, Task


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_large_images_are_pillows_squash_to_the_input_size(
    interpolation: str, make_folder: MakeFolder, root: Path
) -> None:
    folder = make_folder(side=100)
    found = build(folder_task(folder), Preprocessing(24, interpolation), root)  # pyright: ignore[reportArgumentType]
    assert not found.native
    with Image.open(folder / "images/val200_3.png") as image:
        wanted = np.asarray(image.resize((24, 24), Image.Resampling[interpolation.upper()]))
    assert np.array_equal(found.images("val")[3], wanted.transpose(2, 0, 1))
    assert found.images("val").shape == (4, 3, 24, 24)
    assert found.images("val").dtype == np.uint8


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (301, 300), (40, 90), (224, 224)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_crops_in_evaluation_equal_vpt_and_rlrr(
    interpolation: Literal["bicubic", "bilinear"], size: tuple[int, int]
) -> None:
    """Their transforms, by torchvision: `Resize(256)` and `Resize((256, 256))`, each followed by `CenterCrop(224)`."""
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    filter_ = transforms.InterpolationMode(interpolation)
    for framing, resize in [("square_crop", 256), ("squash_crop", (256, 256))]:
        theirs = transforms.Compose([transforms.Resize(resize, filter_), transforms.CenterCrop(224)])
        stored = decode(picture, Preprocessing(224, interpolation, framing))  # pyright: ignore[reportArgumentType]
        assert stored.shape == (3, 256, 256)
        evaluated = stored[:, 16:-16, 16:-16].transpose(1, 2, 0)
        assert np.array_equal(evaluated, np.asarray(theirs(Image.fromarray(picture)))), framing


@pytest.mark.parametrize(("image_size", "side"), [(224, 256), (384, 438), (448, 512)])
def test_images_for_crops_have_the_size_of_vpt(image_size: int, side: int) -> None:
    assert Preprocessing(image_size, "bicubic", "square_crop").side == side
    assert Preprocessing(image_size, "bicubic").side == image_size


def test_small_images_for_crops_are_stored_enlarged(make_folder: MakeFolder, root: Path) -> None:
    task = folder_task(make_folder())
    framed = build(task, Preprocessing(28, "bicubic", "square_crop"), root)
    assert not framed.native
    assert framed.images("val").shape == (4, 3, 32, 32)
    assert cached(task, Preprocessing(28, "bicubic"), root) is None


def test_caches_without_resize_mode_are_still_found() -> None:
    assert Preprocessing(224, "bicubic").cache_facts == {"image_size": 224, "interpolation": "bicubic"}
    framings: list[Literal["squash", "squash_crop", "square_crop"]] = ["squash", "squash_crop", "square_crop"]
    assert len({str(Preprocessing(224, "bicubic", framing).cache_facts) for framing in framings}) == 3


def test_small_images_of_one_size_are_kept_as_they_are(make_folder: MakeFolder, root: Path) -> None:
    folder = make_folder(side=96)
    found = build(folder_task(folder), BICUBIC, root)
    assert found.native
    with Image.open(folder / "images/test_4.png") as image:
        assert np.array_equal(found.images("test")[4], np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize("side", [97, 11])
def test_mixed_or_too_large_sizes_are_resized(side: int, make_folder: MakeFolder, root: Path) -> None:
    folder = make_folder(side=97 if side == 97 else 12)
    if side != 97:
        Image.new("RGB", (side, 12)).save(folder / "images/test_0.png")
    found = build(folder_task(folder), BICUBIC, root)
    assert not found.native
    assert {found.images(split).shape[2:] for split in SPLITS} == {(24, 24)}


def test_grey_palette_and_transparent_images_become_rgb(make_folder: MakeFolder, root: Path) -> None:
    folder = make_folder()
    grey = Image.new("L", (12, 12), 77)
    palette = Image.new("P", (12, 12), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    grey.save(folder / "images/test_0.png")
    palette.save(folder / "images/test_1.png", transparency=b"\x00\x80")
    Image.new("RGBA", (12, 12), (1, 2, 3, 4)).save(folder / "images/test_2.png")
    images = build(folder_task(folder), BICUBIC, root).images("test")
    assert [images[i, :, 5, 5].tolist() for i in range(3)] == [[77, 77, 77], [10, 20, 30], [1, 2, 3]]


def test_what_is_built_is_found_again_with_its_facts(make_folder: MakeFolder, root: Path) -> None:
    task = folder_task(make_folder())
    assert cached(task, BICUBIC, root) is None
    made = build(task, BICUBIC, root)
    assert cached(task, BICUBIC, root) == made
    assert (made.counts, made.classes, made.provenance) == ({"train": 6, "val": 4, "test": 5}, 2, "own")
    assert made.labels("val").tolist() == [0, 1, 0, 1]
    assert made.labels("val").dtype == np.int64
    assert len(made.data) == 16
    assert cached(task, Preprocessing(32, "bicubic"), root) is None


def test_writing_to_the_images_in_memory_leaves_the_cache_alone(make_folder: MakeFolder, root: Path) -> None:
    found = build(folder_task(make_folder()), BICUBIC, root)
    before = found.images("test").tobytes()
    found.images("test")[:] = 0
    assert found.images("test").tobytes() == before


def test_progress_counts_each_image_twice_and_ends_at_the_total(make_folder: MakeFolder, root: Path) -> None:
    calls: list[tuple[int, int]] = []
    build(folder_task(make_folder()), BICUBIC, root, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (30, 30)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_the_hash_does_not_depend_on_folder_and_file_names(make_folder: MakeFolder, root: Path) -> None:
    folder, other = make_folder("a"), make_folder("b")
    (other / "images").rename(other / "pictures")
    for path in other.glob("*.txt"):
        path.write_text(path.read_text().replace("images/", "pictures/"))
    assert build(folder_task(folder), BICUBIC, root).data == build(folder_task(other), BICUBIC, root).data


def swap_first_lines(path: Path) -> None:
    first, second, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([second, first, *rest]))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a label": lambda folder: (folder / "val200.txt").write_text(
        (folder / "val200.txt").read_text().replace("val200_0.png 0", "val200_0.png 1")
    ),
    "the order": lambda folder: swap_first_lines(folder / "val200.txt"),
    "an image": lambda folder: Image.new("RGB", (12, 12)).save(folder / "images/test_1.png"),
    "the number of classes": lambda folder: (folder / "classes.txt").write_text("cat\ndog\nfox\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_data_changes_hash_and_invalidates_cache(change: str, make_folder: MakeFolder, root: Path) -> None:
    folder = make_folder()
    (folder / "train800val200.txt").unlink()
    before = build(folder_task(folder), BICUBIC, root)
    CHANGES[change](folder)
    assert cached(folder_task(folder), BICUBIC, root) is None
    after = build(folder_task(folder), BICUBIC, root)
    assert after.data != before.data
    assert cached(folder_task(folder), BICUBIC, root) == after


def test_tasks_with_the_same_images_share_arrays(make_folder: MakeFolder, root: Path) -> None:
    location, orientation = make_folder("location"), make_folder("orientation")
    for path in orientation.glob("*.txt"):
        path.write_text(path.read_text().replace(" 1\n", " 2\n"))
    one, two = (build(folder_task(folder), BICUBIC, root) for folder in (location, orientation))
    assert {split: one.files[split][0] for split in SPLITS} == {split: two.files[split][0] for split in SPLITS}
    assert len(list((root / "images").iterdir())) == 3
    assert one.labels("test").max() == 1
    assert two.labels("test").max() == 2
    assert one.data != two.data


def painted(_: Task) -> dict[SplitName, Split]:
    """Stands in for a procedural task."""
    rng = np.random.default_rng(1)
    return {
        split: Split(np.arange(4) % 2, [rng.integers(0, 256, (8, 10, 3), dtype=np.uint8) for _ in range(4)])
        for split in SPLITS
    }


def test_images_given_as_arrays_go_the_same_way(make_folder: MakeFolder, root: Path) -> None:
    task = replace(folder_task(make_folder()), folder=None, load=painted)
    found = build(task, BICUBIC, root)
    assert found.native
    assert cached(task, BICUBIC, root) == found
    assert np.array_equal(found.images("val")[2], np.asarray(painted(task)["val"].images[2]).transpose(2, 0, 1))


def test_code_changes_rebuild_procedural_tasks(
    tmp_path: Path, make_folder: MakeFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "painter_of_this_test.py").write_text("from brush_of_this_test import painted as load\n")
    (tmp_path / "code" / "brush_of_this_test.py").write_text("def painted(task): ...\n")
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setattr(painted, "__module__", importlib.import_module("painter_of_this_test").__name__)
    task = replace(folder_task(make_folder()), folder=None, load=painted)
    build(task, BICUBIC, root)
    assert cached(task, BICUBIC, root) is not None
    (tmp_path / "code" / "brush_of_this_test.py").write_text("def painted(task): return 1\n")
    assert cached(task, BICUBIC, root) is None


def png(bits: int, colour_type: int, channels: int) -> bytes:
    """Four times four pixels of middle grey, by the PNG specification (https://www.w3.org/TR/png-3/)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + b"\x80" * (4 * channels * bits // 8)
    header = struct.pack(">IIBBBBB", 4, 4, bits, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(4 * row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["grey", "RGB", "grey with alpha", "RGBA"]
)
def test_no_image_is_cut_from_16_bits_to_8(colour_type: int, channels: int, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(8, colour_type, channels))
    assert (decode(path, None) == 0x80).all()
    path.write_bytes(png(16, colour_type, channels))
    with raises_naming(DataError, path, "8 bits"):
        decode(path, None)


def test_16_bits_a_pixel_are_no_more_than_8_a_channel(tmp_path: Path) -> None:
    """A BMP of 5 bits for red, 6 for green and 5 for blue: header, masks, and one row of two pixels."""
    pixels = struct.pack("<HH", 0xF800, 0x07E0)
    info = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, len(pixels), 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    start = 14 + len(info) + len(masks)
    path = tmp_path / "x.bmp"
    path.write_bytes(b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + masks + pixels)
    assert decode(path, None)[:, 0].T.tolist() == [[255, 0, 0], [0, 255, 0]]


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTAB_PEFT_CACHE", "/big/disk")
    assert default_root() == Path("/big/disk")
    monkeypatch.delenv("VTAB_PEFT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_root() == Path("/caches/vtab-peft")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_root() == Path.home() / ".cache" / "vtab-peft"
