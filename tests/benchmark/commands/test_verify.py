"""`verify`: valid results pass, and each kind of error in a results folder is found and named."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.execution.locks import RunLocks
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.atomic_io import abandoned, host
from vtab_peft.datasets.cache import build, default_root
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.pixels import Preprocessing

PREDICTED = np.array([0, 1, 2, 0, 1, 2, 0, 0])
CORRECT = np.array([1, 1, 1, 1, 0, 0, 0, 1], dtype=bool)


@pytest.fixture
def results(store: Store, fake: Any, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a store of two valid runs with three classes, one of them repeated."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    for seed in (0, 0, 1):
        store.save(fake.spec(seed=seed), record(fake), PREDICTED, CORRECT)
    return store


def record(fake: Any, accuracy: float = 0.625, by_class: tuple[float, ...] = (0.75, 0.5, 0.5)) -> dict[str, Any]:
    made = fake.record(accuracy, head_params=3 * 193)
    made["facts"]["classes"] = 3
    made["result"] |= {"per_class_accuracy": list(by_class), "loss_curve": [1.0, 0.5, 0.25]}
    return made


def verify(store: Store, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    status = main(["verify", "--results", str(store.root)])
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == before, "verify changes nothing"
    return status, capsys.readouterr().out


def first(store: Store, suffix: str = ".json") -> Path:
    return min(path for path in (store.root / "runs").rglob(f"*{suffix}") if path.name.count(".") == 1)


def edit(path: Path, part: str, **changes: Any) -> None:
    content = json.loads(path.read_text())
    content[part] |= changes
    path.write_text(json.dumps(content))


def test_valid_results_pass(results: Store, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", "--results", str(results.root)])
    status, said = verify(results, capsys)
    assert status == 0
    assert said.startswith("3 results checked, 3 ")


def test_a_problem_is_counted_once(results: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Rebuilding the tables reads the records of failures and costs again."""
    main(["report", "--results", str(results.root)])
    costs(results)
    (results.root / "failed").mkdir()
    (results.root / "failed" / f"{'0' * 16}.json").write_text("{")
    status, said = verify(results, capsys)
    assert status == 1
    assert said.endswith("2 problems\n")


def test_right_logits_pass(results: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with_logits(results)
    status, said = verify(results, capsys)
    assert status == 0, said


def test_repetition_without_the_first_run_is_valid(results: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """A result may be deleted by removing its files."""
    (second,) = results.root.rglob("*.2.json")
    spec = results.load(second).run_id
    for suffix in (".json", ".npz"):
        second.with_name(spec + suffix).unlink()
    status, said = verify(results, capsys)
    assert status == 0, said


def predictions_of_others(results: Store) -> None:
    np.savez_compressed(first(results, ".npz"), predictions=PREDICTED[::-1].astype("<u2"), correct=CORRECT)


def wrongly_marked(results: Store) -> None:
    np.savez_compressed(first(results, ".npz"), predictions=PREDICTED.astype("<u2"), correct=~CORRECT)


def edit_method(path: Path, **changes: Any) -> None:
    edit(path, "spec", method=json.loads(path.read_text())["spec"]["method"] | changes)


def with_logits(results: Store, **changes: np.ndarray) -> None:
    """Keep logits and labels of a run, of which those that are given are wrong."""
    labels = np.where(CORRECT, PREDICTED, (PREDICTED + 1) % 3).astype("<u2")
    arrays = {"correct": CORRECT, "labels": labels, "logits": np.eye(3, dtype="<f2")[PREDICTED], **changes}
    np.savez_compressed(first(results, ".npz"), predictions=PREDICTED.astype("<u2"), **arrays)  # pyright: ignore


def costs(results: Store) -> None:
    path = results.root / "costs" / "vit" / "lora" / "0.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")


def misplaced(results: Store) -> None:
    path = first(results)
    (path.parent.parent / "vpt").mkdir()
    path.rename(path.parent.parent / "vpt" / path.name)


def leftover(folder: Path) -> None:
    """Write the temporary file of a process that was killed."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (folder / f".tmp-{host()}-{dead.pid}-ab").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        (lambda r: edit(first(r), "spec", seed=9), "run ID"),
        (lambda r: edit(first(r), "result", accuracy=62.5), "accuracy"),
        (lambda r: edit(first(r), "result", accuracy=0.75), "0.625"),
        (lambda r: edit(first(r), "result", loss_curve=[1.0]), "3 epochs"),
        (lambda r: edit(first(r), "result", per_class_accuracy=[1.0]), "3 classes"),
        (lambda r: edit(first(r), "result", per_class_accuracy=[1.0, 2.0, 1.0]), "per_class_accuracy[1]"),
        (lambda r: edit(first(r), "result", oracle_accuracy=0.7, oracle_epoch=4), "4 of 3"),
        (lambda r: edit(first(r), "result", oracle_accuracy=0.7), "0.7"),
        (lambda r: edit_method(first(r), spec="ssf"), "ssf"),
        (lambda r: edit(first(r), "result", trainable_params=10**9), f"{10**9} trainable"),
        (lambda r: edit(first(r), "result", head_params=100), "100 parameters"),
        (lambda r: edit(first(r), "result", train_seconds=-1.0), "train_seconds is -1.0"),
        (lambda r: edit(first(r), "facts", classes=2), "class 2"),
        (lambda r: first(r).write_text('{"schema": 1'), "damaged"),
        (predictions_of_others, "predictions"),
        (wrongly_marked, "0.375"),
        (lambda r: first(r, ".npz").write_bytes(b"PK"), "predictions"),
        (lambda r: with_logits(r, correct=np.roll(CORRECT, 1)), "other images"),
        (lambda r: with_logits(r, logits=np.full((8, 3), np.inf, "<f2")), "logits"),
        (lambda r: with_logits(r, logits=np.zeros((8, 2), "<f2")), "3 classes"),
        (lambda r: with_logits(r, logits=np.eye(3, dtype="<f2")[PREDICTED[::-1]]), "logits"),
        (costs, "costs/vit/lora/0.json"),
        (misplaced, "/lora"),
        (lambda r: save_file({"x": np.zeros(1)}, first(r).with_suffix(".safetensors")), "adapter"),
        (lambda r: (first(r).parent / "notes.txt").write_text(""), "notes.txt"),
        (lambda r: (first(r).parent / f"{'0' * 16}.npz").write_bytes(b""), f"{'0' * 16}.npz"),
        (lambda r: leftover(first(r).parent), ".tmp-"),
    ],
)
def test_errors_are_named(
    results: Store, capsys: pytest.CaptureFixture[str], damage: Callable[[Store], Any], fact: str
) -> None:
    damage(results)
    status, said = verify(results, capsys)
    assert status == 1
    assert fact in said
    assert str(results.root) in said


def test_files_of_running_commands_are_no_errors(results: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = "0" * 16
    (first(results).parent / f"{run_id}.npz").write_bytes(b"")  # the record follows
    assert RunLocks(results.root / "claims").acquire(run_id, "a run")
    status, said = verify(results, capsys)
    assert status == 0, said
    gone = results.root / f".tmp-{host()}-1-ab"
    assert not [*abandoned([gone])]


def test_outdated_tables_are_named(results: Store, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", "--results", str(results.root)])
    next(results.root.rglob("leaderboard.csv")).write_text("no")
    next(results.root.rglob("table.tex")).unlink()
    status, said = verify(results, capsys)
    assert status == 1
    assert said.count("`vtab-peft report`") == 2
    assert "leaderboard.csv" in said
    assert "table.tex" in said


def test_obsolete_failures_and_locks_are_named(results: Store, fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    results.save_failure(fake.spec(seed=0), "out of memory", "")  # it has succeeded since
    results.save_failure(fake.spec(seed=7), "out of memory", "")  # it has not
    (results.root / "failed" / "broken.json").write_text("{}")
    (results.root / "claims").mkdir()
    claim = {"cell": "svhn · lora", "host": "elsewhere", "process": 1, "started": 0.0}
    path = results.root / "claims" / "0123456789abcdef.json"
    path.write_text(json.dumps(claim))
    os.utime(path, (0, 0))
    status, said = verify(results, capsys)
    assert status == 1
    assert f"{fake.spec(seed=0).run_id()}.json" in said
    assert fake.spec(seed=7).run_id() not in said
    assert "broken.json" in said
    assert "process 1 on elsewhere" in said


def test_predictions_are_compared_with_cached_labels(
    store: Store, fake: Any, make_task: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = build(folder_task(make_task()), Preprocessing(32, "bicubic"), default_root())
    labels = data.labels("test")
    guesses = labels.copy()
    guesses[:9] = (guesses[:9] + 1) % 3
    spec = fake.spec("colours", data=data.data)
    store.save(spec, record(fake, 0.5, (0.5, 0.5, 0.5)), guesses, guesses == labels)
    status, said = verify(store, capsys)
    assert (status, "1 against" in said) == (0, True)

    edit(store.path(spec), "result", per_class_accuracy=[0.4, 0.5, 0.6])
    status, said = verify(store, capsys)
    assert status == 1
    assert "class accuracies" in said

    edit(store.path(spec), "result", accuracy=0.75)
    status, said = verify(store, capsys)
    assert status == 1
    assert "0.75" in said
    assert "0.5 " in said


def test_strict_requires_what_others_need_to_check(
    results: Store, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = ["verify", "--strict", "--results", str(results.root)]
    clean = {"git_sha": "c0ffee" * 6, "git_dirty": False, "created": "2026-11-25T10:00:00+00:00"}
    for path in (results.root / "runs").rglob("*.json"):
        edit(path, "provenance", **clean)
    assert main(strict) == 0
    changes = [{"git_sha": None}, {"git_dirty": True}, {"plugins": [{"file": "a.py", "sha256": "ab" * 32}]}]
    for change in changes:
        edit(first(results), "provenance", **change)
        assert main(strict) == 1, change
        assert main(["verify", "--results", str(results.root)]) == 0, "without --strict the run is valid"
        edit(first(results), "provenance", **clean | {"plugins": []})
    assert main(strict) == 0
    first(results, ".npz").unlink()
    capsys.readouterr()
    assert main(strict) == 1
    assert str(first(results)) in capsys.readouterr().out
