"""`run --keep-logits` stores logits beside the predictions, and changes nothing else."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from asking import command
from in_process import LOCAL_BACKEND, InProcessBackend
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.engine.evaluate import compact
from vtab_peft.benchmark.storage.predictions import PredictionsDamaged, load_predictions
from vtab_peft.benchmark.storage.schema import Run
from vtab_peft.benchmark.storage.store import Store


def only_run(store: Store) -> Run:
    (run,), problems = store.load_runs()
    assert not problems
    return run


def test_logits_are_an_option_of_storage(
    make_task: Callable[..., Path],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    task = make_task()
    ask = command(task, store.root, "--methods", "linear", "--seeds", "0", "--split", "val")
    assert main(ask) == 0
    before = only_run(store)
    assert load_predictions(before).logits is None
    assert main([*ask, "--keep-logits"]) == 0
    run = only_run(store)
    assert (run.run_id, run.predictions_sha256, run.repetition) == (before.run_id, before.predictions_sha256, 2)
    found = load_predictions(run)
    assert found.logits is not None
    assert found.logits.dtype == np.float16
    assert found.logits.shape == (len(found.classes), run.classes)
    assert (found.logits.max(axis=1) == 0).all()
    assert (found.logits.argmax(axis=1) == found.classes).all()
    assert ((found.labels == found.classes) == found.correct).all()

    assert main([*ask, "--keep-logits"]) == 0
    capsys.readouterr()
    assert main(ask) == 0
    said = capsys.readouterr().out
    assert f"linear  {100 * run.accuracy:.1f}" in re.sub(" +", "  ", said), "stored accuracies are printed again"
    assert only_run(store).repetition == 2
    assert main(["rerun", run.run_id, "--weights", "random", "--data", str(task), "--results", str(store.root)]) == 0
    assert only_run(store).repetition == 3
    assert store.has_logits(run.spec)


def test_softmax_survives_the_rounding() -> None:
    logits = 300 + 20 * torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    small = compact(logits)
    assert small.dtype == torch.float16
    assert torch.allclose(small.double().softmax(1), logits.double().softmax(1), atol=2e-3)
    wild = torch.tensor([[torch.inf, 0.0], [1e30, -1e30]])
    assert compact(wild).tolist() == [[0.0, -65504.0]] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"logits": np.zeros((10, 9), "<f2")},
        {"logits": np.full((10, 10), np.nan, "<f2")},
        {"logits": np.zeros((9, 10), "<f2")},
        {"logits": np.zeros((10, 10), "<f4")},
        {"logits": np.zeros((10, 10), "<f2", order="F")},
        {"predictions": np.ones(10, "<u2")},
        {"labels": np.zeros(10, "<u2")},
        {"logits": np.eye(10, dtype="<f2")},
    ],
    ids=["classes", "nan", "images", "type", "order", "hash", "labels", "others"],
)
def test_logits_that_contradict_the_record_are_refused(change: dict[str, np.ndarray], store: Store, fake) -> None:
    correct = np.arange(10) < 5
    logits = np.zeros((10, 10), "<f2")
    labels = np.where(correct, 0, 1).astype("<u2")
    path = store.save(fake.spec(), fake.record(0.5), np.zeros(10, int), correct, logits=logits, labels=labels)
    assert load_predictions(store.load(path)).logits is not None
    arrays = {"predictions": np.zeros(10, "<u2"), "correct": correct, "logits": logits, "labels": labels} | change
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    with pytest.raises(PredictionsDamaged):
        load_predictions(store.load(path))
