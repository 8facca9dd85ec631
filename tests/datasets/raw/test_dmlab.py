"""Tests of DMLab: TFRecord files, checksums and messages, written here by independent code."""

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raises import raises_naming
from raw_pictures import by_md5, picture
from vtab_peft.datasets.raw import dmlab
from vtab_peft.datasets.raw.tfrecord import crc32c, features
from vtab_peft.datasets.task import DataError


def bitwise_crc32c(data: bytes) -> int:
    """RFC 3720, appendix B.4, bit by bit: the polynomial 0x1EDC6F41 with bits reversed, all ones before and after."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    """tensorflow/core/lib/hash/crc32c.h: rotated right by 15 bits, plus a constant."""
    crc = bitwise_crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def number(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    low = bytes([value & 127 | (128 if value > 127 else 0)])
    return low + (number(value >> 7) if value > 127 else b"")


def field(tag: int, content: bytes) -> bytes:
    return number(tag << 3 | 2) + number(len(content)) + content


def integer(value: int, packed: bool = True) -> bytes:
    content = number(value % 2**64)
    return field(3, field(1, content) if packed else number(1 << 3) + content)


def text(value: bytes) -> bytes:
    return field(1, field(1, value))


def real(value: float) -> bytes:
    return field(2, field(1, struct.pack("<f", value)))


def example(**entries: bytes) -> bytes:
    """A tf.train.Example: Features in field 1; in it a map, whose entries have the key in 1 and the Feature in 2."""
    return field(1, b"".join(field(1, field(1, key.encode()) + field(2, value)) for key, value in entries.items()))


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_checksums_are_those_of_rfc_3720(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc == bitwise_crc32c(data)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=600))
def test_checksums_by_halves_equal_checksums_bit_by_bit(data: bytes) -> None:
    assert crc32c(data) == bitwise_crc32c(data)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("value", [0, 5, 127, 128, 300, 2**62, -1])
def test_integers_are_read_packed_or_not(value: int, packed: bool) -> None:
    assert features(example(label=integer(value, packed))) == {"label": [value]}


def test_features_of_other_kinds_are_passed_over() -> None:
    message = example(reward=real(0.5), filename=text(b"a.jpg"), label=integer(3))
    assert features(message) == {"filename": [b"a.jpg"], "label": [3]}


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_malformed_messages_are_refused(data: bytes) -> None:
    with suppress(ValueError):
        features(data)


FRAMES = {
    "train": {"video_600_5_976.jpg": 0, "video_300_7_931.jpg": 3, "video_1100_3_1752.jpg": 5, "video_1_2_3.jpg": 2},
    "validation": {"video_1600_7_1546.jpg": 1, "video_1300_3_793.jpg": 4},
    "test": {"video_9_9_9.jpg": 2},
}


def frame(path: Path, name: str, label: int) -> bytes:
    return example(image=text(picture(path / name).read_bytes()), filename=text(name.encode()), label=integer(label))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two files for train, one each for the others, as the archive unpacks; the images they hold are in `frames`."""
    (tmp_path / "dmlab").mkdir()
    for split, frames in FRAMES.items():
        records = [record(frame(tmp_path / "frames", name, label)) for name, label in frames.items()]
        shards = [records[:3], records[3:]] if split == "train" else [records]
        for n, shard in enumerate(shards):
            file = tmp_path / "dmlab" / f"dmlab-{split}.tfrecord-{n:05d}-of-{len(shards):05d}"
            file.write_bytes(b"".join(shard))
    return tmp_path


def test_frames_of_all_files_of_a_split_have_their_labels(raw: Path) -> None:
    splits = dmlab.read(raw)
    found = {split: dict(zip(examples.keys, examples.labels, strict=True)) for split, examples in splits.items()}
    assert found == {"train": FRAMES["train"], "val": FRAMES["validation"], "test": FRAMES["test"]}


def test_frames_come_in_tfds_order(raw: Path) -> None:
    splits = dmlab.read(raw)
    assert splits["train"].keys == by_md5("train", FRAMES["train"])
    assert splits["val"].keys == by_md5("validation", FRAMES["validation"])


def test_pictures_are_the_encoded_images_of_the_records(raw: Path) -> None:
    for examples in dmlab.read(raw).values():
        for position, key in enumerate(examples.keys):
            assert examples.picture(position) == (raw / "frames" / key).read_bytes()


TEST_FILE = "dmlab-test.tfrecord-00000-of-00001"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:], "record at byte 0 is damaged"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "record at byte 0 is damaged"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "record at byte 0 has a damaged"),
        (lambda data: data[:7], "record at byte 0 has a damaged"),
        (lambda data: data[:-100], "record at byte 0 "),
        (lambda data: data + data[:-2], "record at byte "),
    ],
)
def test_a_damaged_record_is_named(raw: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    path = raw / "dmlab" / TEST_FILE
    path.write_bytes(damage(path.read_bytes()))
    with raises_naming(DataError, TEST_FILE, message):
        dmlab.read(raw)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (example(image=text(b"x"), filename=text(b"a.jpg")), "'label'"),
        (example(image=text(b"x"), filename=text(b"a.jpg"), label=integer(6)), "label 6"),
        (example(image=text(b"x"), filename=text(b"a.jpg"), label=integer(-1)), "label -1"),
        (example(image=text(b"x"), filename=integer(1), label=integer(1)), "another type"),
        (example(filename=text(b"a.jpg"), label=integer(1)), "'image'"),
        (b"no message at all", "beyond its message|wire type"),
        (b"", "'filename'"),
    ],
)
def test_a_record_that_is_no_frame_is_named(raw: Path, message: bytes, why: str) -> None:
    (raw / "dmlab" / TEST_FILE).write_bytes(record(message))
    with raises_naming(DataError, TEST_FILE, "byte 12"):
        dmlab.read(raw)


def test_a_split_without_files_is_named(raw: Path) -> None:
    (raw / "dmlab" / TEST_FILE).unlink()
    with raises_naming(DataError, "dmlab-test.tfrecord"):
        dmlab.read(raw)


def test_an_archive_that_is_not_unpacked_says_where_it_is_from(tmp_path: Path) -> None:
    with raises_naming(DataError, "dmlab.tar.gz"):
        dmlab.read(tmp_path)
