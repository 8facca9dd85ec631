"""What docs/tuning.md says of tuned runs is what the repository's records say."""

import json
import re

import vtab_peft
from leaderboards import leaderboards
from own_results import RESULTS, ROOT, by_task, ends, stored_runs, toy_runs
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


def toy_tables() -> tuple[str, str]:
    """Return accuracies of all methods that were tuned on the whole suite, best first, and the rates they chose."""
    runs = stored_runs()
    default, tuned = (by_task(toy_runs(runs, recipe)).mean(axis=1) for recipe in ("toy", "toy_tuned5"))
    parameters = toy_runs(runs, "toy_tuned5").groupby("spec")["trainable_params"].max()
    means = tuned.groupby("spec").mean().sort_values(ascending=False)
    rates = chosen_rates("toy_vit/toy/*/*/toy_tuned5-*.json")
    accuracies, chosen = [], []
    for spec, mean in means.items():
        gain, behind = (100 * (tuned[spec] - other).dropna() for other in (default[spec], tuned["lora"]))
        assert len(gain) == len(behind) == 3
        before = default[spec][gain.index].mean()
        versus = ["", ""] if spec == "lora" else [f"{behind.mean():+.1f}", ends(behind)]
        row = [f"`{spec}`", f"{parameters[spec]:,.0f}", percent(before), percent(mean)]
        accuracies.append([*row, f"{gain.mean():+.1f} ({ends(gain)})", *versus])
        chosen.append([f"`{spec}`", *(rates[spec, task] for task in suite_tasks("toy"))])
    header = ["method", "parameters", "default", "tuned", "gain", "minus LoRA", "95 % over seeds"]
    return (
        text_table(header, accuracies, "lrrrrrr", "pipe"),
        text_table(["method", *suite_tasks("toy")], chosen, "l" + "r" * len(suite_tasks("toy")), "pipe"),
    )


def test_gains_of_tuning_in_the_docs_are_those_of_the_records() -> None:
    page = " ".join((ROOT / "docs" / "tuning.md").read_text().split())
    found = sensitivities(Store(RESULTS).load_runs()[0], [])
    gains = [gain for methods in found.values() for method in methods for gain in method.gains if gain.tasks > 4]
    assert len(gains) > 4
    for gain in gains:
        assert gain.interval
        mean, low, high = (
            re.escape(f"{100 * x:+.1f}") if x < 0 else rf"\+?{100 * x:.1f}"
            for x in (gain.tuned - gain.default, gain.interval.low, gain.interval.high)
        )
        assert re.search(rf"{mean}( points)? \({low} to {high}\)", page), (mean, low, high)


def test_the_tuned_board_in_the_docs_is_what_the_records_say() -> None:
    page = (ROOT / "docs" / "tuning.md").read_text()
    tuned = [entry for entry in leaderboards(Store(RESULTS)) if entry.id.recipe == "smoke_tuned5"]
    assert [to_terminal(board) in page for board in tuned] == [True], (
        f"put this into docs/tuning.md:\n{to_terminal(tuned[0])}"
    )
