"""Command line of the smallest sweep: an untrained toy ViT, the shortest recipe, one thread."""

from pathlib import Path

BASE = ("run", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1")


def command(task: Path, results: Path, *more: str) -> list[str]:
    """Return the words of a `run` command on one task."""
    return [*BASE, "--tasks", str(task), "--results", str(results), *more]
