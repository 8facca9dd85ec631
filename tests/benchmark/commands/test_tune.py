"""`tune` from end to end."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import LOCAL_BACKEND, InProcessBackend
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands import tune as commands
from vtab_peft.benchmark.execution.local_pool import LocalBackend
from vtab_peft.benchmark.execution.scheduler import SweepResult
from vtab_peft.benchmark.plan import PlannedRun
from vtab_peft.benchmark.storage.schema import to_frame
from vtab_peft.benchmark.storage.store import Store

BASE = ("tune", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1")
METHODS = ("--methods", "linear", "lora(rank=2)", "--max-configs", "3")


@pytest.fixture(params=[InProcessBackend, pytest.param(LocalBackend, marks=pytest.mark.slow)])
def some_worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, request.param)


def chosen(results: Path) -> dict[str, bytes]:
    return {str(path.relative_to(results)): path.read_bytes() for path in (results / "chosen").rglob("*.json")}


@pytest.mark.usefixtures("some_worker")
def test_tune_runs_trials_and_refits_and_resumes(
    make_task: Callable[..., Path], put: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks, results = [make_task(), make_task("shades", classes=2, seed=1)], tmp_path / "results"
    ask = [*BASE, "--tasks", *map(str, tasks), "--results", str(results), *METHODS, "--seeds", "0", "1"]
    assert main([*ask, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "own/colours, own/shades" in said.splitlines()[-1]
    assert ["0", "6", "0", "of", "2", "0", "4"] in [line.split()[-9:-2] for line in said.splitlines()]
    assert not results.exists()

    assert main([*ask, "--max-minutes", "0.00001"]) == 0
    assert "4 of 4 pairs" in capsys.readouterr().err
    assert not (results / "chosen").exists()

    assert main(ask) == 0
    said = capsys.readouterr()
    assert "12 trials of 12" in said.err
    assert "8 refits of 8" in said.err
    assert "recipe smoke_tuned3" in said.out
    assert f"\nreport: {results / 'README.md'}" in said.out
    runs = to_frame(Store(results).load_runs()[0])
    assert runs["split"].value_counts().to_dict() == {"val": 12, "test": 8}
    choices = {json.loads(text)["method"]: json.loads(text) for text in chosen(results).values()}
    assert set(choices) == {"linear", "lora(rank=2)"}

    (table,) = (results / "boards").rglob("leaderboard.csv")
    with table.open() as file:
        rows = {row["spec"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"linear", "lora(rank=2)"}, "one row per method, not per setting"
    assert {(row["configurations"], row["seeds"], bool(row["rank"])) for row in rows.values()} == {("3", "2", True)}

    for path in (results / "runs").rglob("*.json"):
        record = json.loads(path.read_text())
        if record["spec"]["split"] == "test":
            trial = next((results / "runs").rglob(f"{record['facts']['tuning']['val_key']}.json"))
            won = json.loads(trial.read_text())
            assert won["spec"]["split"] == "val"
            assert won["result"]["accuracy"] == record["facts"]["tuning"]["val_accuracy"]
            for name in ("lr", "weight_decay"):
                assert won["spec"]["recipe"][name] == record["spec"]["recipe"][name]

    assert not list(results.rglob("*.safetensors"))
    assert main([*ask, "--keep-adapters"]) == 0
    assert "8 refits of 8" in capsys.readouterr().err
    kept = [json.loads(path.with_suffix(".json").read_text()) for path in (results / "runs").rglob("*.safetensors")]
    assert [record["spec"]["split"] for record in kept] == ["test"] * 8, "adapters of trials are not saved"
    assert main([*ask, "--keep-adapters"]) == 0
    assert "0 refits of 8" in capsys.readouterr().err

    before = chosen(results)
    for path in (results / "chosen").rglob("*.json"):
        path.unlink()
    assert main([*ask, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("2 of 2") == 2
    put("flowers", "ssf", 0, 0.5)  # on another leaderboard
    assert main(ask) == 0
    said = capsys.readouterr()
    assert "recipe smoke_tuned3" in said.out
    assert "uniform_3ep" not in said.out
    assert "\nand 1 other leaderboard: " in said.out
    assert "0 trials of 12" in said.err
    assert "0 refits of 8" in said.err
    assert chosen(results) == before


@pytest.mark.slow
@pytest.mark.usefixtures("some_worker")
def test_choice_does_not_depend_on_test_data(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    outcomes = []
    for scramble in (False, True):
        cache, results = tmp_path / f"cache {scramble}", tmp_path / f"results {scramble}"
        monkeypatch.setitem(os.environ, "VTAB_PEFT_CACHE", str(cache))
        ask = [*BASE, "--tasks", str(task), "--results", str(results), *METHODS, "--seeds", "0"]
        assert main([*ask, "--max-minutes", "0.00001"]) == 0  # fills the cache
        for path in cache.rglob("*.npy") if scramble else ():
            array = np.load(path)
            if len(array) == 18:  # the images and labels of test
                np.save(path, np.roll(array, 7, axis=0) // 2)
        for path in (cache / "tasks").rglob("*.json") if scramble else ():  # as of a version without checksums
            manifest = json.loads(path.read_text())
            path.write_text(json.dumps({**manifest, "checksums": {}}))
        assert main(ask) == 0
        runs = to_frame(Store(results).load_runs()[0])
        outcomes.append((chosen(results), runs[runs["split"] == "test"]["accuracy"].tolist()))
    assert outcomes[0][0] == outcomes[1][0]
    assert outcomes[0][1] != outcomes[1][1], "the test data were scrambled"


@pytest.mark.usefixtures("some_worker")
@pytest.mark.parametrize(
    ("more", "facts"),
    [
        (["--recipe", "ssf"], ["'ssf'"]),
        (["--max-configs", "16"], ["linear", "16", "--max-configs 15"]),
        (
            ["--methods", "adapter_plus", "--grid", "drop_path=0,0.1", "lr=1e-3,1e-2"],
            ["--set drop_path=0", "adapter_plus(drop_path=0)"],
        ),
    ],
)
def test_impossible_search_is_refused(
    more: list[str],
    facts: list[str],
    make_task: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = tmp_path / "results"
    assert main([*BASE, "--tasks", str(make_task()), "--results", str(results), *METHODS, *more]) == 2
    err = capsys.readouterr().err
    assert all(fact in err for fact in facts)
    assert "Traceback" not in err
    assert not results.exists()


def test_a_trial_that_two_methods_share_runs_once(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`partial(blocks=2)` is a variant of `partial`."""
    planned: list[str] = []

    def sweep(runs: list[PlannedRun], *_: object) -> SweepResult:
        planned.extend(run.spec.run_id() for run in runs)
        return SweepResult()

    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    monkeypatch.setattr(commands, "sweep", sweep)
    ask = [*BASE, "--tasks", str(make_task()), "--results", str(tmp_path / "results")]
    main([*ask, "--methods", "partial", "partial(blocks=2)", "--max-configs", "15", "--seeds", "0"])
    assert 15 < len(planned) == len({*planned}) < 30
    assert f"{len(planned)} trials of {len(planned)}" in capsys.readouterr().err


def test_a_pair_whose_trials_all_failed_is_named(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    monkeypatch.setattr(commands, "sweep", lambda runs, *_: SweepResult(failed=[(run, "no") for run in runs]))
    ask = [*BASE, "--tasks", str(make_task()), "--results", str(tmp_path / "results"), "--seeds", "0"]
    assert main([*ask, "--methods", "linear", "--max-configs", "2"]) == 1
    err = capsys.readouterr().err
    assert "all 2 trials of linear on colours failed or diverged" in err
    assert "yet" not in err


def test_an_interruption_before_the_first_run_names_no_results_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "resolve_names", interrupt)
    results = tmp_path / "results"
    assert main([*BASE, "--suite", "toy", "--results", str(results), *METHODS]) == 130
    assert str(results) not in capsys.readouterr().err


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
