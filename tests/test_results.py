"""The repository's own results: every record is sound, and what people read is what the records say."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from own_results import RESULTS, ROOT, aligned, by_task, differences, ends, stored_runs, toy_runs
from tabulate import tabulate
from toy_vit_transfer import transfer_table
from vtab_peft.benchmark.reporting.compare import compare
from vtab_peft.benchmark.reporting.families import FAMILIES
from vtab_peft.benchmark.reporting.leaderboard_id import by_leaderboard
from vtab_peft.benchmark.reporting.leaderboards import leaderboard
from vtab_peft.benchmark.reporting.report import write
from vtab_peft.benchmark.reporting.tables import percent
from vtab_peft.benchmark.reporting.text_table import text_table
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.benchmark.toy_vit import WEIGHTS
from vtab_peft.datasets.tasks import suite_tasks
from vtab_peft.methods import METHODS


def test_every_record_is_sound() -> None:
    runs, problems = Store(RESULTS).load_runs()
    assert not problems
    assert len(runs) > 0


@pytest.mark.slow
def test_derived_texts_are_up_to_date(tmp_path: Path) -> None:
    """Run `vtab-peft report` when this fails.  Figures are left out: they depend on matplotlib's version."""
    rebuilt = {path.relative_to(tmp_path): path for path in write(Store(RESULTS), tmp_path).paths}
    texts = {name for name in rebuilt if name.suffix in (".md", ".csv", ".tex")}
    assert texts
    for name in texts:
        assert rebuilt[name].read_text() == (RESULTS / name).read_text(), name


@pytest.mark.parametrize("readme", [WEIGHTS.parent / "README.md"], ids=["toy_vit/README.md"])
def test_transfer_table_is_what_the_records_say(readme: Path) -> None:
    assert transfer_table(Store(RESULTS).load_runs()[0]) in readme.read_text()


@pytest.mark.parametrize(
    ("suite", "recipe", "tasks"),
    [("toy", "toy", list(suite_tasks("toy"))), ("own", "uniform_3ep", ["dtd_10cls", "dsprites_loc", "dsprites_ori"])],
)
def test_table_of_starts_is_what_the_records_say(suite: str, recipe: str, tasks: list[str]) -> None:
    page, runs = (ROOT / "docs" / "aoft.md").read_text(), stored_runs()
    on_val = (runs["split"] == "val") & (runs["suite"] == suite) & (runs["recipe"] == recipe) & (runs["lr"] == 1e-3)
    table = starts_table(runs[on_val & runs["spec"].str.fullmatch(r"aoft_lora(_paper)?(\(.*\))?")], tasks)
    assert table in page, f"put this into docs/aoft.md:\n{table}"


def starts_table(runs: pd.DataFrame, tasks: list[str]) -> str:
    """Accuracy in percent of every variant of `aoft_lora`, best mean first.

    Where there are several seeds: with the deviation over them, and the mean difference from the default over the seeds
    of both, with its interval.
    """
    accuracies = runs.pivot(index=["spec", "seed"], columns="task", values="accuracy")[tasks] * 100
    by_seed = accuracies.mean(axis=1).unstack("seed")
    several, rows = by_seed.shape[1] > 1, []
    for spec, mean in by_seed.mean(axis=1).sort_values(ascending=False, kind="stable").items():
        name = f"`{spec}`, the default" if spec == "aoft_lora" else f"`{spec}`"
        row = [name, *(f"{accuracy:.1f}" for accuracy in accuracies.loc[spec].mean()), f"{mean:.1f}"]
        if several:
            row[-1] += f" ± {by_seed.loc[spec].std():.1f}"
            row += [by_seed.loc[spec].count(), ahead(by_seed.loc[spec] - by_seed.loc["aoft_lora"])]
        rows.append(row)
    header = ["spec", *tasks, "mean", *(["seeds", "against the default"] if several else [])]
    return text_table(header, rows, "l" + "r" * (len(header) - 1), "pipe")


def ahead(differences: pd.Series) -> str:
    """Their mean and its interval; nothing for the default itself."""
    known = differences.dropna()
    return f"{known.mean():+z.1f} ({ends(known)})" if known.any() else ""


def test_table_of_the_oracle_is_what_the_records_say() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    table = oracle_table(stored_runs())
    assert table in page, f"put this into docs/results.md:\n{table}"


def test_every_choice_is_the_best_of_trials_that_are_there() -> None:
    runs = stored_runs().set_index("key")
    refits = runs[runs["configurations"].notna()]
    justified = {json.loads(Path(path).read_text())["facts"]["tuning"]["val_key"] for path in refits["path"]}
    won = set()
    for path in sorted((RESULTS / "chosen").rglob("*.json")):
        choice = json.loads(path.read_text())
        trials = runs.loc[[row["val_key"] for row in choice["tried"]]]
        assert set(trials["split"]) == {"val"}
        assert [row["val_accuracy"] for row in choice["tried"]] == trials["accuracy"].tolist()
        assert choice["chosen"] == choice["tried"][int(trials["accuracy"].to_numpy().argmax())]
        won.add(choice["chosen"]["val_key"])
    assert justified == won


def test_the_comparison_in_the_docs_is_what_the_records_say(tmp_path: Path) -> None:
    """Of the records alone: predictions, which are not in git, would add to it."""
    shutil.copytree(RESULTS / "runs" / "toy_vit", tmp_path / "runs" / "toy_vit", ignore=shutil.ignore_patterns("*.npz"))
    page = (ROOT / "docs" / "results.md").read_text()
    ((board, runs),) = [
        own for own in by_leaderboard(Store(tmp_path).load_runs()[0]) if own[0].slug.startswith("toy--toy_vit--toy--24")
    ]
    entry = leaderboard(board, runs)
    rows = {row["spec"]: row for row in entry.rows}
    text = compare(entry, runs, rows["lora"], rows["aoft_lora"])
    assert text in page, f"put this into docs/results.md:\n{text}"


def test_table_of_differences_is_what_the_records_say() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    table = aligned(differences(by_task(toy_runs(stored_runs())), PAIRS), 2)
    assert table in page, f"put this into docs/results.md:\n{table}"


ON_FOUR = "sites='qv,fc1,fc2'"
PAIRS = [
    ("lora", "aoft_lora"),
    ("lora", "aoft_lora_paper"),
    ("lora", "aoft_lora_dagger"),
    ("lora", "aoft_lora_released"),
    ("lora(rank=1)", "aoft_lora"),
    ("lora(rank=1, alpha=1.0)", "aoft_lora"),
    (f"lora(rank=1, {ON_FOUR})", "aoft_lora_dagger"),
    (f"lora(rank=1, alpha=1.0, {ON_FOUR})", "aoft_lora_dagger"),
    ("aoft_lora_dagger", f"aoft_lora({ON_FOUR})"),
    (f"lora(rank=1, {ON_FOUR})", "lora"),
    ("lora", "adaptformer"),
    ("adaptformer", "aoft_adapter"),
    ("adaptformer", "aoft_adapter_paper"),
    ("adaptformer", "aoft_adapter_released"),
    ("adaptformer", "aoft_lora"),
]


def test_table_of_aoft_on_photographs_is_what_the_records_say() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    table = photographs_table(stored_runs())
    assert table in page, f"put this into docs/results.md:\n{table}"


SHAPES = ["dsprites_loc", "dsprites_ori"]
"""The mini tasks whose images are drawn."""
PHOTOGRAPH_PAIRS = [
    ("lora", "aoft_lora"),
    ("lora(rank=1)", "aoft_lora"),
    ("lora", "aoft_lora_dagger"),
    (f"lora(rank=1, {ON_FOUR})", "aoft_lora_dagger"),
]


def photographs_table(runs: pd.DataFrame) -> str:
    """Compare AOFT-LoRA with LoRA on the mini tasks of ViT-Tiny, photographs and shapes separately."""
    own = (runs["suite"] == "own") & (runs["recipe"] == "uniform_3ep") & (runs["split"] == "test")
    alike = (runs["normalisation"] == HALF) & (runs["interpolation"] == "bicubic") & (runs["provenance"] == "own")
    accuracy = by_task(runs[own & alike])
    parts = {"photographs": accuracy.drop(columns=SHAPES), "shapes": accuracy[SHAPES]}
    tables = {name: differences(part, PHOTOGRAPH_PAIRS) for name, part in parts.items()}
    for name, table in tables.items():
        table.insert(2, "images", name)
    return aligned(pd.concat(tables.values()).sort_index(kind="stable"), 3)


def test_tables_against_lora_are_what_the_records_say() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    compared = against_lora(stored_runs())
    above, below = (compared[compared[end] * sign > 0] for end, sign in (("low", 1), ("high", -1)))
    counts = f"{len(compared)} methods with three seeds, {len(above)} are above LoRA with rank 8 in q and v"
    unclear = f"{len(compared) - len(above) - len(below)} cannot be told apart from it, and {len(below)} are below"
    assert f"Of {counts}, {unclear}" in " ".join(page.split())
    for table in (versus_lora(above), versus_lora(rivals_of_lora(compared))):
        assert table in page, f"put this into docs/results.md:\n{table}"


def against_lora(runs: pd.DataFrame) -> pd.DataFrame:
    """Compare every method at its defaults with LoRA where three seeds are common, the highest difference first."""
    runs = toy_runs(runs)
    own = runs[runs["spec"].isin(METHODS.keys() - {"lora"})]
    found = differences(by_task(runs), [(name, "lora") for name in sorted(set(own["spec"]))]).query("seeds >= 3")
    names, parameters = found["A"].str.strip("`"), own.groupby("spec")["trainable_params"].max()
    found[["low", "high"]] = found["95 % over seeds"].str.split(" to ", expand=True).astype(float)
    found = found.assign(parameters=names.map(parameters), targets=[METHODS[name].targets for name in names])
    return found.sort_values("A - B", ascending=False, kind="stable")


def rivals_of_lora(compared: pd.DataFrame) -> pd.DataFrame:
    """Return the methods that change q and v alone, but for AOFT."""
    return compared[(compared["targets"] == "q, v") & ~compared["A"].str.strip("`").isin(FAMILIES["AOFT"])]


def versus_lora(compared: pd.DataFrame) -> str:
    shown = compared.assign(parameters=compared["parameters"].map("{:,.0f}".format))
    shown = shown[["A", "parameters", "A - B", "95 % over seeds", "A better on"]]
    return aligned(shown.rename(columns={"A": "method", "A - B": "minus LoRA", "A better on": "better on"}), 1)


def oracle_table(runs: pd.DataFrame) -> str:
    """Accuracy in percent after the last and the best epoch of the same runs, on the toy suite with recipe `toy`."""
    watched = runs[runs["oracle_accuracy"].notna() & (runs["suite"] == "toy") & (runs["recipe"] == "toy")]
    rows = []
    for title, own in watched.groupby("title"):
        gain = 100 * (own["oracle_accuracy"] - own["accuracy"])
        tasks, seeds = own["task"].nunique(), own["seed"].nunique()
        assert len(own) == tasks * seeds == len(suite_tasks("toy")) * seeds, f"{title} lacks a task or a seed"
        last, best = 100 * own["accuracy"].mean(), 100 * own["oracle_accuracy"].mean()
        rows.append([title, seeds, last, best, best - last, gain.max()])
    header = ["method", "seeds", "last epoch", "best epoch", "gain", "largest gain of one run"]
    return tabulate(sorted(rows, key=lambda row: -row[4]), header, tablefmt="pipe", floatfmt=".1f")


def test_table_of_preprocessing_is_what_the_records_say() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    table = preprocessing_table(stored_runs())
    assert table in page, f"put this into docs/data.md:\n{table}"


HALF, IMAGENET, NONE = (
    "mean 0.5/0.5/0.5 std 0.5/0.5/0.5",
    "mean 0.485/0.456/0.406 std 0.229/0.224/0.225",
    "mean 0/0/0 std 1/1/1",
)
PREPROCESSINGS = {
    "as is": (HALF, "bicubic", ""),
    "ImageNet": (IMAGENET, "bicubic", ""),
    "none": (NONE, "bicubic", ""),
    "bilinear": (HALF, "bilinear", ""),
    "JPEG 75": (HALF, "bicubic", "_jpeg75"),
}
"""Heading of a column: normalisation, interpolation, and what the name of the task's folder ends with."""
SPECS = ("linear", "lora")
RESIZED = ("cifar10", "dsprites_loc", "dsprites_ori")
"""The mini tasks that are not stored at the model's input size."""


def preprocessing_table(runs: pd.DataFrame) -> str:
    """Test accuracy in percent, seed 0; a dash is a run that was not made, a dot one that would change nothing."""
    of_study = (runs["suite"] == "own") & (runs["recipe"] == "uniform_3ep") & (runs["split"] == "test")
    chosen = runs[of_study & (runs["seed"] == 0)]
    measured = chosen.set_index(["spec", "task", "normalisation", "interpolation"])["accuracy"]
    tasks = sorted({task for task in chosen["task"] if not task.endswith("_jpeg75")})

    def cell(spec: str, task: str, heading: str) -> str:
        normalisation, interpolation, ending = PREPROCESSINGS[heading]
        if heading in ("bilinear", "JPEG 75") and task not in RESIZED:
            return "·"
        found = measured.get((spec, task + ending, normalisation, interpolation))
        return "—" if found is None else percent(found)

    rows = [
        [task, f"`{spec}`", *(cell(spec, task, name) for name in PREPROCESSINGS)] for task in tasks for spec in SPECS
    ]
    return text_table(["task", "method", *PREPROCESSINGS], rows, "ll" + "r" * len(PREPROCESSINGS), "pipe")
