"""What docs/tuning.md says of tuned runs is what the repository's records say."""

import json
import re
from pathlib import Path

import pytest
import vtab_peft
from leaderboards import leaderboards
from vtab_peft.benchmark.reporting import tables
from vtab_peft.benchmark.reporting.sensitivity import sensitivities
from vtab_peft.benchmark.reporting.stats import Interval
from vtab_peft.benchmark.reporting.tables import percent, to_terminal
from vtab_peft.benchmark.storage.store import Store

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
VIT_TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.mark.parametrize(
    ("board", "recipe"),
    [
        ("toy--toy_vit--toy_tuned5", "toy_vit/toy/*/*/toy_tuned5-*.json"),
        (f"own--{VIT_TINY}--uniform_3ep_tuned4", f"{VIT_TINY}/own/*/*/uniform_3ep_tuned4*.json"),
    ],
    ids=["toy", "photographs"],
)
def test_tuned_differences_in_the_docs_are_those_of_the_records(board: str, recipe: str) -> None:
    found = vtab_peft.compare("lora", "aoft_lora", RESULTS, leaderboard=board).tasks
    rates = {}
    for path in (RESULTS / "chosen").glob(recipe):
        choice = json.loads(path.read_text())
        rates[choice["task"].partition("/")[2], choice["method"]] = f"{choice['chosen']['lr']:.0e}".replace("e-0", "e-")
    assert len(rates) == 2 * (len(found) - 1)
    page = (ROOT / "docs" / "tuning.md").read_text()
    for row in found.itertuples():
        own = [rates.get((row.task, method), "") for method in ("lora", "aoft_lora")]
        numbers = [percent(row.a), percent(row.b), tables.signed(100 * row.difference)]
        numbers.append(tables.ends(Interval(row.difference, row.low, row.high)))
        assert f"| {' | '.join([row.task, *own, *numbers])} |".replace("  ", " ") in page


def test_gains_of_tuning_in_the_docs_are_those_of_the_records() -> None:
    page = " ".join((ROOT / "docs" / "tuning.md").read_text().split())
    found = sensitivities(Store(RESULTS).load_runs()[0], [])
    gains = [gain for methods in found.values() for method in methods for gain in method.gains if gain.tasks > 4]
    assert len(gains) == 4
    for gain in gains:
        assert gain.interval
        mean, low, high = (f"{100 * x:.1f}" for x in (gain.tuned - gain.default, gain.interval.low, gain.interval.high))
        assert re.search(rf"{mean}( points)? \({low} to {high}\)", page), (mean, low, high)


def test_the_tuned_board_in_the_docs_is_what_the_records_say() -> None:
    page = (ROOT / "docs" / "tuning.md").read_text()
    tuned = [entry for entry in leaderboards(Store(RESULTS)) if entry.id.recipe == "smoke_tuned5"]
    assert [to_terminal(board) in page for board in tuned] == [True], (
        f"put this into docs/tuning.md:\n{to_terminal(tuned[0])}"
    )
