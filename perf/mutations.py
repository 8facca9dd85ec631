"""Replace values of JSON files by values of other kinds."""

import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vtab_peft.benchmark.checkpoints.header import with_metadata
from vtab_peft.benchmark.spec import RunSpec

JUNK = (
    *("null", "true", "false", "0", "-1", "1" + "0" * 23, "1" + "0" * 400, "1" + "0" * 5000, "0.5", "-1e308", "1e999"),
    *("NaN", "-Infinity", '""', '"x"', r'"\u001b[2J\u202e=1+1"', r'"\ud800"', '"' + "x" * 5000 + '"'),
    *("[]", "{}", '[null, 1, "x"]', '{"a": {"b": [1]}}', "[" * 1000 + "]" * 1000),
)
"""JSON texts of values of many kinds, some of them not valid JSON."""
_PLACE = "@place@"


def paths_in(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*here, key)
        yield from paths_in(inner, (*here, key))


def renamed(path: Path, text: str) -> Path:
    """Replace the record at `path` by `text`, filed under its new run ID, so that it is read."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(Exception):
        record = json.loads(text)
        key = RunSpec.from_json(record["spec"]).run_id()
        text = json.dumps({**record, "key": key})
        path = path.with_name(f"{key}.json")
    path.write_text(text)
    return path


def mutated(text: str, place: tuple[Any, ...], junk: str) -> str:
    """Return a JSON text with the value at a place replaced by another JSON text."""
    changed = holder = json.loads(text)
    *way, last = place
    for key in way:
        holder = holder[key]
    holder[last] = _PLACE
    return json.dumps(changed).replace(f'"{_PLACE}"', junk)


def adapter_places(file: bytes) -> list[tuple[Any, ...]]:
    """Return the places in the metadata of an adapter file; spec and facts are JSON texts there."""
    metadata = _metadata(file)
    inside = [(name, *place) for name in ("spec", "facts") for place in paths_in(json.loads(metadata[name]))]
    return [(name,) for name in metadata] + inside


def mutated_adapter(file: bytes, place: tuple[Any, ...], junk: str) -> bytes:
    """Return an adapter file with one value of its metadata replaced, and the run ID of its spec if it has one."""
    metadata, (name, *inside) = _metadata(file), place
    metadata[name] = mutated(metadata[name], tuple(inside), junk) if inside else junk
    with contextlib.suppress(Exception):
        if name == "spec":
            metadata["key"] = RunSpec.from_json(json.loads(metadata["spec"])).run_id()
    return with_metadata(file, metadata)


def _metadata(file: bytes) -> dict[str, str]:
    return json.loads(file[8 : 8 + struct.unpack("<Q", file[:8])[0]])["__metadata__"]
