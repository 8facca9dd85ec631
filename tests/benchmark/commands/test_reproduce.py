"""`reproduce`: a paper's settings, and its numbers beside the measured ones."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from in_process import LOCAL_BACKEND, InProcessBackend
from leaderboards import VTAB
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands.reproduce import by_task, load_papers, mean_by_seed, means_of, published_rows, table
from vtab_peft.benchmark.plan import NORMALISATIONS
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.reporting.published import load
from vtab_peft.benchmark.spec import BackboneRef
from vtab_peft.benchmark.storage.schema import Run
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.methods import parse

PAPERS = load_papers()
VIT_B = "vit_base_patch16_224.orig_in21k"


@pytest.mark.parametrize("name", PAPERS)
def test_settings_exist(name: str) -> None:
    paper = PAPERS[name]
    assert paper.recipe in RECIPES
    assert paper.normalisation in NORMALISATIONS
    assert paper.selection in ("last epoch", "best test epoch")
    assert all(parse(spec).spec() == spec for spec in paper.methods)
    assert set(paper.sources) <= {row.source.source for row in load()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seeds"), [("fact", ["0", "1"]), ("adapter_plus", ["0"])])
def test_a_small_suite_runs_with_the_settings_of_a_paper(
    name: str,
    seeds: list[str],
    make_task: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    paper, results = PAPERS[name], tmp_path / "results"
    ask = ["reproduce", name, "--tasks", str(make_task()), "--backbone", "toy_vit", "--weights", "random"]
    ask += ["--threads", "1", "--results", str(results), "--set", "epochs=3", "--seeds", *seeds]
    assert main([*ask, "--dry-run"]) == 0
    assert not results.exists()
    assert main(ask) == 0
    said = capsys.readouterr().out
    runs, _ = Store(results).load_runs()
    assert {run.method_spec for run in runs} == set(paper.methods)
    assert {(run.spec.mean, run.spec.std) for run in runs} == {NORMALISATIONS[paper.normalisation]}
    assert {run.spec.interpolation for run in runs} == {paper.interpolation}
    assert all((run.oracle_accuracy is not None) == (paper.selection == "best test epoch") for run in runs)
    assert all(f"{spec}: {len(seeds)} seed" in said for spec in paper.methods)


def test_an_unknown_paper_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "adapterplus", "--dry-run"]) == 2
    assert "adapter_plus" in capsys.readouterr().err


@pytest.fixture
def whole_suite(put: Callable[..., Any], store: Store) -> list[Run]:
    """LoRA on the 19 tasks; seeds 0, 1 and 2 are 1, 2 and 3 points below the study's printed accuracies."""
    (row,) = published_rows(PAPERS["osu"], "lora", [])
    for task, group in VTAB.items():
        for seed in range(3):
            accuracy = row.numbers[task].accuracy / 100 - 0.01 * (seed + 1)
            facts = {"suite": "vtab1k", "group": group, "backbone": BackboneRef(name=VIT_B, sha256="0" * 64)}
            put(task, "lora", seed, accuracy - 0.005, oracle_accuracy=accuracy, **facts)
    return store.load_runs()[0]


def test_each_line_is_measured_minus_published(whole_suite: list[Run]) -> None:
    lines = [line.split() for line in table(PAPERS["osu"], "lora", whole_suite).splitlines()]
    lines = [line for line in lines if line[0] in (*VTAB, "mean_19", "mean_groups")]
    assert len(lines) == 21
    for line in lines:
        published, last, best, difference, low, _, high = (float(text) if text != "to" else None for text in line[1:])
        assert best - published == pytest.approx(-2, abs=0.11)
        assert best - last == pytest.approx(0.5, abs=0.11)
        assert difference == pytest.approx(-2, abs=0.051)
        half = 4.303 / 3**0.5  # Student's quantile for 2 degrees of freedom; the three seeds have a deviation of 1
        assert (low, high) == (pytest.approx(-2 - half, abs=0.051), pytest.approx(-2 + half, abs=0.051))


def test_each_line_has_its_number_of_seeds(whole_suite: list[Run]) -> None:
    assert table(PAPERS["osu"], "lora", whole_suite).startswith("lora: 3 seeds\n")
    lost = [run for run in whole_suite if (run.spec.task.name, run.spec.seed) != ("dtd", 2)]
    title, *lines = table(PAPERS["osu"], "lora", lost).splitlines()
    assert title == "lora: 2 to 3 seeds"
    counts = {line.split()[0]: line.split()[-1] for line in lines[2:]}
    assert counts == dict.fromkeys(VTAB, "3") | {"dtd": "2", "mean_19": "2", "mean_groups": "2"}


def test_lines_of_draws_are_told_apart(put: Callable[..., Any], store: Store) -> None:
    for seed in range(2):
        put("dtd", "lora", 0, 0.5, suite=f"vtab1k@4shot.seed{seed}", oracle_accuracy=0.5)
    runs = sorted(store.load_runs()[0], key=lambda run: run.spec.task.suite)
    lines = table(PAPERS["osu"], "lora", runs).splitlines()[3:]
    assert [f"dtd · 4 shots, shot seed {seed}" in line for seed, line in enumerate(lines)] == [True, True]


def test_means_weigh_tasks_and_groups(whole_suite: list[Run]) -> None:
    tasks = by_task(whole_suite)
    assert means_of(tasks) == ("mean_19", "mean_groups")
    assert means_of({task: own for task, own in tasks.items() if task.name != "dtd"}) == ()
    of_seed = {task.name: own[0] for task, own in tasks.items()}
    groups = {group: [of_seed[name] for name, own in VTAB.items() if own == group] for group in VTAB.values()}
    assert mean_by_seed(tasks, whole_suite, "mean_19")[0] == pytest.approx(fmean(of_seed.values()))
    by_group = fmean(fmean(members) for members in groups.values())
    assert mean_by_seed(tasks, whole_suite, "mean_groups")[0] == pytest.approx(by_group)
