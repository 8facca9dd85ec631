"""The official tasks of VTAB-1k and FGVC; their facts are in official_tasks.toml."""

import tomllib
from pathlib import Path
from typing import Any

from .archive import load
from .task import Task

_TABLE = tomllib.loads((Path(__file__).parent / "official_tasks.toml").read_text("utf-8"))


def _task(suite: str, name: str, facts: dict[str, Any]) -> Task:
    train, val, test = facts.pop("train", 800), facts.pop("val", 200), facts.pop("test")
    return Task(
        suite=suite,
        name=name,
        group=facts.pop("group", suite),
        sizes={"train": (train,), "val": (val,), "test": tuple(test) if isinstance(test, list) else (test,)},
        load=load,
        provenance="lossless",
        **facts,
    )


VTAB1K: dict[str, Task] = {name: _task("vtab1k", name, facts) for name, facts in _TABLE["vtab1k"].items()}
FGVC: dict[str, Task] = {name: _task("fgvc", name, facts) for name, facts in _TABLE["fgvc"].items()}
