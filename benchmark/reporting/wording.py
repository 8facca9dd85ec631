"""Singular and plural forms in messages."""


def pluralize(number: int, noun: str) -> str:
    """Return the number with its noun: `1 task`, `3 tasks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
