"""`status`: finished, running, failed and missing runs, of a plan and of a folder."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands.status import running_in, states_of
from vtab_peft.benchmark.execution.locks import RunLocks, list_locks
from vtab_peft.benchmark.storage.store import Store


def test_every_run_has_one_state(store: Store, put: Callable[..., Any], fake: Any) -> None:
    done, running, failed, retried, missing = (fake.spec(seed=seed) for seed in range(5))
    put("flowers", "lora", 0, 0.5)
    for spec in (failed, retried):
        store.save_failure(spec, "out of memory", "")
    locks = RunLocks(store.root / "claims")
    for spec in (running, retried):
        assert locks.acquire(spec.run_id(), "a run")
    runs: list[Any] = [
        SimpleNamespace(spec=spec, oracle=False, keep_adapter=False, keep_logits=False)
        for spec in (done, running, failed, retried, missing)
    ]
    states = states_of(runs, store, running_in(list_locks(store.root / "claims")[0]))
    assert [states[run.spec.run_id()] for run in runs] == ["done", "running", "failed", "running", "missing"]


def test_folder_is_counted_by_leaderboard(
    store: Store, put: Callable[..., Any], fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1, 1):
        put("flowers", "lora", seed, 0.5)
    put("flowers", "lora", 2, 0.5, split="val")
    store.save_failure(fake.spec(seed=3), "ran out of memory", "")
    locks = RunLocks(store.root / "claims")
    assert locks.acquire("0123456789abcdef", "svhn · lora · seed 0")
    assert main(["status", "--results", str(store.root)]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if line.startswith("own ")]
    assert [(row[3], *row[4:]) for row in rows] == [("test", "2", "1", "1"), ("val", "1", "0", "0")]
    assert "running: 0123456789abcdef, svhn · lora · seed 0" in said
    assert f"failed: {fake.spec(seed=3).run_id()}, flowers · lora · seed 3: ran out of memory" in said
    locks.close()


def test_a_suite_that_looks_like_a_number_keeps_its_name(
    store: Store, put: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    put("flowers", "lora", 0, 0.5, suite="1e3")
    assert main(["status", "--results", str(store.root)]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[0] == "1e3"


def test_a_failure_beside_the_result_is_to_be_deleted(
    store: Store, put: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    store.save_failure(put("flowers", "lora", 0, 0.5), "ran out of memory", "")
    main(["status", "--results", str(store.root)])
    said = capsys.readouterr().out
    assert "its result is stored: delete this record" in said
    assert "another version" not in said
    assert "retry" not in said


@pytest.mark.parametrize("command", ["status", "verify"])
def test_folder_without_results_is_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--results", str(tmp_path / "typo")]) == 2
    assert str(tmp_path / "typo") in capsys.readouterr().err
    assert main([command, "--results", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    (tmp_path / "runs").mkdir()
    assert main([command, "--results", str(tmp_path)]) == 0


@pytest.mark.parametrize("command", ["status", "report"])
def test_damaged_failures_are_named(
    command: str, store: Store, put: Callable[..., Any], fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    put("flowers", "lora", 0, 0.5)
    sound = store.save_failure(fake.spec(seed=3), "ran out of memory", "")
    assert main([command, "--results", str(store.root)]) == 0
    before = capsys.readouterr().out
    for name, text in (("a", "{"), ("b", "[]"), ("c", json.dumps({"key": "c", "spec": None}))):
        (store.root / "failed" / f"{name}.json").write_text(text)
    (store.root / "failed" / f"{'0' * 16}.json").write_bytes(sound.read_bytes())
    assert main([command, "--results", str(store.root)]) == 1
    said = capsys.readouterr()
    assert said.out.startswith(before.rstrip("\n"))
    for name in ("a", "b", "c", "0" * 16):
        assert f"{store.root / 'failed' / name}.json" in said.out + said.err


def test_failure_of_a_corrected_plugin_is_not_retried(
    store: Store, put: Callable[..., Any], fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path of each record is printed; `retry` can repeat only the second."""
    wrong, right = "aa" * 32, "bb" * 32
    outdated, other = (
        store.save_failure(fake.spec(method="mine", plugin=wrong, seed=seed), "NameError: n", "") for seed in (0, 1)
    )
    put("flowers", "mine", 0, 0.5, plugin=right)
    assert main(["status", "--results", str(store.root)]) == 0
    said = capsys.readouterr().out
    assert f"seed 0: NameError: n ({outdated}); " in said
    assert f"seed 1: NameError: n ({other})\n" in said
    assert "`vtab-peft retry`" in said

    other.unlink()
    assert main(["status", "--results", str(store.root)]) == 0
    assert "retry" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        ["--methods", "lora"],
        ["--backbone", "toy_vit"],
        ["--suite", "toy"],
        ["--tasks", "all"],
        ["--recipe", "uniform"],
        ["--seeds", "0", "1", "2"],
        ["--save-adapters"],
        ["--set", "lr=1e-3"],
        ["--shot-seed", "0"],
    ],
    ids=" ".join,
)
def test_incomplete_plan_is_refused(options: list[str], store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (store.root / "runs").mkdir(parents=True)
    assert main(["status", "--results", str(store.root), *options]) == 2
    said = capsys.readouterr().err
    assert all(option in said for option in (options[0], "--methods", "--backbone"))


def test_last_lists_the_runs_that_ended_last(
    store: Store, put: Callable[..., Any], fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(4):
        spec, record = fake.spec(seed=seed), fake.record(0.5)
        record["provenance"]["created"] = f"2026-11-0{4 - seed}T00:00:00+00:00"
        store.save(spec, record, np.zeros(10, dtype=np.int64))
    assert main(["status", "--last", "3", "--results", str(store.root)]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[1] for row in rows] == [fake.spec(seed=seed).run_id() for seed in range(3)]
    assert main(["status", "--last", "--suite", "toy", "--methods", "lora", "--backbone", "toy_vit"]) == 2


def test_follow_looks_again_while_runs_are_running(
    store: Store, put: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put("flowers", "lora", 0, 0.5)
    locks = RunLocks(store.root / "claims")
    assert locks.acquire("0123456789abcdef", "svhn · lora · seed 0")
    looks: list[float] = []

    def end_after_two_looks(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            locks.close()

    monkeypatch.setattr("vtab_peft.benchmark.commands.status.time.sleep", end_after_two_looks)
    assert main(["status", "--follow", "--results", str(store.root)]) == 0
    assert len(looks) == 2
    assert capsys.readouterr().out.count("0123456789abcdef") == 2
