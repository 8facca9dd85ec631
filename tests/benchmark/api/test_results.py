"""`load_results`, `leaderboard`, `compare` and `published`: the numbers of the commands, as tables."""

import csv
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vtab_peft
from raises import raises_naming
from scipy import stats
from vtab_peft.benchmark.api.arguments import parse_arguments
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.reporting.published import load
from vtab_peft.benchmark.storage.schema import COLUMNS
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.methods import METHODS

IMAGES = 200
PUBLIC = {"Method", "Recipe", "__version__", "adapter", "apply", "compare", "leaderboard", "load_adapter"}
PUBLIC |= {"load_results", "merge", "method", "plain_vit", "published", "run", "to_bencheval", "trainable"}


@pytest.fixture
def two_methods(store: Store, fake) -> Path:
    """Three seeds of two methods on two tasks, with predictions."""
    for task, shift in (("flowers", 0.0), ("cars", 0.1)):
        easy = np.random.default_rng(0).random(IMAGES)
        for method, level in (("lora", 0.9), ("bitfit", 0.5)):
            for seed in range(3):
                correct = easy + 0.1 * np.random.default_rng(seed).random(IMAGES) < level - shift
                record = fake.record(float(correct.mean()), title=method)
                store.save(fake.spec(task, method, seed), record, np.zeros(IMAGES, dtype=int), correct)
    return store.root


def test_public_names_are_there_and_listed() -> None:
    assert set(vtab_peft.__all__) == PUBLIC <= set(dir(vtab_peft))
    assert all(getattr(vtab_peft, name) is not None for name in PUBLIC)
    with pytest.raises(AttributeError):
        vtab_peft.absent  # noqa: B018


def test_the_package_and_its_tables_need_no_torch() -> None:
    code = "import sys, vtab_peft; vtab_peft.run, vtab_peft.Recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_of_two_folders_counts_once(two_methods: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(two_methods, copy)
    once = next(copy.rglob("*.json"))
    for suffix in (".json", ".npz"):
        shutil.copy(once.with_suffix(suffix), once.with_suffix(f".2{suffix}"))
    own, hers = vtab_peft.load_results(two_methods), vtab_peft.load_results(copy)
    both = pd.concat([own[own["seed"] < 2], hers[hers["seed"] > 0]])
    pd.testing.assert_frame_equal(vtab_peft.leaderboard(both), vtab_peft.leaderboard(two_methods))
    assert str(vtab_peft.compare("lora", "bitfit", both)) == str(vtab_peft.compare("lora", "bitfit", own))


def test_different_results_for_one_run_are_refused(two_methods: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(two_methods, copy)
    edited = next(copy.rglob("*.json"))
    record = json.loads(edited.read_text())
    record["result"]["accuracy"] = 0.125
    edited.write_text(json.dumps(record))
    both = pd.concat([vtab_peft.load_results(two_methods), vtab_peft.load_results(copy)])
    with raises_naming(ValueError, edited.stem, "12.50 %", copy, two_methods):
        vtab_peft.leaderboard(both)


def test_a_results_folder_below_home_is_found(two_methods: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell replaces the tilde of a Python string, nor that of `--results=~/runs`."""
    monkeypatch.setenv("HOME", str(two_methods.parent))
    results = f"~/{two_methods.name}"
    assert parse_arguments("run", {"methods": "lora", "backbone": "toy_vit", "results": results}).results == two_methods
    assert len(vtab_peft.load_results(results)) == 12
    assert main(["report", f"--results={results}"]) == 0
    assert parse_arguments("run", {"methods": "lora", "backbone": "toy_vit", "results": "~no such user"}).results.name


def test_load_results_has_every_stored_run(two_methods: Path) -> None:
    frame = vtab_peft.load_results(two_methods)
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 12
    next(two_methods.rglob("*.json")).write_text("{}")
    with pytest.warns(UserWarning, match="damaged"):
        assert len(vtab_peft.load_results(str(two_methods))) == 11
    with pytest.raises(ValueError, match="absent"):
        vtab_peft.load_results(two_methods / "absent")


def test_leaderboard_equals_the_report(two_methods: Path) -> None:
    board = vtab_peft.leaderboard(two_methods)
    assert main(["report", "--results", str(two_methods)]) == 0
    (file,) = two_methods.rglob("leaderboard.csv")
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert list(board.columns) == list(rows[0])
    assert [f"{100 * mean:.2f}" for mean in board["mean_tasks"]] == [row["mean_tasks"] for row in rows]
    assert list(board["spec"]) == ["lora", "bitfit"]


def test_leaderboard_of_some_rows(two_methods: Path, fake) -> None:
    frame = vtab_peft.load_results(two_methods)
    part = vtab_peft.leaderboard(frame[(frame["task"] == "cars") & (frame["seed"] == 0)])
    assert "accuracy_flowers" not in part.columns
    assert list(part["seeds"]) == [1, 1]
    for empty, named in ((frame[:0], "no test runs"), (frame[["spec", "accuracy"]], "path")):
        with pytest.raises(ValueError, match=named):
            vtab_peft.leaderboard(empty)
    with pytest.raises(ValueError, match="nowhere"):
        vtab_peft.leaderboard(frame, "nowhere")
    Store(two_methods).save(fake.spec(recipe="uniform"), fake.record(), np.zeros(IMAGES, dtype=int))
    with pytest.raises(ValueError, match="2 leaderboards"):
        vtab_peft.leaderboard(two_methods)
    assert len(vtab_peft.leaderboard(two_methods, "uniform_3ep")) == 2


def test_a_table_is_used_in_the_folder_in_which_it_was_made(two_methods: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(two_methods.parent)
    frame = vtab_peft.load_results(two_methods.name)
    monkeypatch.chdir("/")
    with raises_naming(ValueError, "relative"):
        vtab_peft.leaderboard(frame)


def test_compare_returns_the_numbers_of_the_command(two_methods: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = vtab_peft.compare("lora", "bitfit", two_methods)
    assert main(["compare", "lora", "bitfit", "--results", str(two_methods)]) == 0
    assert str(found) == repr(found) == capsys.readouterr().out.rstrip("\n")
    tasks = found.tasks.set_index("task")
    assert list(tasks.index) == ["cars", "flowers", "mean of 2"]
    frame = vtab_peft.load_results(two_methods)
    accuracy = frame.pivot_table(index=["task", "seed"], columns="method", values="accuracy")
    each = (accuracy["lora"] - accuracy["bitfit"])["cars"]
    assert tasks.loc["cars", "difference"] == pytest.approx(each.mean())
    interval = stats.t.interval(0.95, 2, loc=each.mean(), scale=stats.sem(each))
    assert tuple(tasks.loc["cars", ["low", "high"]]) == pytest.approx(interval)
    assert tasks.loc["cars", "low_images"] < tasks.loc["cars", "low"]
    assert set(tasks.loc["cars", "mcnemar_p"]) == {0, 1, 2}
    assert pd.isna(tasks.loc["mean of 2", "low_images"])
    assert found.over_tasks is None
    assert str(vtab_peft.compare(METHODS["lora"](), METHODS["bitfit"](), two_methods)) == str(found)
    with pytest.raises(ValueError, match="ssf"):
        vtab_peft.compare("lora", "ssf", frame)


def test_the_leaderboard_of_a_comparison_is_asked_for_in_words_of_python(two_methods: Path, put: Any) -> None:
    for method in ("lora", "bitfit"):
        put("flowers", method, 0, 0.5, suite="other")
    with raises_naming(ValueError, "2 leaderboards", "with leaderboard:\n", "\n  other--vit_tiny") as raised:
        vtab_peft.compare("lora", "bitfit", two_methods)
    assert "--leaderboard" not in str(raised.value)


def test_published_has_every_printed_number() -> None:
    frame = vtab_peft.published()
    assert len(frame) == sum(len(row.numbers) for row in load())
    lora = vtab_peft.published("LoRA")
    assert vtab_peft.published(METHODS["lora"]()).equals(lora)
    assert set(lora["method"]) <= {"lora", ""}
    assert {"suite", "task", "accuracy", "source", "selection", "flag"} <= set(lora.columns)
    with pytest.raises(ValueError, match="no published"):
        vtab_peft.published("no such method")
    with pytest.raises(ValueError, match="aoft_lora_paper") as raised:
        vtab_peft.published("aoft_lora")
    assert len(str(raised.value)) < 200, "similar names, not all of them"


def test_rows_for_bencheval_are_dense(two_methods: Path, fake) -> None:
    runs = vtab_peft.load_results(two_methods)
    rows = vtab_peft.to_bencheval(runs)
    assert list(rows) == ["method", "task", "seed", "metric_error", "time_train_s", "time_infer_s"]
    assert rows.equals(vtab_peft.to_bencheval(pd.concat([runs, runs[:6]]))), "two tables may share runs"
    assert len(rows) == len(runs) == len(rows.drop_duplicates(["method", "task", "seed"])) == 12
    expected = runs.set_index(["title", "task", "seed"])["accuracy"]
    for row in rows.itertuples():
        assert row.metric_error == 1 - expected[row.method, row.task, row.seed]

    store = Store(two_methods)
    store.save(fake.spec("cars", "ssf", 0), fake.record(0.5, title="SSF"), np.zeros(IMAGES, dtype=int))
    store.save(fake.spec("cars", "lora", 3), fake.record(0.5, title="lora"), np.zeros(IMAGES, dtype=int))
    with pytest.warns(UserWarning, match="left out") as said:
        again = vtab_peft.to_bencheval(two_methods)
    assert len(said) == 2
    pd.testing.assert_frame_equal(again, rows)
    with pytest.raises(ValueError):
        vtab_peft.to_bencheval(runs[(runs["method"] == "lora") == (runs["task"] == "cars")])


def test_bencheval_makes_a_leaderboard_of_the_rows(two_methods: Path) -> None:
    evaluator = pytest.importorskip("bencheval.evaluator")
    board = evaluator.BenchmarkEvaluator(seed_column="seed").leaderboard(
        vtab_peft.to_bencheval(two_methods), include_error=True
    )
    assert list(board.index) == ["lora", "bitfit"]
    assert list(board["rank"]) == [1.0, 2.0]


def test_arguments_of_other_types_are_refused(two_methods: Path) -> None:
    with raises_naming(ValueError, "set", "dictionary"):
        vtab_peft.run(methods="linear", backbone="toy_vit", suite="toy", set="epochs=1")  # pyright: ignore
    with raises_naming(ValueError, "yes", "True or False"):
        vtab_peft.run(methods="linear", backbone="toy_vit", suite="toy", save_adapters="yes")
    with raises_naming(ValueError, "results folder"):
        vtab_peft.leaderboard(None)  # pyright: ignore
    read: Any
    for read in (vtab_peft.leaderboard, vtab_peft.to_bencheval, partial(vtab_peft.compare, "lora", "bitfit")):
        with raises_naming(ValueError, "None", "leaderboard", "name"):
            read(two_methods, None)
    with raises_naming(ValueError, "folder", "None"):
        vtab_peft.load_results(None)  # pyright: ignore
    with raises_naming(ValueError, "results", "None"):
        vtab_peft.load_adapter("ab12", None)  # pyright: ignore


def test_a_missing_results_folder_is_named_in_words_of_python(tmp_path: Path) -> None:
    for read in (vtab_peft.load_results, vtab_peft.leaderboard, vtab_peft.to_bencheval):
        with raises_naming(ValueError, "there is no results folder", str(tmp_path / "none")) as raised:
            read(tmp_path / "none")
        assert "--" not in str(raised.value)
