"""Costs beside accuracies: which records a leaderboard shows, its columns and figures, and files as before without."""

import csv
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from costs import SETUP, make_cost
from leaderboards import only, only_with_runs
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.reporting.costs import COLUMNS
from vtab_peft.benchmark.reporting.figures import cost as figures
from vtab_peft.benchmark.reporting.figures.style import paper_style
from vtab_peft.benchmark.reporting.leaderboards import leaderboard
from vtab_peft.benchmark.reporting.tables import to_csv
from vtab_peft.benchmark.spec import RunSpec
from vtab_peft.benchmark.storage.costs import save_cost


@pytest.fixture
def specs(put) -> dict[str, RunSpec]:
    found = {}
    for place, method in enumerate(["lora", "ssf", "linear"]):
        for seed in range(2):
            found[method] = put("flowers", method, seed, 0.5 + 0.1 * place, title=method.upper(), params=100)
    return found


def test_rows_show_the_setup_that_measured_most(store, specs):
    fast = replace(SETUP, device="a GPU")
    costs = [make_cost(specs["lora"], 1.0, fast), make_cost(specs["lora"], 8.0), make_cost(specs["ssf"], 6.0)]
    other = msgspec.structs.replace(make_cost(specs["linear"], 5.0), backbone="another")
    changed = msgspec.structs.replace(
        make_cost(specs["linear"], 5.0), method=replace(specs["linear"].method, version=2)
    )
    identity, runs = only(store).id, only_with_runs(store)[1]
    board = leaderboard(identity, runs, [*costs, other, changed])
    assert board.cost_setup == SETUP
    assert {row["label"]: row["latency_ms"] for row in board.rows} == {"LORA": 8.0, "SSF": 6.0, "LINEAR": None}
    lora = next(row for row in board.rows if row["label"] == "LORA")
    assert {name: lora[name] for name in COLUMNS} == {
        "latency_ms": 8.0,
        "deployed_latency_ms": 4.0,
        "images_per_second": 250.0,
        "deployed_images_per_second": 500.0,
        "gflops": 8e-9,
        "deployed_gflops": 4e-9,
        "step_ms": 500.0,
        "step_gflops": 3.0,
        "train_memory_mb": 700.0,
        "adapter_kb": 2.0,
    }


def test_report_adds_columns_and_figures_only_where_costs_are(store, specs, capsys):
    plain = list(csv.reader(to_csv(only(store)).splitlines()))
    assert not {*COLUMNS, "cost_setup"} & {*plain[0]}
    for method, milliseconds in [("lora", 8.0), ("ssf", 6.0)]:
        save_cost(store.root, make_cost(specs[method], milliseconds))
    words = ["--results", str(store.root)]
    assert main(["report", *words, "--x", "latency_ms,images_per_second"]) == 0
    assert "not drawn" not in capsys.readouterr().out
    (folder,) = (store.root / "boards").iterdir()
    rows = list(csv.reader((folder / "leaderboard.csv").read_text().splitlines()))
    assert [row[: len(plain[0])] for row in rows] == plain
    assert rows[0][len(plain[0]) :] == [*COLUMNS, "cost_setup"]
    drawn = {path.name for path in folder.glob("accuracy_vs_*.svg")}
    assert drawn >= {"accuracy_vs_latency_ms.svg", "accuracy_vs_images_per_second.svg"}
    assert "Latency at batch 1 (ms)" in (store.root / "index.html").read_text()
    main(["verify", *words])
    assert "out of date" not in capsys.readouterr().out
    assert main(["report", *words]) == 0
    assert not list(folder.glob("accuracy_vs_latency_ms.*")), "figures that nobody asks for are removed"


def test_a_figure_that_cannot_be_drawn_is_named(store, specs, capsys):
    save_cost(store.root, make_cost(specs["lora"], 8.0))
    assert main(["report", "--results", str(store.root), "--x", "gflops"]) == 0
    assert "accuracy_vs_gflops was not drawn" in capsys.readouterr().out


def test_damaged_costs_are_named_and_left_out(store, specs, capsys):
    path = save_cost(store.root, make_cost(specs["lora"], 8.0))
    path.write_text(path.read_text().replace('"flops": 8', '"flops": -8'))
    assert main(["report", "--results", str(store.root)]) == 1
    assert str(path) in capsys.readouterr().err
    assert only(store).cost_setup is None


def test_high_throughput_is_on_the_left(store, specs):
    costs = [make_cost(specs[name], ms) for name, ms in [("lora", 8.0), ("ssf", 6.0), ("linear", 2.0)]]
    found, runs = only_with_runs(store)
    board = leaderboard(found.id, runs, costs)
    with paper_style():
        figure = figures.against_column(board, "images_per_second")
        (axes,) = figure.axes
        assert np.subtract(*axes.get_xlim()) > 0
        stairs = axes.lines[0].get_xdata()
        assert len(stairs) == 2, "the fastest method is the best one, so it is the whole front"
        assert figures.against_column(only(store), "latency_ms") is None
