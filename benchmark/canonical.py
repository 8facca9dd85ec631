"""The canonical JSON of plain values, and hashes of it: equal values give equal text on every machine."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""Encode a value as its one canonical JSON text: sorted keys, no spaces, ASCII, floats as Python prints them."""


def fingerprint(value: Any, length: int = 16) -> str:
    """Return the first `length` hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    return digest(canonical_json(value), length)


def digest(text: str, length: int = 16) -> str:
    """Return the first `length` hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def versioned_field(neutral: Any) -> Any:
    """Declare a recipe field that was added after results existed.

    Run IDs leave the field out where its value is `neutral`, which means the earlier behaviour.
    """
    return field(metadata={"neutral": neutral})


@dataclass(frozen=True, kw_only=True)
class Part:
    """Base class of the parts of a spec.  Thousands of specs share a part, so its canonical text is cached."""

    def hashed(self) -> dict[str, Any]:
        """Return the fields that can change the accuracy."""
        return asdict(self)

    @cached_property
    def canonical(self) -> str:
        """Canonical JSON of the hashed fields."""
        return canonical_json(self.hashed())
