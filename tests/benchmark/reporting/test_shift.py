"""Tables and figure of shifted tests, from fake runs with known outcomes."""

import csv
from pathlib import Path

import pytest
from vtab_peft.benchmark.reporting.leaderboard_id import by_leaderboard
from vtab_peft.benchmark.reporting.leaderboards import leaderboard
from vtab_peft.benchmark.reporting.report import write
from vtab_peft.benchmark.reporting.shift import ShiftTable, shift_table
from vtab_peft.benchmark.reporting.stats import over_seeds
from vtab_peft.benchmark.storage.schema import Run
from vtab_peft.benchmark.storage.shifts import SCHEMA, Outcome, Shift, WiseFt, load_shifts, path_of, save_shift
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.corruptions import CORRUPTIONS

SEEDS = (0, 1, 2)


def outcomes(clean: int, corrupted: int, sketch: int | None = None) -> list[Outcome]:
    """All corruptions alike, of 100 images."""
    tests = [Outcome("clean", 0, "c", 100, clean)]
    tests += [Outcome(name, severity, "d", 100, corrupted) for name in CORRUPTIONS for severity in range(1, 6)]
    return tests if sketch is None else [*tests, Outcome("sketch", 0, "e", 100, sketch)]


def add(store: Store, run: Run, tests: list[Outcome], wise: WiseFt | None = None) -> None:
    save_shift(store.root, Shift(SCHEMA, run.run_id, run.predictions_sha256, tests, {"device": "cpu"}, wise))


@pytest.fixture
def runs(store: Store, put) -> list[Run]:
    for method in ("lora", "bitfit"):
        for task in ("cars", "flowers"):
            for seed in SEEDS:
                put(task, method, seed, 0.8, title=method)
    return store.load_runs()[0]


def table_of(store: Store) -> ShiftTable | None:
    ((identity, own),) = by_leaderboard(store.load_runs()[0])
    return shift_table(leaderboard(identity, own), own, load_shifts(store.root)[0])


def test_values_are_means_over_tasks_with_intervals_over_seeds(store: Store, runs: list[Run]) -> None:
    assert table_of(store) is None
    for run in runs:
        plus = 4 * run.spec.seed + (2 if run.spec.task.name == "cars" else 0)
        wise = WiseFt(0.5 + 0.1 * run.spec.seed, run.run_id, [(0.5, 0.5)], outcomes(81, 60))
        if run.spec.method.name == "lora":
            add(store, run, outcomes(80, 40 + plus, 30 if run.spec.task.name == "cars" else None), wise)
    table = table_of(store)
    assert table
    assert table.tasks == ("cars", "flowers")
    assert table.lists == ("cars: sketch",)
    trained, mixed = table.rows  # bitfit has no records
    assert (trained.spec, trained.model, trained.seeds, trained.alpha) == ("lora", "trained", 3, None)
    interval, expected = trained.values["corrupted"].interval, over_seeds([0.41, 0.45, 0.49])
    assert interval
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert trained.values["jpeg"].mean == pytest.approx(0.45)
    assert trained.values["gap"].mean == pytest.approx(0.35)
    assert trained.values["cars: sketch"].mean == pytest.approx(0.3)
    assert (mixed.model, mixed.alpha) == ("WiSE-FT", pytest.approx(0.6))
    assert mixed.values["clean"].mean == pytest.approx(0.81)


def test_methods_that_lack_a_task_and_outdated_records_have_no_row(store: Store, runs: list[Run]) -> None:
    for run in runs:
        if run.spec.method.name == "lora" or run.spec.task.name == "cars":
            add(store, run, outcomes(80, 40))
    table = table_of(store)
    assert table
    assert [row.spec for row in table.rows] == ["lora"]
    for run in runs:
        path = path_of(store.root, run.run_id)
        if path.exists():
            path.write_text(path.read_text().replace(run.predictions_sha256, "00" * 32))
    assert table_of(store) is None


def test_methods_that_lack_a_corruption_have_no_row(store: Store, runs: list[Run]) -> None:
    for run in runs:
        add(store, run, outcomes(80, 40) if run.spec.method.name == "lora" else outcomes(80, 40)[:-5])
    table = table_of(store)
    assert table
    assert [row.spec for row in table.rows] == ["lora"]


def test_methods_are_compared_on_the_same_images(store: Store, runs: list[Run]) -> None:
    for run in runs:
        tests, newer = outcomes(80, 40, 30), run.spec.method.name == "bitfit"
        if newer:
            tests[-1] = Outcome("sketch", 0, "other images", 40, 23)
        made = {"device": "cpu", "created": "2026-02-01" if newer else "2026-01-01"}
        save_shift(store.root, Shift(SCHEMA, run.run_id, run.predictions_sha256, tests, made))
    table = table_of(store)
    assert table
    sketches = {row.spec: row.values.get("cars: sketch") for row in table.rows}
    assert sketches["lora"] is None
    assert sketches["bitfit"]
    assert sketches["bitfit"].mean == pytest.approx(23 / 40)
    assert len(table.outdated) == len(runs) / 2
    assert [row.values["clean"].mean for row in table.rows] == pytest.approx([0.8, 0.8])


def test_report_writes_table_and_figure_again_alike(store: Store, runs: list[Run], tmp_path: Path) -> None:
    for number, run in enumerate(runs):
        wise = WiseFt(0.7, run.run_id, [], outcomes(82, 55)) if run.spec.method.name == "lora" else None
        add(store, run, outcomes(80 + number % 3, 40 + number % 5), wise)
    first, again = (write(store, tmp_path / name) for name in "ab")
    made = {path.name: path.read_bytes() for path in first.paths if path.name.startswith("shift")}
    assert set(made) == {"shift.csv", "shift.md", "shift.svg"}
    assert made == {path.name: path.read_bytes() for path in again.paths if path.name.startswith("shift")}
    rows = list(csv.DictReader(made["shift.csv"].decode().splitlines()))
    assert {(row["spec"], row["model"]) for row in rows} == {
        ("lora", "trained"),
        ("lora", "WiSE-FT"),
        ("bitfit", "trained"),
    }
    assert {row["test"] for row in rows} == {"clean", "corrupted", "gap", *CORRUPTIONS}
    assert "Shifted tests" in first.text
    assert "shift.md" in (tmp_path / "a" / "README.md").read_text()
    for run in runs:
        path_of(store.root, run.run_id).unlink()
    write(store, tmp_path / "a")
    assert not list((tmp_path / "a").rglob("shift*"))
