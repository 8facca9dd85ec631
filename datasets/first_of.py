"""Long lists of names in messages."""

from collections.abc import Sequence


def first_of(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """Return the first names, and how many others there are: `a, b, c and 9 more`."""
    shown = separator.join(names[:most])
    if len(names) <= most:
        return shown
    return f"{shown}{separator if separator.isspace() else ' '}and {len(names) - most} more"
