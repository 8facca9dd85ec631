"""The metadata of an adapter file, read and checked without torch."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
from safetensors import SafetensorError, safe_open

from ...datasets.reading import InvalidFile, naming, open_regular
from ...datasets.schema import Invalid, from_json
from ..canonical import canonical_json
from ..spec import RunSpec, SpecText
from ..storage.layout import LARGEST_CLASSES
from ..storage.schema import parse_run


class Facts(msgspec.Struct, omit_defaults=True):
    """Further facts of an adapter file."""

    classes: list[str] = []
    """Names of the classes; empty if the task has none."""
    tensors: str = ""
    """That of `tensors_sha256`; empty in files of versions before 0.5."""
    record: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """The run's record, in an exported file."""


class Header(NamedTuple):
    """The checked metadata of an adapter file."""

    spec: RunSpec
    classes: list[str]
    tensors: str
    """That of `tensors_sha256`; empty in files of versions before 0.5."""
    record: dict[str, Any] | None


def read_header(path: Path) -> Header:
    """Read and check the metadata of an adapter file.

    Raises:
        OSError: The file cannot be opened.
        InvalidFile: It is not regular, not a safetensors file, or its metadata are not those of an adapter.
    """
    open_regular(path).close()
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise InvalidFile(path, f"is not a safetensors file ({error})") from None
    with naming(path):
        return parse_header(metadata, path)


def read_intact(path: Path) -> Header:
    """Read the metadata of an adapter file, and check its tensors against their hash.

    Raises:
        OSError: The file cannot be opened.
        InvalidFile: As `read_header`, or the tensors are not those that were stored.
    """
    header = read_header(path)
    if header.tensors:
        with open_regular(path) as file:
            if tensors_sha256(file) != header.tensors:
                raise InvalidFile(path, "is damaged: its tensors are not those that were stored")
    return header


def tensors_sha256(file: BinaryIO) -> str:
    """Return the hash of the names, types, shapes and bytes of a valid safetensors file, without its metadata."""
    digest = hashlib.sha256(canonical_json(_read_entries(file)).encode())
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def with_metadata(file: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file with these metadata, sorted, so that equal content gives equal bytes."""
    stream = io.BytesIO(file)
    header = {"__metadata__": dict(sorted(metadata.items())), **_read_entries(stream)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + stream.read()


def _read_entries(file: BinaryIO) -> dict[str, Any]:
    """Read names, types, shapes and places of the tensors, to which the file is then positioned.

    The format is 8 bytes with the length of a JSON header, the header, and the tensors (safetensors' README).
    """
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    return header


def parse_header(metadata: dict[str, str], path: Path) -> Header:
    """Return the checked metadata of an adapter file; raise `Invalid` if a value is not valid."""
    if missing := {"key", "spec"} - metadata.keys():
        raise Invalid("is missing", min(missing))
    spec = from_json(metadata["spec"], SpecText, "spec").build("spec")
    if spec.run_id() != metadata["key"]:
        raise Invalid("the run ID does not match the spec", "key")
    facts = from_json(metadata.get("facts", "{}"), Facts, "facts")
    if len(facts.classes) > LARGEST_CLASSES:
        raise Invalid(f"has more than {LARGEST_CLASSES:,} names", "facts.classes")
    record = None
    if isinstance(facts.record, msgspec.Raw):
        text = bytes(facts.record)
        try:
            stored = parse_run(text, path)
        except Invalid as error:
            raise Invalid(error.reason, f"facts.record.{error.field}".rstrip(".")) from None
        if stored.run_id != spec.run_id():
            raise Invalid("is the record of another run", "facts.record.key")
        record = from_json(text, dict[str, Any])
    return Header(spec, facts.classes, facts.tensors, record)
