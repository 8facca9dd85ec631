"""The command `shift` from end to end: what it opens and when, what it stores, and what it does not repeat."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import command
from in_process import LOCAL_BACKEND, InProcessBackend
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands import shift as shift_command
from vtab_peft.benchmark.commands.shift import only_classes
from vtab_peft.benchmark.storage.shifts import Shift, load_shifts
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets import shifted
from vtab_peft.datasets.cache import CachedTask
from vtab_peft.datasets.corruptions import CORRUPTIONS

QUICK = ("--seeds", "0", "--set", "epochs=2", "probe_epochs=1", "--save-adapters")


@pytest.fixture
def task(make_task: Callable[..., Path]) -> Path:
    return make_task()


@pytest.fixture
def results(task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """LoRA and a linear probe with adapters, and LoRA's twin that never trained on val; one corruption only."""
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    monkeypatch.setattr("vtab_peft.benchmark.commands.run.write_report", lambda *_, **__: 0)
    monkeypatch.setattr("vtab_peft.benchmark.commands.shift.write_report", lambda *_, **__: 0)
    monkeypatch.setattr(shifted, "CORRUPTIONS", {"jpeg": CORRUPTIONS["jpeg"]})
    folder = tmp_path / "results"
    assert main(command(task, folder, "--methods", "linear", "lora(rank=2)", *QUICK)) == 0
    assert main([*command(task, folder, "--methods", "lora(rank=2)", *QUICK), "--split", "val"]) == 0
    return folder


def ask(task: Path, results: Path, *more: str) -> int:
    words = ["--tasks", str(task), "--results", str(results), "--weights", "random", "--threads", "1", *more]
    return main(["shift", *words])


def records(results: Path) -> dict[str, Shift]:
    """Return the name of a method -> the record of its run."""
    found, problems = load_shifts(results)
    assert not problems
    runs = {run.run_id: run.spec.method.name for run in Store(results).load_runs()[0]}
    return {runs[run_id]: record for run_id, record in found.items()}


def test_alpha_is_chosen_on_val_before_test_is_opened_once(
    task: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    before, predict = CachedTask.labels, shift_command.predict

    def labels(self: CachedTask, split: Any) -> np.ndarray:
        events.append(f"labels {split}")
        return before(self, split)

    def watched(*arguments: Any) -> np.ndarray:
        events.append("predict")
        return predict(*arguments)

    monkeypatch.setattr(CachedTask, "labels", labels)
    monkeypatch.setattr(shift_command, "predict", watched)
    assert ask(task, results, "--wise-ft") == 0
    first_test = events.index("labels test")
    choosing = [event for event in events[:first_test] if event != "labels val"]
    assert choosing == ["predict"] * 11  # every alpha, on val
    assert "labels val" not in events[first_test:]
    tests = 1 + 5  # clean, and the corruption at five severities
    assert events[first_test:].count("predict") == 3 * tests  # linear, LoRA, and LoRA's chosen alpha
    found = records(results)
    assert found["linear"].wise_ft is None
    wise = found["lora"].wise_ft
    assert wise
    best = max(accuracy for _, accuracy in wise.val)
    assert (wise.alpha, best) == max(pair for pair in wise.val if pair[1] == best)
    (twin,) = (run for run in Store(results).load_runs()[0] if run.spec.split == "val")
    assert wise.chosen_by == twin.run_id


def test_clean_is_the_accuracy_of_the_run_and_nothing_is_repeated(task: Path, results: Path) -> None:
    assert ask(task, results) == 0
    found = records(results)
    runs = {run.spec.method.name: run for run in Store(results).load_runs()[0] if run.spec.split == "test"}
    for name, record in found.items():
        clean = record.tests[0]
        assert (clean.name, clean.accuracy) == ("clean", runs[name].accuracy)
        assert [(test.name, test.severity) for test in record.tests[1:]] == [("jpeg", s) for s in range(1, 6)]
    assert ask(task, results) == 0
    assert records(results) == found
    (task / "test_mini.txt").write_text("images/test_1.png 1\nimages/test_4.png 1\n")
    assert ask(task, results, "--methods", "lora") == 0
    later = records(results)
    assert later["linear"] == found["linear"]
    assert later["lora"].tests[:-1] == found["lora"].tests
    mini = later["lora"].tests[-1]
    assert (mini.name, mini.severity, mini.images, mini.correct) == ("mini", 0, 2, 2)  # one class competes


@pytest.mark.slow
def test_draws_choose_alpha_with_their_own_model(task: Path, tmp_path: Path, results: Path) -> None:
    """A few-shot run never trains on val."""
    folder = tmp_path / "few"
    asked = command(task, folder, "--methods", "lora(rank=2)", *QUICK)
    assert main([*asked, "--shots", "2", "--shot-seed", "0"]) == 0
    assert ask(task, folder, "--wise-ft") == 0
    (record,) = load_shifts(folder)[0].values()
    assert record.wise_ft
    assert record.wise_ft.chosen_by == record.key


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_alphas_are_not_chosen_again_after_an_interruption(
    task: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as interrupted:
        interrupted.setattr(shift_command, "shifted_tests", interrupt)
        assert ask(task, results, "--methods", "lora", "--wise-ft") == 130
    chosen = records(results)["lora"].wise_ft
    assert chosen
    predictions, predict = [], shift_command.predict
    monkeypatch.setattr(shift_command, "predict", lambda *given: predictions.append(predict(*given)) or predictions[-1])
    assert ask(task, results, "--methods", "lora", "--wise-ft") == 0
    wise = records(results)["lora"].wise_ft
    assert wise
    assert (wise.alpha, wise.val, len(wise.tests)) == (chosen.alpha, chosen.val, 6)
    assert len(predictions) == 2 * 6  # the run's model and the one of its alpha, on each test and not on val


def test_a_damaged_record_is_announced_once_and_written_again(
    task: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(task, results, "--methods", "linear") == 0
    (path,) = (results / "shift").glob("*.json")
    before = records(results)["linear"]
    path.write_bytes(b"{")
    capsys.readouterr()
    assert ask(task, results, "--methods", "linear") == 0
    assert sum(str(path) in line for line in capsys.readouterr().err.splitlines()) == 1
    assert records(results)["linear"].tests == before.tests


def test_a_folder_that_cannot_be_written_ends_it_before_any_evaluation(
    task: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (results / "shift").write_text("a file")
    monkeypatch.setattr(shift_command, "predict", None)
    assert ask(task, results) == 1


def test_runs_without_adapters_are_refused(task: Path, tmp_path: Path, results: Path) -> None:
    for file in results.rglob("*.safetensors"):
        file.unlink()
    assert ask(task, results) == 2
    assert not (results / "shift").exists()


@pytest.mark.slow
def test_wise_ft_for_no_model_ends_with_1(task: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No twin would help the probe, whose backbone is unchanged; what was evaluated is stored all the same."""
    assert ask(task, results, "--methods", "linear", "--wise-ft") == 1
    assert "--split val" not in capsys.readouterr().err
    assert set(records(results)) == {"linear"}


def test_methods_are_named_and_unknown_ones_refused(task: Path, results: Path) -> None:
    assert ask(task, results, "--methods", "lora(rank=2)", "nothing") == 2
    assert not (results / "shift").exists()
    assert ask(task, results, "--methods", "LoRA", "lora( rank = 2 )") == 0
    assert set(records(results)) == {"lora"}


@pytest.mark.slow
def test_a_method_that_learns_from_examples_is_restored(task: Path, tmp_path: Path, results: Path) -> None:
    """SPT chooses its weights from gradients of training images; its adapter file does not hold the choice."""
    folder = tmp_path / "spt"
    assert main(command(task, folder, "--methods", "spt_lora", *QUICK)) == 0
    (run,) = Store(folder).load_runs()[0]
    assert ask(task, folder) == 0
    assert records(folder)["spt_lora"].tests[0].accuracy == run.accuracy


def test_a_damaged_adapter_is_left_out_and_others_go_on(
    task: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (damaged,) = (results / "runs").rglob("linear/*.safetensors")
    damaged.write_bytes(b"nothing")
    assert ask(task, results) == 0
    assert set(records(results)) == {"lora"}
    lines = capsys.readouterr().err.splitlines()
    evaluated = next((results / "shift").glob("*.json")).stem
    for run_id in (damaged.stem, evaluated):  # method and seed do not tell runs of two backbones or recipes apart
        assert sum(f"run {run_id}:" in line for line in lines) == 1
    for file in (results / "runs").rglob("*.safetensors"):
        file.write_bytes(b"nothing")
    (results / "shift").rename(results / "earlier")
    assert ask(task, results) == 2


def test_only_classes_of_the_list_compete() -> None:
    head = torch.nn.Linear(4, 3)
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    restricted = only_classes(head, np.array([2, 0, 0]))
    expected = torch.tensor([0, 2])[head(features)[:, [0, 2]].argmax(1)]
    assert torch.equal(restricted(features).argmax(1), expected)
    assert torch.isfinite(head.bias).all()
