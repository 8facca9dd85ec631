"""Few-shot tables and their figure, from fake runs with known accuracies."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats
from vtab_peft.benchmark.reporting.drawing import REPORT
from vtab_peft.benchmark.reporting.few_shots import differences, few_shot_tables, to_csv, to_markdown
from vtab_peft.benchmark.reporting.figures import few_shots as figure
from vtab_peft.benchmark.reporting.leaderboard_id import by_leaderboard, table_order
from vtab_peft.benchmark.reporting.leaderboards import leaderboard
from vtab_peft.benchmark.reporting.report import write
from vtab_peft.benchmark.reporting.stats import over_seeds
from vtab_peft.benchmark.storage.store import Store


def put_draw(put, shots: int, draw: int, accuracy: float, method: str = "lora", task: str = "flowers") -> None:
    put(task, method, 0, accuracy, suite=f"own@{shots}shot.seed{draw}", data=f"{shots}{draw}" * 8, title=method)


def tables(store: Store) -> list:
    return few_shot_tables([leaderboard(*entry) for entry in by_leaderboard(store.load_runs()[0])])


def test_point_is_the_mean_over_draws_with_students_interval(store: Store, put) -> None:
    for draw, accuracy in enumerate((0.4, 0.5, 0.8)):
        put_draw(put, 1, draw, accuracy)
        put_draw(put, 4, draw, accuracy + 0.1)
    (table,) = tables(store)
    assert (table.tasks, table.draws, table.id.suite) == (("flowers",), {1: 3, 4: 3}, "own")
    ((_, spec, points),) = table.rows
    assert spec == "lora"
    expected = over_seeds([0.4, 0.5, 0.8])
    assert points[1].mean == pytest.approx(expected.estimate)
    assert points[1].interval == expected
    assert points[4].by_task == (pytest.approx(points[1].mean + 0.1),)


def test_differences_are_paired_by_draw(store: Store, put) -> None:
    lora, bitfit = (0.4, 0.5, 0.8), (0.3, 0.42, 0.69)
    for draw in range(3):
        put_draw(put, 1, draw, lora[draw])
        put_draw(put, 1, draw, bitfit[draw], "bitfit")
    (table,) = tables(store)
    none, by_shots = differences(table)
    assert none == {}
    found = by_shots[1]
    expected = scipy_stats.ttest_rel(bitfit, lora).confidence_interval()
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    line = list(csv.DictReader(to_csv(table).splitlines()))[1]
    assert [line[name] for name in ("method", "difference", "difference_low")] == ["bitfit", "-9.67", "-13.46"]
    half = 100 * (expected.high - expected.low) / 2
    assert f"| bitfit | -9.7 ± {half:.1f} |" in to_markdown(table)


def test_leaderboards_of_draws_are_not_mixed(store: Store, put) -> None:
    put("flowers", "lora", 0, 0.9)
    for shots, draw in ((1, 0), (1, 1), (2, 0)):
        put_draw(put, shots, draw, 0.5)
    entries = [leaderboard(*entry) for entry in by_leaderboard(store.load_runs()[0])]
    assert len({entry.id.slug for entry in entries}) == 4
    assert all(len(entry.tasks) == len(entry.rows) == 1 for entry in entries)


def test_missing_draws_and_tasks_leave_a_gap(store: Store, put) -> None:
    """`bitfit` lacks a draw of 1 shot; `cars` was not run with 2 shots, so it counts nowhere."""
    for shots, draw in ((1, 0), (1, 1), (2, 0), (2, 1)):
        put_draw(put, shots, draw, 0.5)
        if (shots, draw) != (1, 1):
            put_draw(put, shots, draw, 0.6, "bitfit")
    put_draw(put, 1, 0, 0.9, task="cars")
    put_draw(put, 1, 1, 0.9, task="cars")
    (table,) = tables(store)
    assert table.tasks == ("flowers",)
    (best, _, own), (_, _, complete) = table.rows
    assert (best, list(own), list(complete)) == ("bitfit", [2], [1, 2])
    assert own[2].interval is None
    assert "| bitfit | — | 60.0 |" in to_markdown(table)


def test_a_task_with_two_data_hashes_is_left_out_and_named(store: Store, put, tmp_path: Path) -> None:
    for task in ("cars", "flowers"):
        put_draw(put, 1, 0, 0.5, task=task)
    assert not write(store, tmp_path).problems
    for data in ("00" * 8, "ff" * 8):
        put("flowers", "lora", 0, 0.9, suite="own@1shot.seed0", data=data, title="lora")
    (table,) = tables(store)
    assert table.tasks == ("cars",)
    (problem,) = write(store, tmp_path).problems
    assert "flowers" in problem


def test_tasks_without_a_common_one_have_no_table(store: Store, put) -> None:
    put_draw(put, 1, 0, 0.5)
    put_draw(put, 2, 0, 0.5, task="cars")
    assert tables(store) == []


def test_heading_names_the_epochs_of_each_method(store: Store, put, fake) -> None:
    put_draw(put, 1, 0, 0.5)
    probe = fake.spec("flowers", "linear", suite="own@2shot.seed0", data="20" * 8)
    longer = replace(probe, recipe=replace(probe.recipe, epochs=30))
    store.save(longer, fake.record(0.5, title="linear"), np.zeros(10, dtype=np.int64))
    (table,) = tables(store)
    assert table.epochs == "3 epochs (linear: 30)"
    assert table.epochs in table.heading


def test_one_number_of_shots_has_no_curve(store: Store, put) -> None:
    put_draw(put, 1, 0, 0.5)
    assert figure.draw(tables(store)[0], REPORT) == {}


def test_report_writes_the_same_bytes_again(store: Store, put, tmp_path: Path) -> None:
    for draw in range(3):
        for shots in (1, 16):
            put_draw(put, shots, draw, 0.4 + 0.01 * shots + 0.02 * draw)
    files = []
    for name in ("a", "b"):
        report = write(store, tmp_path / name)
        own = [path for path in report.paths if "few_shots" in path.parts]
        assert {path.name for path in own} == {"few_shots.csv", "table.md", "few_shots.svg"}
        files.append([path.read_bytes() for path in own])
        assert "# Few shots" in (tmp_path / name / "README.md").read_text()
        assert not list((tmp_path / name / "boards").rglob("*.svg"))
    assert files[0] == files[1]
    assert "1 shot" in report.text
    assert "16 shots" in report.text


def test_draws_have_the_order_of_their_suite() -> None:
    assert table_order("toy@4shot.seed0") == table_order("toy")
    assert table_order("own@4shot.seed0") == []
