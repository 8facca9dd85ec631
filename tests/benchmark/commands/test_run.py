"""The whole way, as a user goes it: `run`, `report`, again, killed, resumed."""

import json
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from asking import command
from here_worker import HereWorker
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands import run as sweep
from vtab_peft.benchmark.commands.messages import announcement, estimate_of, one_worker, say_outcome
from vtab_peft.benchmark.engine.numerics import Engine
from vtab_peft.benchmark.execution.scheduler import SweepResult
from vtab_peft.benchmark.plan import BackboneInfo
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.spec import BackboneRef
from vtab_peft.benchmark.storage.store import Store


def records(results: Path) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text()) for path in sorted((results / "runs").rglob("*.json"))}


def essence(record: dict) -> tuple:
    """What must not depend on how the cell came to be run."""
    return record["spec"], record["predictions_sha256"], record["result"]["loss_curve"], record["result"]["accuracy"]


@pytest.mark.parametrize(
    ("on_gpu", "engine", "cells", "advised"),
    [(True, "eager", 7, True), (True, "eager", 5, False), (True, "graphs", 7, False), (False, "eager", 7, False)],
)
def test_a_long_sweep_on_a_gpu_is_told_of_compiling(on_gpu: bool, engine: Engine, cells: int, advised: bool) -> None:
    """Each cell takes 100 seconds."""
    backbone = BackboneInfo(
        BackboneRef(name="toy_vit", sha256="5e" * 32), None, (0, 0, 0), (1, 1, 1), 64, (), 1.0, "it", on_gpu
    )
    missing_runs: list[Any] = [SimpleNamespace(seconds=100.0)] * cells
    said = announcement(missing_runs, missing_runs, backbone, RECIPES["uniform"], engine)
    assert said.startswith(f"{cells} cells to run: toy_vit, recipe uniform, on it, about ")
    assert ("--engine compiled_graphs" in said) is advised


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"workers": 1}, "2 min"), ({"workers": 4}, "2 min of one worker"), ({"executor": "ray"}, "2 min of one worker")],
)
def test_an_estimate_says_when_it_is_not_of_all_workers(asked: dict[str, Any], said: str) -> None:
    """What they gain is known once they run: several may share one GPU."""
    alone = one_worker(Namespace(**{"workers": 1, "executor": "local"} | asked))
    cells: list[Any] = [SimpleNamespace(seconds=60.0)] * 2
    assert estimate_of(cells, [], alone) == said
    assert estimate_of([], [], alone) == "0 s"


@pytest.mark.parametrize(("traceback", "pointed_to"), [("", False), ("Traceback ...", True)])
def test_a_traceback_is_pointed_to_where_there_is_one(
    traceback: str, pointed_to: bool, store: Store, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a worker that was lost there is none."""
    cell: Any = SimpleNamespace(spec=fake.spec())
    path = store.put_failure(cell.spec, "the worker was killed by signal 9", traceback)
    say_outcome(SweepResult(failed=[(cell, "the worker was killed by signal 9")]), store)
    assert (str(path) in capsys.readouterr().err) is pointed_to


def test_run_fills_in_what_is_missing_and_reports(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, results = make_task(), tmp_path / "results"
    ask = command(task, results, "--methods", "linear", "lora(rank=2)", "--seeds", "0")

    assert main([*ask, "--dry-run"]) == 0
    assert not results.exists()
    said = capsys.readouterr().out
    assert (
        "2 of 2 cells to run, estimate unknown\n"
        "2 of them are of tasks not read yet, so neither estimated nor looked for in the results: own/colours"
    ) in said
    assert [line.split()[-3:] for line in said.splitlines() if line.startswith(("linear", "lora"))] == [
        ["0", "1", "unknown"]
    ] * 2

    assert main(ask) == 0
    said = capsys.readouterr()
    assert "[1/2] colours · linear · seed 0:" in said.err
    assert "LoRA" in said.out
    first = records(results)
    assert {record["spec"]["method"]["spec"] for record in first.values()} == {"linear", "lora(rank=2)"}
    (csv,) = (results / "boards").rglob("leaderboard.csv")
    table = csv.read_bytes()

    assert main([*ask, "--dry-run"]) == 0
    assert "0 of 2 cells to run" in capsys.readouterr().out
    assert main(ask) == 0
    assert "0 cells to run (2 of 2 are there)" in capsys.readouterr().err
    assert main(["report", "--results", str(results)]) == 0
    assert csv.read_bytes() == table
    assert records(results) == first

    assert main([*command(task, results, "--methods", "lora(rank=2)", "--seeds", "0"), "--again"]) == 0
    assert "agrees with the stored run" in capsys.readouterr().err
    again = records(results)
    (repetition,) = set(again) - set(first)
    assert repetition.endswith(".2.json")
    assert essence(again[repetition]) == essence(first[repetition.replace(".2.", ".")])


@pytest.mark.slow
def test_run_prints_the_boards_of_its_cells_and_counts_the_others(
    make_task: Callable[..., Path], put: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, results = make_task(), tmp_path / "results"
    put("flowers", "ssf", 0, 0.5, title="SSF")
    ask = command(task, results, "--methods", "linear", "--seeds", "0")
    for expected in ("and 1 other board: ", "and 2 other boards: "):
        assert main(ask) == 0
        said = capsys.readouterr().out
        assert "toy_vit · recipe smoke" in said
        assert "uniform_3ep" not in said
        assert f"\n{expected}{results / 'README.md'}, page: {results / 'index.html'}\n" in said
        put("flowers", "ssf", 0, 0.5, title="SSF", suite="another")
    assert main(["report", "--results", str(results)]) == 0
    said = capsys.readouterr().out
    assert said.count("recipe uniform_3ep") == 2
    assert "toy_vit · recipe smoke" in said
    assert f"\nreport: {results / 'README.md'}, page: " in said


@pytest.mark.slow
def test_oracle_adds_its_number_to_runs_that_lack_it_and_changes_nothing_else(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    ask = command(make_task(), results, "--methods", "lora", "--seeds", "0")
    assert main(ask) == 0
    (plain,) = records(results).values()
    assert plain["result"]["oracle_accuracy"] is None

    assert main([*ask, "--oracle", "--dry-run"]) == 0
    assert "1 of 1 cell to run" in capsys.readouterr().out
    assert main([*ask, "--oracle"]) == 0
    assert "agrees with the stored run" in capsys.readouterr().err
    (watched,) = (record for name, record in records(results).items() if name.endswith(".2.json"))
    assert essence(watched) == essence(plain)
    assert watched["result"]["oracle_accuracy"] >= watched["result"]["accuracy"]
    assert 1 <= watched["result"]["oracle_epoch"] <= watched["spec"]["recipe"]["epochs"]

    assert main([*ask, "--oracle"]) == 0
    assert "0 cells to run" in capsys.readouterr().err
    assert main([*ask, "--oracle", "--split", "val"]) == 2
    assert "--oracle" in capsys.readouterr().err


@pytest.mark.parametrize(
    "verb",
    [("run", "--again"), ("run", "--oracle"), ("tune", "--max-configs", "2")],
    ids=["again", "oracle", "tune"],
)
def test_a_damaged_record_costs_its_cell_and_the_command_that_finds_it_fills_the_gap(
    verb: tuple[str, ...],
    make_task: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweep, "WorkerProcess", HereWorker)
    results = tmp_path / "results"
    ask = [*verb, *command(make_task(), results, "--methods", "linear", "--seeds", "0", "1")[1:]]
    assert main(ask) == 0
    before = {name: essence(record) for name, record in records(results).items()}
    damaged = next(
        path
        for path in sorted((results / "runs").rglob("*.json"))
        if verb[0] == "run" or json.loads(path.read_text())["spec"]["split"] == "val"
    )
    damaged.write_bytes(damaged.read_bytes()[:300])
    capsys.readouterr()

    assert main(ask) == 0
    said = capsys.readouterr().err
    assert said.count("set aside as") == 1, said
    assert (results / "damaged" / damaged.relative_to(results / "runs")).stat().st_size == 300
    after = {name: essence(record) for name, record in records(results).items()}
    assert {name: after[name] for name in before} == before
    assert main(["verify", "--results", str(results)]) == 1
    assert capsys.readouterr().out.count("was set aside as damaged") == 1


def test_a_failing_cell_is_recorded_and_the_others_go_on(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    ask = command(
        make_task(), results, "--methods", "aoft_lora(rank=128)", "aoft_lora(rank=129)", "linear", "--seeds", "0"
    )
    assert main(ask) == 1
    said = capsys.readouterr()
    assert "FAILED: ValueError: rank 129 exceeds the 128 dimensions" in said.err
    assert len(records(results)) == 2
    (failure,) = (results / "failed").iterdir()
    assert "Traceback" in json.loads(failure.read_text())["traceback"]

    next((results / "runs").rglob("linear/*.json")).unlink()
    assert main(["retry", *ask[1:]]) == 1
    said = capsys.readouterr().err
    assert "1 cell to run (1 of 3 are there; 1 never ran as they are now asked for: `vtab-peft run` runs them)" in said
    assert "FAILED: ValueError: rank 129" in said
    assert len(records(results)) == 1, "what is missing and did not fail is left to `run`"


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """As from a terminal: where the tests run behind a shell's `&`, Ctrl-C is ignored, and children inherit that."""
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{listen}; import sys; from vtab_peft.benchmark.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_for_results(results: Path, n: int, run: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and run.poll() is None:
        if len(list((results / "runs").rglob("*.json"))) >= n:
            return
        time.sleep(0.02)
    pytest.fail(f"no {n} results: {run.communicate()}")


def worker_of(run: subprocess.Popen[str]) -> psutil.Process:
    return next(p for p in psutil.Process(run.pid).children() if "spawn_main" in " ".join(p.cmdline()))


@pytest.mark.slow
@pytest.mark.parametrize("blow", ["kill parent", "kill worker", "interrupt", "terminate"])
def test_a_sweep_that_was_struck_goes_on_and_ends_as_if_nothing_had_happened(
    blow: str, make_task: Callable[..., Path], tmp_path: Path
) -> None:
    task = make_task()
    methods = ("--methods", "bitfit", "lora", "aoft_lora", "--seeds", *"01234")  # long enough to be struck
    calm, struck = tmp_path / "calm", tmp_path / "struck"
    assert main(command(task, calm, *methods)) == 0

    run = start(command(task, struck, *methods))
    wait_for_results(struck, 1, run)
    worker = worker_of(run)
    if blow == "kill worker":
        worker.kill()
    elif blow == "terminate":
        worker.terminate()  # Slurm tells every process of the job
        run.terminate()
    else:
        run.send_signal(signal.SIGKILL if blow == "kill parent" else signal.SIGINT)
    _, err = run.communicate(timeout=120)
    if blow == "kill worker":
        assert run.returncode == 1
        assert "the worker was killed by signal 9" in err
        assert len(records(struck)) == 14
    if blow == "interrupt":
        assert run.returncode == 130
        assert "every finished cell is kept" in err
        assert "Traceback" not in err
    if blow == "terminate":
        assert run.returncode == 143
        assert "SIGTERM: no cell is begun any more" in err
        assert "every finished cell is kept" in err
        assert "Traceback" not in err
        assert not (struck / "claims").exists()
        assert main(["verify", "--results", str(struck)]) == 0, "something was left half-written"
    psutil.wait_procs([worker], timeout=30)
    assert not worker.is_running(), "the worker ends with its parent"

    assert main(command(task, struck, *methods)) == 0
    assert {k: essence(v) for k, v in records(struck).items()} == {k: essence(v) for k, v in records(calm).items()}
    assert not list(struck.rglob(".tmp-*"))
    assert not list(struck.glob("failed/*"))


def test_max_minutes_starts_nothing_that_cannot_end_in_time(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    main([*command(make_task(), results, "--methods", "lora", "--seeds", "0"), "--max-minutes", "0.0001"])
    assert "1 cell not started for lack of time" in capsys.readouterr().err
    assert not records(results)


@pytest.mark.parametrize("verb", [("run",), ("tune", "--max-configs", "1")], ids=["run", "tune"])
def test_max_minutes_counts_what_comes_before_the_first_cell(
    verb: tuple[str, ...],
    make_task: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker takes an hour to start, by a clock that stands still otherwise."""
    now = [1000.0]

    class SlowToStart(HereWorker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            now[0] += 3600

    monkeypatch.setattr(sweep, "WorkerProcess", SlowToStart)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    ask = [*verb, *command(make_task(), tmp_path / "results", "--methods", "linear", "--seeds", "0")[1:]]
    main([*ask, "--max-minutes", "50"])
    assert "1 cell not started for lack of time" in capsys.readouterr().err
    main([*ask, "--max-minutes", "70"])
    assert "not started" not in capsys.readouterr().err


@pytest.mark.slow
def test_splits_and_plugged_in_numbers_do_not_share_keys(make_task: Callable[..., Path], tmp_path: Path) -> None:
    task, results = make_task(), tmp_path / "results"
    for more in ((), ("--split", "val"), ("--normalisation", "imagenet"), ("--interpolation", "bilinear")):
        assert main(command(task, results, "--methods", "linear", "--seeds", "0", *more)) in (0, 1)
    assert len(records(results)) == 4
    complaints: list[str] = []
    assert set(Store(results).frame(complaints)["split"]) == {"test", "val"}
    assert not complaints


def test_report_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--results", str(tmp_path / "none")]) == 1
    assert "run" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
