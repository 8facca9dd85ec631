"""Leaderboards of tuned recipes, and the best test epoch."""

import numpy as np
import pytest
from leaderboards import only
from vtab_peft.benchmark.reporting.report import write


def put_tuned(put, task, accuracy, *, lr, args, spec, asked="lora", seed=0):
    chosen = {"lr": lr, "args": args, "spec": spec, "asked": asked}
    put(task, "lora", seed, accuracy, tuned=True, configurations=15, **chosen)


def test_tuned_method_is_one_row(store, put):
    put_tuned(put, "flowers", 0.8, lr=1e-3, args={"rank": 8}, spec="lora")
    put_tuned(put, "cars", 0.6, lr=1e-2, args={"rank": 4}, spec="lora(rank=4)")
    put_tuned(put, "flowers", 0.7, lr=1e-2, args={"rank": 4}, spec="lora(rank=4)", asked="lora(rank=4)")
    put_tuned(put, "cars", 0.5, lr=1e-2, args={"rank": 4}, spec="lora(rank=4)", asked="lora(rank=4)")
    board = only(store)
    assert [(row["spec"], row["mean_tasks"]) for row in board.rows] == [("lora", 0.7), ("lora(rank=4)", 0.6)]
    assert [(row["lr"], row["args"]) for row in board.rows] == [(None, None), (0.01, '{"rank":4}')]
    assert [row["configurations"] for row in board.rows] == [15, 15]
    assert board.tuning == "tuned: best of 15 per task on val"


def test_only_refits_of_the_last_choice_count(store, fake, tmp_path):
    """A trial that failed at first is repeated, and wins."""

    def put_refit(seed, accuracy, lr, trial, val_accuracy, task="flowers"):
        spec = fake.spec(task, seed=seed, tuned=True, lr=lr, asked="lora")
        record = fake.record(accuracy)
        record["facts"]["tuning"] = {"val_key": trial, "val_accuracy": val_accuracy, "configurations": 2}
        store.save(spec, record, np.zeros(10, dtype=np.int64))
        return spec.run_id()

    old = [put_refit(seed, 0.9, 1e-3, "a" * 16, 0.5) for seed in (0, 1, 2)]
    for seed in (0, 1):
        put_refit(seed, 0.6, 1e-2, "b" * 16, 0.7)
    put_refit(0, 0.8, 1e-3, "c" * 16, 0.4, task="cars")
    board = only(store)
    assert [(row["seeds"], row["mean_tasks"], row["lr"]) for row in board.rows] == [(1, 0.7, None)]
    (problem,) = write(store, tmp_path / "out").problems
    assert all(run_id in problem for run_id in old)


def test_recipe_with_task_table_is_one_row(store, put):
    put("flowers", "lora", 0, 0.8, tuned=True, lr=1e-3)
    put("cars", "lora", 0, 0.6, tuned=True, lr=1e-2)
    board = only(store)
    assert [row["mean_tasks"] for row in board.rows] == [0.7]
    assert board.tuning == "settings per task as published"


def test_without_tuning_two_settings_are_two_rows(store, put):
    put("flowers", "lora", 0, 0.8, lr=1e-3)
    put("flowers", "lora", 0, 0.6, lr=1e-2)
    assert len(only(store).rows) == 2
    assert only(store).tuning == "untuned"


def test_the_oracle_stands_beside_the_mean_and_does_not_rank(store, put):
    for task in ("flowers", "cars"):
        put(task, "lora", 0, 0.8, oracle_accuracy=0.81)
        put(task, "ssf", 0, 0.7, oracle_accuracy=0.95)
        put(task, "vpt", 0, 0.6)
    board = only(store)
    assert [(row["spec"], row["rank"]) for row in board.rows] == [("lora", 1), ("ssf", 2), ("vpt", 3)]
    assert [row["oracle_mean_tasks"] for row in board.rows] == [pytest.approx(0.81), pytest.approx(0.95), None]


def test_the_oracle_is_empty_unless_every_run_of_a_row_has_it(store, put):
    put("flowers", "lora", 0, 0.8, oracle_accuracy=0.9)
    put("flowers", "lora", 1, 0.8)
    assert not only(store).has_oracle
