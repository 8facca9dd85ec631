"""The blocks of docs/python.md and README's Python run, in order, in one namespace as in a notebook."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch
from in_process import LOCAL_BACKEND, InProcessBackend
from vtab_peft.benchmark.storage.schema import COLUMNS

ROOT = Path(__file__).parents[3]


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No download, no process, a folder of its own."""
    create = timm.create_model

    def create_random(name: str, **more: Any) -> torch.nn.Module:
        torch.manual_seed(0)  # a name has the same weights each time
        return create(name, **{**more, "pretrained": False})

    monkeypatch.setattr(timm, "create_model", create_random)
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # one, as in all tests
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_blocks_of_the_page_run(make_task: Callable[..., Path]) -> None:
    make_task().rename("pictures")
    names: dict = {}
    for block in blocks("docs/python.md"):
        exec(block, names)
    assert len(names["runs"]) == 4
    assert set(names["board"]["spec"]) == {"linear", "lora(rank=4)"}
    assert set(names["first"]["seeds"]) == {1}
    assert list(names["comparison"].tasks["task"]) == ["pictures"]
    assert names["logits"].shape == (1, names["best"]["classes"])
    assert isinstance(names["papers"], pd.DataFrame)


@pytest.mark.usefixtures("offline")
def test_readmes_loop_runs() -> None:
    (block,) = blocks("README.md")
    before_the_sweep = block.partition("runs = ")[0]
    names: dict = {}
    exec(before_the_sweep, names)
    assert not hasattr(names["model"], "peft_method")


def test_the_page_describes_every_column() -> None:
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    table = text.partition("| column | meaning |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if line))) == sorted(
        COLUMNS
    )
