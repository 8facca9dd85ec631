"""What the means, ranks and names of a leaderboard are: checked by numbers worked out by hand."""

import json
import random
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from leaderboards import VTAB, only, put_vtab
from vtab_peft.benchmark.reporting.leaderboard_id import by_leaderboard
from vtab_peft.benchmark.reporting.leaderboards import Leaderboard, distinct, leaderboard
from vtab_peft.benchmark.reporting.markup import to_latex, to_markdown
from vtab_peft.benchmark.reporting.tables import to_terminal


def row(board: Leaderboard, label: str) -> dict:
    (found,) = (row for row in board.rows if row["label"] == label)
    return found


# Means


def test_means_over_seeds_and_tasks(store, put):
    for seed, (flowers, cars) in enumerate([(0.50, 0.10), (0.60, 0.30), (0.70, 0.20)]):
        put("flowers", "lora", seed, flowers)
        put("cars", "lora", seed, cars, group="structured")
    only_row = only(store).rows[0]
    assert only_row["accuracy_flowers"] == pytest.approx(0.6)
    assert only_row["accuracy_cars"] == pytest.approx(0.2)
    assert only_row["mean_tasks"] == pytest.approx(0.4)
    assert only_row["group_natural"] == pytest.approx(0.6)
    assert only_row["group_structured"] == pytest.approx(0.2)
    # Means over tasks per seed: 0.30, 0.45, 0.45; their mean 0.40, squares (0.01 + 0.0025 + 0.0025) / 2.
    assert only_row["std_over_seeds"] == pytest.approx(sqrt(0.0075))
    assert only_row["seeds"] == 3


def test_tasks_with_different_seeds_have_a_mean_but_no_std(store, put):
    for seed in range(3):
        put("flowers", "lora", seed, 0.5 + seed / 100)
        put("cars", "lora", seed, 0.5 + seed / 100)
    for seed in range(3, 10):
        put("cars", "lora", seed, 0.2)
    only_row = only(store).rows[0]
    assert only_row["mean_tasks"] == pytest.approx((0.51 + (3 * 0.51 + 7 * 0.2) / 10) / 2)
    assert [only_row[name] for name in ("std_over_seeds", "mean_low", "mean_high")] == [None] * 3
    assert only_row["seeds"] == 3


def test_one_seed_has_no_std(store, put):
    put("flowers", "lora", 1, 0.5)
    put("cars", "lora", 1, 0.6)
    assert only(store).rows[0]["std_over_seeds"] is None


def test_costs_are_summed_over_tasks_and_parameters_averaged(store, put):
    for seed, train, evaluation, peak in ((0, 10.0, 1.0, 5_000_000), (1, 20.0, 3.0, 7_000_000)):
        costs = {"train_seconds": train, "eval_seconds": evaluation, "peak_bytes": peak}
        put("flowers", "lora", seed, 0.5, params=100, head_params=10, **costs)
    put("cars", "lora", 0, 0.5, params=300, head_params=50, train_seconds=100.0, eval_seconds=1.0, peak_bytes=1_000_000)
    only_row = only(store).rows[0]
    assert only_row["seconds"] == pytest.approx((11 + 23) / 2 + 101)
    assert only_row["trainable_params"] == 200
    assert only_row["trainable_params_with_head"] == 230
    assert only_row["peak_memory_mb"] == 7.0


def test_both_means_of_a_complete_vtab_row(store, put):
    put_vtab(put)
    only_row = only(store).rows[0]
    assert only_row["mean_19"] == pytest.approx(0.09)  # 0 .. 18
    assert only_row["mean_tasks"] == only_row["mean_19"]
    assert only_row["group_natural"] == pytest.approx(0.03)  # 0 .. 6
    assert only_row["group_specialized"] == pytest.approx(0.085)  # 7 .. 10
    assert only_row["group_structured"] == pytest.approx(0.145)  # 11 .. 18
    assert only_row["mean_groups"] == pytest.approx((0.03 + 0.085 + 0.145) / 3)


def test_vtab_columns_stand_in_the_order_of_papers(store, put):
    put_vtab(put)
    assert [task.name for task in only(store).tasks] == list(VTAB)


def test_the_means_of_nineteen_need_all_nineteen(store, put):
    put_vtab(put, skip=["kitti"])
    only_row = only(store).rows[0]
    assert only_row["mean_tasks"] == pytest.approx((171 - 14) / 1800)  # of the board's own 18
    assert only_row["mean_19"] is None
    assert only_row["mean_groups"] is None


def test_row_with_a_task_twice_has_no_mean_of_19(store, put):
    put_vtab(put, skip=["kitti"])
    put("cifar", "lora", 0, 0.5, suite="vtab1k", provenance="lossless", data="ee" * 32)
    assert only(store).rows[0]["mean_19"] is None


def test_own_suite_with_the_19_names_has_no_mean_of_19(store, put):
    put_vtab(put, suite="own")
    board = only(store)
    assert "mean_19" not in board.columns
    assert "mean_19" not in board.rows[0]
    assert "mean_groups" not in board.rows[0]


def test_the_mean_of_five_is_that_of_a_complete_fgvc_row(store, put):
    names = ["cub", "nabirds", "oxfordflowers", "stanforddogs", "stanfordcars"]
    for place, name in enumerate(names):
        put(name, "lora", 0, 0.1 * place, suite="fgvc", group="fgvc", provenance="lossless")
        if place:
            put(name, "ssf", 0, 0.9, suite="fgvc", group="fgvc", provenance="lossless", title="SSF")
    board = only(store)
    assert row(board, "LoRA")["mean_5"] == pytest.approx(0.2)
    assert row(board, "SSF")["mean_5"] is None
    assert board.groups == ()


# Ranks and rows


def test_incomplete_row_is_unranked_last_and_has_blanks(store, put):
    for method, title, accuracy in [("weak", "Weak", 0.1), ("half", "Half", 0.9)]:
        put("flowers", method, 0, accuracy, title=title)
    put("cars", "weak", 0, 0.1, title="Weak")
    weak, half = only(store).rows
    assert (weak["label"], weak["rank"]) == ("Weak", 1)
    assert (half["label"], half["rank"]) == ("Half", None)
    for gap in ("accuracy_cars", "mean_tasks", "std_over_seeds", "seconds"):
        assert half[gap] is None
    assert half["accuracy_flowers"] == 0.9
    assert half["trainable_params"] == 36864


def test_incomplete_rows_are_sorted_by_common_mean(store, put):
    cells = {"whole": (0.5, 0.3, 0.1), "a": (0.2, 0.4, None), "b": (0.9, 0.5, None)}
    for method, accuracies in cells.items():
        for task, accuracy in zip(("x", "y", "z"), accuracies, strict=True):
            if accuracy is not None:
                put(task, method, 0, accuracy, title=method)
    board = only(store)
    assert [task.name for task in board.common] == ["x", "y"]
    assert [(row["spec"], row["rank"], row["mean_common"]) for row in board.rows] == [
        ("whole", 1, pytest.approx(0.4)),
        ("b", None, pytest.approx(0.7)),
        ("a", None, pytest.approx(0.3)),
    ]
    assert "mean_common" in board.columns


@pytest.mark.parametrize("gaps", [(), ("y", "z")], ids=["no gap", "one task in common"])
def test_no_common_mean_without_information(store, put, gaps):
    for task in ("x", "y", "z"):
        put(task, "whole", 0, 0.5)
        if task not in gaps:
            put(task, "other", 0, 0.6)
    board = only(store)
    assert board.common == ()
    assert "mean_common" not in board.columns


def test_ties_share_the_lower_rank_sorted_by_spec(store, put):
    # 0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in the last bit when they are added up naively.
    for method, cells in [("b", (0.1, 0.2, 0.3)), ("a", (0.3, 0.2, 0.1)), ("best", (0.5, 0.5, 0.5)), ("c", (0, 0, 0))]:
        for task, accuracy in zip(("x", "y", "z"), cells, strict=True):
            put(task, method, 0, accuracy, title=method.upper())
    assert [(row["spec"], row["rank"]) for row in only(store).rows] == [("best", 1), ("a", 2), ("b", 2), ("c", 4)]


@pytest.mark.parametrize(
    "difference",
    [
        {"lr": 5e-3},
        {"method_version": 2},
        {"plugin": "ab" * 32},
        {"spec": "lora(rank=4)", "args": {"rank": 4}},
        {"args": {"rank": 16}},  # another default of the same spec string
    ],
)
def test_each_method_variant_has_its_row_and_label(store, put, difference):
    put("flowers", "lora", 0, 0.5)
    put("flowers", "lora", 0, 0.7, **difference)
    board = only(store)
    assert [row["accuracy_flowers"] for row in board.rows] == [0.7, 0.5]
    assert len({row["label"] for row in board.rows}) == 2


def test_a_name_is_as_short_as_it_can_be(store, put):
    put("flowers", "lora", 0, 0.9)
    put("flowers", "ssf", 0, 0.8, title="SSF")
    put("flowers", "ssf", 0, 0.7, title="SSF", lr=5e-3)
    put("flowers", "vpt", 0, 0.6, title="VPT", spec="vpt(tokens=1)", args={"tokens": 1})
    put("flowers", "vpt", 0, 0.5, title="VPT", spec="vpt", args={"tokens": 10})
    for place, method in enumerate(("mine", "yours")):
        for spec in (method, f"{method}(rank=2)"):
            put("flowers", method, 0, 0.4 - place / 10, title="Same", spec=spec, args={"rank": len(spec)})
    assert [row["label"] for row in only(store).rows] == [
        "LoRA",
        "ssf lr 0.001",
        "ssf lr 0.005",
        "VPT(tokens=1)",
        "VPT",
        *("mine", "mine(rank=2)", "yours", "yours(rank=2)"),  # two methods of one title
    ]


# Columns


def test_two_versions_of_the_data_of_a_task_are_two_columns(store, put):
    put("flowers", "lora", 0, 0.5, data="aaaaaaaa" * 8)
    put("flowers", "lora", 0, 0.9, data="bbbbbbbb" * 8)
    put("cars", "lora", 0, 0.1)
    board = only(store)
    assert [task.label for task in board.tasks] == ["cars", "flowers@aaaaaa", "flowers@bbbbbb"]
    assert board.rows[0]["accuracy_flowers@aaaaaa"] == 0.5
    assert board.rows[0]["accuracy_flowers@bbbbbb"] == 0.9


def test_title_and_group_are_those_of_the_newest_run(store, fake):
    """They are facts of a record, which a user or a newer version may change, and not part of the run ID."""
    for seed in range(8):
        for task in ("cars", "flowers"):
            new = seed == 5
            record = fake.record(0.5, title="New" if new else "Old", group="new" if new else task)
            record["provenance"]["created"] = f"2026-11-2{seed + (4 if new else 0)}T10:00:00+00:00"
            store.save(fake.spec(task, seed=seed), record, np.zeros(4, dtype=np.int64))
    board = only(store)
    assert [task.group for task in board.tasks] == ["new", "new"]
    assert board.rows[0]["label"] == "New"


def test_task_versions_are_separate_columns(store, put):
    put("flowers", "lora", 0, 0.5, version=1, data="d0" * 8)
    put("flowers", "lora", 0, 0.9, version=2, data="d0" * 8)
    assert [task.label for task in only(store).tasks] == ["flowers@d0d0d0.v1", "flowers@d0d0d0.v2"]


def test_tasks_of_ones_own_stand_by_group_and_then_by_name(store, put):
    for name, group in [
        *(("z", "natural"), ("a", "structured"), ("m", "specialized")),
        *(("b", "natural"), ("k", "other"), ("l", "another")),
    ]:
        put(name, "lora", 0, 0.5, group=group)
    board = only(store)
    assert [task.name for task in board.tasks] == ["b", "z", "m", "a", "l", "k"]
    assert board.groups == ("natural", "specialized", "structured", "another", "other")


def test_a_leaderboard_does_not_depend_on_the_order_of_the_runs(store, put):
    rng = random.Random(0)
    for task in ("x", "y", "z"):
        for method in ("a", "b", "c"):
            for seed in range(3):
                put(task, method, seed, rng.random(), title=method, train_seconds=rng.random())
    runs, _ = store.load_runs()

    def shown(runs):
        return json.dumps([leaderboard(*pair).rows for pair in by_leaderboard(runs)])

    expected = shown(runs)
    for _ in range(5):
        rng.shuffle(runs)
        assert shown(runs) == expected


def test_labels_stay_short_unless_they_are_alike():
    assert distinct(["a", "a", "b"], ["a1", "a2", "b1"]) == ["a1", "a2", "b"]


@pytest.mark.parametrize(
    ("epochs", "shown"),
    [
        ({"lora": 3, "ssf": 3, "linear": 100}, "3 epochs (linear: 100)"),
        ({"lora": 3, "ssf": 3}, "3 epochs"),
        ({"linear": 100}, "100 epochs"),
        ({"linear": 100, "lora": 2}, "2 epochs (linear: 100)"),
    ],
)
def test_rows_with_other_epochs_are_named(store, fake, epochs, shown):
    for method, number in epochs.items():
        spec = fake.spec("flowers", method)
        spec = replace(spec, recipe=replace(spec.recipe, epochs=number))
        store.save(spec, fake.record(0.5, title=method), np.zeros(1, dtype=int))
    board = only(store)
    assert board.epochs == shown
    for text in (to_terminal(board), to_markdown(board), to_latex(board)):
        assert shown in " ".join(text.split())
