"""`status`: done, running, failed and missing, of a plan and of a folder."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.running.claims import Claims
from vtab_peft.benchmark.storing.store import Store
from vtab_peft.benchmark.verbs.status import states_of


def test_every_cell_is_in_one_state(store: Store, put: Callable[..., Any], fake: Any) -> None:
    done, running, failed, retried, missing = (fake.spec(seed=seed) for seed in range(5))
    put("flowers", "lora", 0, 0.5)
    for spec in (failed, retried):
        store.put_failure(spec, "out of memory", "")
    claims = Claims(store.root / "claims")
    for spec in (running, retried):
        assert claims.take(spec.key(), "a cell")
    cells: list[Any] = [
        SimpleNamespace(spec=spec, oracle=False, keep_adapter=False)
        for spec in (done, running, failed, retried, missing)
    ]
    states = states_of(cells, store)
    assert [states[cell.spec.key()] for cell in cells] == ["done", "running", "failed", "running", "missing"]


def test_a_folder_is_summed_up_by_suite_backbone_recipe_and_split(
    store: Store, put: Callable[..., Any], fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1, 1):
        put("flowers", "lora", seed, 0.5)
    put("flowers", "lora", 2, 0.5, split="val")
    store.put_failure(fake.spec(seed=3), "ran out of memory", "")
    claims = Claims(store.root / "claims")
    assert claims.take("0123456789abcdef", "svhn · lora · seed 0")
    assert main(["status", "--results", str(store.root)]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if line.startswith("own ")]
    assert [(row[3], *row[4:]) for row in rows] == [("test", "2", "1", "1"), ("val", "1", "0", "0")]
    assert "running: svhn · lora · seed 0, by process" in said
    assert "failed: flowers · lora · seed 3: ran out of memory" in said
    claims.close()


def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--results", str(tmp_path / "none")]) == 0
    assert "0 runs and 0 failed cells" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_damaged_failure_does_not_stop_it(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (store.root / "failed").mkdir(parents=True)
    for name, text in (("a", "{"), ("b", "[]"), ("c", json.dumps({"key": "c", "spec": None}))):
        (store.root / "failed" / f"{name}.json").write_text(text)
    assert main(["status", "--results", str(store.root)]) == 0
    assert "0 failed cells" in capsys.readouterr().out


def test_half_a_plan_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--methods", "lora"]) == 2
    assert "--methods and --backbone" in capsys.readouterr().err
