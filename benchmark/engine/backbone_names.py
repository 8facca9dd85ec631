"""Suggestions of timm's backbone names for names that other code uses: `vit_tiny`, `dinov2_vits14`, `ViT-B/16`."""

import difflib
import re
from collections.abc import Sequence

SIZES = {"ti": "tiny", "t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
SHOWN = 3
"""Number of suggestions (ours)."""


def nearest_backbones(name: str, known: Sequence[str]) -> list[str]:
    """Return the shortest names that begin so, or else those spelt alike, or those that share two words or more."""
    if begun := [other for other in known if other.startswith(name)]:
        return sorted(begun, key=lambda other: (len(other), other))[:SHOWN]
    if close := difflib.get_close_matches(name, known, n=SHOWN):
        return close
    wanted = _words(name)
    shared = {other: len(wanted & _words(other)) for other in known}
    most = max(shared.values())
    best = [other for other, count in shared.items() if count == most >= 2]
    return sorted(best, key=lambda other: (len(_words(other)), other))[:SHOWN]


def _words(name: str) -> set[str]:
    """Return the words of a name; `vits14` is `vit`, `small` and `patch14`."""
    text = re.sub(
        r"vit[_-]?(ti|[tsblhg])[_/-]?(\d+)", lambda found: f"vit {SIZES[found[1]]} patch{found[2]}", name.lower()
    )
    return set(re.findall(r"[a-z]+\d*|\d+", text))
