"""What docs/tuning.md says of tuned runs is what the repository's records say."""

import json
import re

import vtab_peft
from leaderboards import leaderboards
from own_results import RESULTS, ROOT, aligned, by_task, differences, ends, stored_runs, toy_runs
from vtab_peft.benchmark.reporting import tables
from vtab_peft.benchmark.reporting.sensitivity import sensitivities
from vtab_peft.benchmark.reporting.stats import Interval
from vtab_peft.benchmark.reporting.tables import percent, to_terminal
from vtab_peft.benchmark.reporting.text_table import text_table
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import suite_tasks

VIT_TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


PHOTOGRAPHS = f"own--{VIT_TINY}--uniform_3ep_tuned4"


def test_tuned_differences_on_photographs_are_those_of_the_records() -> None:
    found = vtab_peft.compare("lora", "aoft_lora", RESULTS, leaderboard=PHOTOGRAPHS).tasks
    rates = chosen_rates(f"{VIT_TINY}/own/*/*/uniform_3ep_tuned4*.json")
    assert len(rates) == 2 * (len(found) - 1)
    page = (ROOT / "docs" / "tuning.md").read_text()
    for row in found.itertuples():
        own = [rates.get((method, row.task), "") for method in ("lora", "aoft_lora")]
        numbers = [percent(row.a), percent(row.b), tables.signed(100 * row.difference)]
        numbers.append(tables.ends(Interval(row.difference, row.low, row.high)))
        assert f"| {' | '.join([row.task, *own, *numbers])} |".replace("  ", " ") in page


def chosen_rates(pattern: str) -> dict[tuple[str, str], str]:
    """Return the chosen learning rate of each (method, task)."""
    rates = {}
    for path in (RESULTS / "chosen").glob(pattern):
        choice = json.loads(path.read_text())
        rates[choice["method"], choice["task"].partition("/")[2]] = short(choice["chosen"]["lr"])
    return rates


def short(rate: float) -> str:
    return f"{rate:.0e}".replace("e-0", "e-")


def test_tables_of_tuned_methods_on_toy_are_what_the_records_say() -> None:
    page = (ROOT / "docs" / "tuning.md").read_text()
    for table in toy_tables():
        assert table in page, f"put this into docs/tuning.md:\n{table}"


ON_FOUR = "lora(rank=1, sites='qv,fc1,fc2')"
PAIRS = [
    ("lora", "aoft_lora"),
    ("lora", "aoft_lora_dagger"),
    (ON_FOUR, "aoft_lora_dagger"),
    ("lora", ON_FOUR),
    ("aoft_lora_dagger", "aoft_lora"),
    ("lora", "adaptformer"),
    ("convpass", "lora"),
    ("adaptformer", "aoft_lora"),
    ("adaptformer", "aoft_adapter"),
    ("aoft_lora", "aoft_adapter"),
]


def toy_tables() -> tuple[str, str, str]:
    """Return accuracies of all methods that were tuned on the whole suite, differences, and the rates they chose."""
    runs = stored_runs()
    default, tuned = (by_task(toy_runs(runs, recipe)).mean(axis=1) for recipe in ("toy", "toy_tuned5"))
    parameters = toy_runs(runs, "toy_tuned5").groupby("spec")["trainable_params"].max()
    means = tuned.groupby("spec").mean().sort_values(ascending=False)
    rates = chosen_rates("toy_vit/toy/*/*/toy_tuned5-*.json")
    accuracies, chosen = [], []
    for spec, mean in means.items():
        gain = 100 * (tuned[spec] - default[spec]).dropna()
        assert len(gain) == 3
        row = [f"`{spec}`", f"{parameters[spec]:,.0f}", percent(default[spec][gain.index].mean()), percent(mean)]
        accuracies.append([*row, f"{gain.mean():+.1f}", ends(gain)])
        chosen.append([f"`{spec}`", *(rates[spec, task] for task in suite_tasks("toy"))])
    header = ["method", "parameters", "default", "tuned", "gain", "95 % over seeds"]
    pairs = differences(by_task(toy_runs(runs, "toy_tuned5")), PAIRS)
    return (
        text_table(header, accuracies, "lrrrrr", "pipe"),
        aligned(pairs, 2),
        text_table(["method", *suite_tasks("toy")], chosen, "l" + "r" * len(suite_tasks("toy")), "pipe"),
    )


def test_gains_of_tuning_on_photographs_are_those_of_the_records() -> None:
    page = " ".join((ROOT / "docs" / "tuning.md").read_text().split())
    found = sensitivities(Store(RESULTS).load_runs()[0], [])
    gains = [gain for id, methods in found.items() for own in methods for gain in own.gains if id.suite == "own"]
    assert len(gains) == 2
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
