"""What a user types for the smallest sweep there is: an untrained toy ViT, the shortest recipe, one thread."""

from pathlib import Path

BASE = ("run", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1")


def command(task: Path, results: Path, *more: str) -> list[str]:
    return [*BASE, "--tasks", str(task), "--results", str(results), *more]
