"""`vtab-peft ensemble`: members are chosen on val200 alone, and the accuracies are those of the averages."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.reporting import agreement, ensembles
from vtab_peft.benchmark.reporting.ensembles import STRATEGIES, Choice, choose, grow, vote
from vtab_peft.benchmark.storage.predictions import load_predictions
from vtab_peft.benchmark.storage.store import Store

CLASSES, IMAGES, SEEDS = 10, 60, 3
METHODS = ("aa", "bb", "cc", "dd")
Logits = dict[tuple[str, str, str, int], np.ndarray]


@pytest.fixture
def logits(store: Store, fake: Any) -> Logits:
    """Store runs of four methods on two tasks and both splits; return (split, task, method, seed) -> logits."""
    found: Logits = {}
    for split in ("val", "test"):
        for task in ("one", "two"):
            labels = np.random.default_rng(len(split + task)).integers(0, CLASSES, IMAGES)
            for place, method in enumerate(METHODS):
                for seed in range(SEEDS):
                    rng = np.random.default_rng([seed, *(split + task + method).encode()])
                    own = rng.normal(size=(IMAGES, CLASSES)) + (1 + 0.2 * place) * np.eye(CLASSES)[labels]
                    own = (own - own.max(axis=1, keepdims=True)).astype("<f2")
                    classes = own.argmax(axis=1)
                    record = fake.record(float((classes == labels).mean()), title=method)
                    spec = fake.spec(task, method, seed, split=split)
                    store.save(spec, record, classes, classes == labels, logits=own, labels=labels)
                    found[split, task, method, seed] = own.astype(float)
    return found


def ask(store: Store, folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    assert main(["ensemble", "--results", str(store.root), "--to", str(folder)]) == 0
    rows = csv.DictReader((folder / "ensemble.csv").read_text().splitlines())
    return {(row["task"], row["prediction"]): row for row in rows}


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_a_majority_vote_prefers_the_earliest_voter_in_a_tie() -> None:
    assert vote([np.array([1, 1, 1]), np.array([2, 2, 1]), np.array([2, 3, 2])]).tolist() == [2, 1, 1]


def test_members_are_added_by_the_accuracy_of_the_average() -> None:
    """`a` is best alone; with it, `c` is right on the last image and `b` on none more."""
    labels = np.array([0, 0, 0, 0])
    probabilities = {
        "a": np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.4, 0.6]]),
        "b": np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]),
        "c": np.array([[0.4, 0.6], [0.4, 0.6], [0.4, 0.6], [0.9, 0.1]]),
    }
    assert grow([probabilities], labels, 2) == ("a", "c")
    assert grow([probabilities], labels, 3) == ("a", "c", "b")
    swapped = {"a": probabilities["b"], "b": probabilities["c"], "c": probabilities["a"]}
    assert grow([probabilities, swapped], labels, 2) == ("a", "b"), "the second member has the second seed"


def test_accuracies_are_those_of_the_averages(store: Store, logits: Logits, tmp_path: Path) -> None:
    table = ask(store, tmp_path)
    for task in ("one", "two"):
        labels = np.random.default_rng(len("test" + task)).integers(0, CLASSES, IMAGES)
        own = {key[2:]: softmax(value) for key, value in logits.items() if key[:2] == ("test", task)}
        turns = [[(m, (turn + place) % SEEDS) for place, m in enumerate(METHODS)] for turn in range(SEEDS)]
        every = [sum(own[member] for member in members).argmax(1) == labels for members in turns]
        assert float(table[task, "all"]["accuracy"]) == pytest.approx(np.mean(every), abs=1e-4)
        at_val = np.random.default_rng(len("val" + task)).integers(0, CLASSES, IMAGES)
        means = {
            m: np.mean([(logits["val", task, m, seed].argmax(1) == at_val).mean() for seed in range(SEEDS)])
            for m in METHODS
        }
        best = max(means, key=lambda m: means[m])
        singles = [(own[best, seed].argmax(1) == labels).mean() for seed in range(SEEDS)]
        together = sum(own[best, seed] for seed in range(SEEDS)).argmax(1) == labels
        assert float(table[task, "single"]["accuracy"]) == pytest.approx(np.mean(singles), abs=1e-4)
        assert float(table[task, "seeds"]["accuracy"]) == pytest.approx(together.mean(), abs=1e-4)
    shown = np.array([[float(table[t, n]["accuracy"]) for n in STRATEGIES] for t in ("one", "two", "mean of 2")])
    assert shown[2] == pytest.approx(shown[:2].mean(0), abs=2e-4)
    assert table["one", "chosen"]["members"] == str(SEEDS)


def test_nothing_is_chosen_on_test(
    store: Store, logits: Logits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Validation predictions are read first, and other test predictions and accuracies change no choice."""
    opened: list[str] = []

    def load(run: Any) -> Any:
        opened.append(run.spec.split)
        return load_predictions(run)

    def chosen(*given: Any) -> Choice:
        choices.append(choose(*given))
        read_before.append(len(opened))
        return choices[-1]

    choices: list[Choice] = []
    read_before: list[int] = []
    monkeypatch.setattr(agreement, "load_predictions", load)
    monkeypatch.setattr(ensembles, "choose", chosen)
    before = ask(store, tmp_path / "first")
    runs = 2 * len(METHODS) * SEEDS
    assert opened == ["val"] * runs + ["test"] * runs
    assert read_before == [runs, runs]

    for path in store.root.rglob("*.json"):  # the best methods become the worst
        run = store.load(path)
        if run.spec.split == "test":
            found = load_predictions(run)
            assert found.labels is not None
            classes = np.where(found.correct, (found.labels + 1) % CLASSES, found.labels).astype("<u2")
            worse = -np.abs(np.arange(CLASSES) - classes[:, None].astype(int)).astype("<f2")
            record = json.loads(path.read_text())
            record["result"]["accuracy"] = float((classes == found.labels).mean())
            path.unlink()
            kept = {"logits": worse, "labels": found.labels}
            facts = {name: record[name] for name in ("result", "facts", "provenance")}
            store.save(run.spec, facts, classes, classes == found.labels, **kept)
    after = ask(store, tmp_path / "second")
    assert before != after
    assert choices[:2] == choices[2:]


def test_runs_that_no_ensemble_needs_may_lack_logits_and_refits(
    store: Store, logits: Logits, fake: Any, tmp_path: Path
) -> None:
    """A further seed, and a task that the other methods lack."""
    before = ask(store, tmp_path)
    for task, seed in (("one", SEEDS), ("three", 0)):
        store.save(fake.spec(task, "aa", seed, split="val"), fake.record(0.5), np.zeros(IMAGES, int))
    assert ask(store, tmp_path) == before


def test_what_is_missing_is_refused(store: Store, logits: Logits, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ensemble", "--results", str(store.root)]
    assert main([*command, "--methods", "aa"]) == 2
    assert main([*command, "--methods", "aa", "bb", "--size", "3"]) == 2
    assert "--size 3" in capsys.readouterr().err
    test_run = next(p for p in sorted(store.root.rglob("*.json")) if store.load(p).spec.split == "test")
    arrays = dict(np.load(test_run.with_suffix(".npz")))
    np.savez(test_run.with_suffix(".npz"), predictions=arrays["predictions"], correct=arrays["correct"])
    assert main(command) == 2
    assert "logits" in capsys.readouterr().err
    test_run.unlink()
    assert main(command) == 2
    for path in store.root.rglob("*.json"):
        if store.load(path).spec.split == "val":
            path.unlink()
    assert main(command) == 2
