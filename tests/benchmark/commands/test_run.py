"""`run` and `report` from end to end: repeated, killed and resumed."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from asking import command
from in_process import LOCAL_BACKEND, InProcessBackend
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.storage.store import Store


def records(results: Path) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text()) for path in sorted((results / "runs").rglob("*.json"))}


def essence(record: dict) -> tuple:
    """Return what must be equal in every execution of a run."""
    return record["spec"], record["predictions_sha256"], record["result"]["loss_curve"], record["result"]["accuracy"]


def test_run_executes_what_is_missing_and_reports(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, results = make_task(), tmp_path / "results"
    ask = command(task, results, "--methods", "linear", "lora(rank=2)", "--seeds", "0")

    assert main([*ask, "--dry-run"]) == 0
    assert not results.exists()
    said = capsys.readouterr().out
    assert "2 of 2 runs" in said
    assert "own/colours" in said.splitlines()[-1]
    rows = [line.split() for line in said.splitlines() if line.startswith(("linear", "lora"))]
    assert [row[-4:-2] for row in rows] == [["0", "1"]] * 2
    assert all(row[-1] in ("s", "min", "h") for row in rows)  # the time, from the number of images

    assert main(ask) == 0
    said = capsys.readouterr()
    assert "[1/2] colours · linear · seed 0:" in said.err
    assert "LoRA" in said.out
    first = records(results)
    assert {record["spec"]["method"]["spec"] for record in first.values()} == {"linear", "lora(rank=2)"}
    (csv,) = (results / "boards").rglob("leaderboard.csv")
    table = csv.read_bytes()

    assert main(ask) == 0
    assert "0 runs to do (2 of 2 " in capsys.readouterr().err
    assert main(["report", "--results", str(results)]) == 0
    assert csv.read_bytes() == table
    assert records(results) == first


@pytest.mark.slow
def test_repeated_run_has_the_same_result_beside_the_first(make_task: Callable[..., Path], tmp_path: Path) -> None:
    ask = command(make_task(), results := tmp_path / "results", "--methods", "lora(rank=2)", "--seeds", "0")
    assert main(ask) == 0
    first = records(results)
    assert main([*ask, "--repeat"]) == 0
    again = records(results)
    (repetition,) = set(again) - set(first)
    assert repetition.endswith(".2.json")
    assert essence(again[repetition]) == essence(first[repetition.replace(".2.", ".")])


@pytest.mark.slow
def test_run_prints_only_leaderboards_of_its_runs(
    make_task: Callable[..., Path], put: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, results = make_task(), tmp_path / "results"
    put("flowers", "ssf", 0, 0.5, title="SSF")
    ask = command(task, results, "--methods", "linear", "--seeds", "0")
    for expected in ("and 1 other leaderboard: ", "and 2 other leaderboards: "):
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
def test_oracle_is_added_without_changing_the_run(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    ask = command(make_task(), results, "--methods", "lora", "--seeds", "0")
    assert main(ask) == 0
    (plain,) = records(results).values()
    assert plain["result"]["oracle_accuracy"] is None

    assert main([*ask, "--oracle", "--dry-run"]) == 0
    assert "1 of 1 run " in capsys.readouterr().out
    assert main([*ask, "--oracle"]) == 0
    (watched,) = (record for name, record in records(results).items() if name.endswith(".2.json"))
    assert essence(watched) == essence(plain)
    assert watched["result"]["oracle_accuracy"] >= watched["result"]["accuracy"]
    assert 1 <= watched["result"]["oracle_epoch"] <= watched["spec"]["recipe"]["epochs"]

    assert main([*ask, "--oracle"]) == 0
    assert "0 runs to do" in capsys.readouterr().err
    assert main([*ask, "--oracle", "--split", "val"]) == 2
    assert "--oracle" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [("run", "--again"), ("run", "--oracle"), ("tune", "--max-configs", "2")],
    ids=["again", "oracle", "tune"],
)
def test_damaged_record_is_quarantined_and_its_run_repeated(
    words: tuple[str, ...],
    make_task: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    results = tmp_path / "results"
    ask = [*words, *command(make_task(), results, "--methods", "linear", "--seeds", "0", "1")[1:]]
    assert main(ask) == 0
    before = {name: essence(record) for name, record in records(results).items()}
    damaged = next(
        path
        for path in sorted((results / "runs").rglob("*.json"))
        if words[0] == "run" or json.loads(path.read_text())["spec"]["split"] == "val"
    )
    damaged.write_bytes(damaged.read_bytes()[:300])
    capsys.readouterr()

    assert main(ask) == 0
    quarantined = results / "damaged" / damaged.relative_to(results / "runs")
    assert capsys.readouterr().err.count(str(quarantined)) == 1
    assert quarantined.stat().st_size == 300
    after = {name: essence(record) for name, record in records(results).items()}
    assert {name: after[name] for name in before} == before
    assert main(["verify", "--results", str(results)]) == 1
    assert capsys.readouterr().out.count(str(quarantined)) == 1


@pytest.mark.slow
def test_failed_run_is_recorded_and_others_continue(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, plugin = tmp_path / "results", tmp_path / "failing.py"
    plugin.write_text(FAILING)
    methods = ("--methods", "lora(rank=2)", "failing", "linear", "--plugin", str(plugin))
    ask = command(make_task(), results, *methods, "--seeds", "0")
    assert main(ask) == 1
    said = capsys.readouterr()
    assert "RuntimeError: no luck" in said.err
    assert len(records(results)) == 2
    (failure,) = (results / "failed").iterdir()
    assert "Traceback" in json.loads(failure.read_text())["traceback"]

    next((results / "runs").rglob("linear/*.json")).unlink()
    assert main(["retry", *ask[1:]]) == 1
    said = capsys.readouterr().err
    assert "1 run to do (1 of 3 " in said
    assert "RuntimeError: no luck" in said
    assert len(records(results)) == 1, "`retry` skips missing runs that did not fail"


FAILING = """
from vtab_peft.methods import Method, method


@method("failing")
class Failing(Method):
    \"\"\"Cannot be trained.\"\"\"

    def inject(self, vit):
        vit.norm.weight.requires_grad_(True)

    def after_step(self, vit, step, steps):
        raise RuntimeError("no luck")
"""


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start a command that reacts to Ctrl-C, even if the tests run in the background of a shell."""
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
@pytest.mark.parametrize("event", ["kill parent", "kill worker", "interrupt", "terminate"])
def test_interrupted_sweep_resumes_to_the_same_results(
    event: str, make_task: Callable[..., Path], tmp_path: Path
) -> None:
    task = make_task()
    methods = ("--methods", "bitfit", "lora", "aoft_lora", "--seeds", *"01234")  # long enough to interrupt
    complete, interrupted = tmp_path / "complete", tmp_path / "interrupted"
    assert main(command(task, complete, *methods)) == 0

    run = start(command(task, interrupted, *methods))
    wait_for_results(interrupted, 1, run)
    worker = worker_of(run)
    if event == "kill worker":
        worker.kill()
    elif event == "terminate":
        worker.terminate()  # Slurm tells every process of the job
        run.terminate()
    else:
        run.send_signal(signal.SIGKILL if event == "kill parent" else signal.SIGINT)
    _, err = run.communicate(timeout=120)
    if event == "kill worker":
        assert run.returncode == 0, "a new worker takes the run"
        assert len(records(interrupted)) == 15
    if event == "interrupt":
        assert run.returncode == 130
        assert "Traceback" not in err
    if event == "terminate":
        assert run.returncode == 143
        assert "SIGTERM" in err
        assert "Traceback" not in err
        assert not (interrupted / "claims").exists()
        assert main(["verify", "--results", str(interrupted)]) == 0, "a file is incomplete"
    psutil.wait_procs([worker], timeout=30)
    assert not worker.is_running(), "the worker ends with its parent"

    assert main(command(task, interrupted, *methods)) == 0
    assert {k: essence(v) for k, v in records(interrupted).items()} == {
        k: essence(v) for k, v in records(complete).items()
    }
    assert not list(interrupted.rglob(".tmp-*"))
    assert not list(interrupted.glob("failed/*"))


@pytest.mark.slow
def test_max_minutes_starts_no_run_that_is_too_long(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    main([*command(make_task(), results, "--methods", "lora", "--seeds", "0"), "--max-minutes", "0.0001"])
    assert "1 run not started" in capsys.readouterr().err
    assert not records(results)


@pytest.mark.parametrize("words", [("run",), ("tune", "--max-configs", "1")], ids=["run", "tune"])
def test_max_minutes_includes_the_start_of_the_worker(
    words: tuple[str, ...],
    make_task: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker takes an hour to start; the clock is otherwise still."""
    now = [1000.0]

    class SlowToStart(InProcessBackend):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            now[0] += 3600

    monkeypatch.setattr(LOCAL_BACKEND, SlowToStart)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    ask = [*words, *command(make_task(), tmp_path / "results", "--methods", "linear", "--seeds", "0")[1:]]
    main([*ask, "--max-minutes", "50"])
    assert "1 run not started" in capsys.readouterr().err
    main([*ask, "--max-minutes", "70"])
    assert "not started" not in capsys.readouterr().err


@pytest.mark.slow
def test_split_and_preprocessing_are_in_the_run_id(make_task: Callable[..., Path], tmp_path: Path) -> None:
    task, results = make_task(), tmp_path / "results"
    for more in ((), ("--split", "val"), ("--normalisation", "imagenet"), ("--interpolation", "bilinear")):
        assert main(command(task, results, "--methods", "linear", "--seeds", "0", *more)) in (0, 1)
    assert len(records(results)) == 4
    runs, problems = Store(results).load_runs()
    assert {run.spec.split for run in runs} == {"test", "val"}
    assert not problems


def test_report_without_results_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--results", str(tmp_path / "none")]) == 1
    assert "run" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
