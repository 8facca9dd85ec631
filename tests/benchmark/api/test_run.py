"""`run`: the runs of the command, from options as values of Python."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vtab_peft
from asking import command
from in_process import LOCAL_BACKEND, InProcessBackend
from vtab_peft.benchmark.api.arguments import parse_arguments
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.recipes import RECIPES, choose_recipe
from vtab_peft.benchmark.storage.schema import COLUMNS
from vtab_peft.methods import METHODS


@pytest.mark.slow
def test_run_makes_the_runs_of_the_command(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    task, results = make_task(), tmp_path / "results"
    asked = {"backbone": "toy_vit", "weights": "random", "recipe": "smoke", "threads": 1}
    frame = vtab_peft.run(methods=["linear", "lora(rank=2)"], tasks=task, seeds=[0, 1], results=results, **asked)
    assert list(frame.columns) == list(COLUMNS)
    assert list(zip(frame["seed"], frame["spec"], strict=True)) == [
        *((0, "linear"), (0, "lora(rank=2)"), (1, "linear"), (1, "lora(rank=2)"))
    ]
    assert main(command(task, tmp_path / "by_command", "--methods", "linear", "lora(rank=2)", "--seeds", "0", "1")) == 0
    by_command = vtab_peft.load_results(tmp_path / "by_command").set_index("key")
    assert set(by_command.index) == set(frame["key"])
    assert (by_command.loc[frame["key"], "accuracy"].array == frame["accuracy"].array).all()
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.json")}
    again = vtab_peft.run(methods=["linear"], tasks=str(task), seeds=1, results=results, **asked)
    assert list(again["key"]) == [frame["key"][2]]
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*.json")} == before
    changed = vtab_peft.run(methods="linear", tasks=task, seeds=1, results=results, set={"probe_epochs": 7}, **asked)
    assert list(changed["recipe"]) == ["smoke(probe_epochs=7)"]


@pytest.mark.slow
def test_a_recipe_of_ones_own_is_its_own_leaderboard(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    mine = replace(RECIPES["smoke"], name="mine", probe_epochs=3)
    asked = {"backbone": "toy_vit", "weights": "random", "tasks": make_task(), "seeds": 0, "threads": 1}
    asked |= {"methods": "linear", "results": tmp_path / "results"}
    (row,) = vtab_peft.run(recipe=mine, **asked).itertuples()
    assert (row.recipe, row.recipe_base) == ("mine", mine.base)
    (again,) = vtab_peft.run(recipe=RECIPES["smoke"], **asked).itertuples()
    assert again.recipe_base == RECIPES["smoke"].base
    with pytest.raises(ValueError, match="smoke"):
        vtab_peft.run(recipe=replace(mine, name="smoke"), **asked)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"seeds": "zero"}, "zero"),
        ({"colour_of": 1}, "unknown option colour_of"),
        ({"recipe": "none"}, "none"),
        ({"workers": 0}, "0"),
        ({"lr": 1}, r"set=\{'lr': 1\}"),
        ({"limit_test": 5}, "limit_test"),
        ({"set": {"epoch": 3}}, "^set: a recipe has no field 'epoch'"),
        ({"set": {"lr": [1e-3, 1e-4]}}, "^set: lr must be a number"),
        ({"set": {"drop_last": 1}}, "^set: drop_last must be true or false"),
        ({"methods": "gated"}, "`vtab-peft list methods`.* plugin=FILE"),
        ({"methods": METHODS["lora"]}, r"instance, LoRA\(\)"),
        ({"seeds": True}, "^argument seeds: expected a value, not True"),
        ({"help": True}, "unknown option help"),
        ({"again": "yes"}, "^argument again: .* True or False, not 'yes'"),
        ({"results": ""}, "^argument results: the path is empty"),
    ],
)
def test_wrong_options_are_value_errors(wrong: dict, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=named):
        vtab_peft.run(**{"methods": "lora", "backbone": "toy_vit", "suite": "toy"} | wrong)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("values", [[2, 1], {1, 2}, np.array([1, 2]), range(1, 3), iter([1, 2])])
def test_any_iterable_is_a_list_of_values(values: Any) -> None:
    asked = {"methods": {"lora"}, "backbone": "toy_vit", "seeds": values, "set": {}}
    assert sorted(parse_arguments("run", asked).seeds) == [1, 2]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("drop_last", True),
        ("drop_last", False),
        ("drop_last", np.True_),
        ("clip_norm", None),
        ("clip_norm", 2.0),
        ("lr", 1e-7),
        ("weight_decay", np.float64(0.3)),
        ("epochs", np.int64(7)),
        ("head_init", "zeros"),
    ],
)
def test_set_takes_values_of_python(field: str, value: Any) -> None:
    asked = parse_arguments("run", {"methods": "lora", "backbone": "toy_vit", "set": {field: value}})
    assert getattr(choose_recipe("uniform", asked.settings), field) == value


def test_a_value_may_begin_with_a_hyphen() -> None:
    asked = parse_arguments("run", {"methods": "lora", "backbone": "toy_vit", "results": "-mine", "seeds": 3})
    assert (asked.results, asked.seeds) == (Path("-mine"), [3])


@pytest.mark.parametrize("value", [np.True_, np.array(True), True])
def test_options_that_are_on_or_off_take_booleans_of_numpy(value: Any) -> None:
    asked = {"methods": "lora", "backbone": "toy_vit"}
    assert parse_arguments("run", asked | {"oracle": value}).oracle
    assert not parse_arguments("run", asked | {"oracle": np.False_}).oracle


@pytest.mark.slow
@pytest.mark.parametrize("how", ["script", "standard input"])
def test_scripts_without_a_main_guard_run_workers(how: str, make_task: Callable[..., Path], tmp_path: Path) -> None:
    """Standard input stands for a notebook, whose main module has no file either."""
    code = f"""
import vtab_peft
open({str(tmp_path / "started")!r}, "a").write("x")
frame = vtab_peft.run(methods=["linear"], tasks={str(make_task())!r}, backbone="toy_vit", weights="random",
                      recipe="smoke", seeds=[0, 1], threads=1, workers=2, results={str(tmp_path / "results")!r})
print(len(frame))
"""
    (tmp_path / "script.py").write_text(code)
    words, given = ([str(tmp_path / "script.py")], None) if how == "script" else ([], code)
    done = subprocess.run([sys.executable, *words], input=given, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2"], done.stderr
    assert (tmp_path / "started").read_text() == "x"
