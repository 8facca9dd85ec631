"""Run sweeps, and read results as tables."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..commands.run import execute
from ..reporting import compare as comparisons
from ..reporting import leaderboards
from ..reporting import published as papers
from ..reporting.differences import differences
from ..reporting.leaderboard_id import by_leaderboard
from ..reporting.stats import InsufficientData, Interval, PairOverTasks
from ..spec import Recipe
from ..storage.schema import Run, read_run, to_frame
from ..storage.store import Store
from .arguments import folder_of, parse_arguments, word
from .wording import python_wording

if TYPE_CHECKING:
    import pandas as pd

    from ...methods import Method


def run(
    *,
    methods: "str | Method | Sequence[str | Method]",
    backbone: str,
    tasks: str | Path | Sequence[str | Path] = "all",
    suite: str | None = None,
    data: str | Path | None = None,
    weights: str | None = None,
    recipe: str | Path | Recipe = "uniform",
    set: Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] = (0, 1, 2),
    results: str | Path = "results",
    workers: int = 1,
    **options: Any,
) -> "pd.DataFrame":
    """Train and evaluate every (method, task, seed) that is not stored yet, and return the finished runs.

    This is `vtab-peft run`: the same runs with the same run IDs in the same folder.  Arguments are named like its
    options.  A failed run is not in the table; its reason is printed, and stored in `results`/failed.

    Args:
        methods: Specs such as `"lora(rank=4)"`, or instances of `Method`.
        backbone: A name of timm, or `"toy_vit"`.
        tasks: Names or groups of the suite's tasks, `"all"`, or folders of images.
        suite: `"vtab1k"`, `"fgvc"` or `"toy"`; not needed for folders of images.
        data: Folder that contains the suite's task folders.
        weights: A file, `"hf:OWNER/NAME"` or `"random"`; None: from timm's hub.
        recipe: A name of `list recipes`, a .toml file, or a `Recipe` with a name of its own.
        set: Changes of the recipe, such as `{"lr": 3e-4, "epochs": 20}`.
        seeds: Each method runs once per task and seed.
        results: Folder in which runs are stored; made if it does not exist.
        workers: Number of processes that execute runs; they take the GPUs in turn.
        **options: Any other option of `vtab-peft run`, such as `split="val"`, `save_adapters=True` or `threads=4`.

    Returns:
        One row per run, with the columns of `load_results`.

    Raises:
        ValueError: An argument is wrong.
        ConfigurationError: A name, an argument or the weights were refused by the worker.
        DataError: The data cannot be used.
    """
    if set is not None and not isinstance(set, Mapping):
        raise ValueError(f"set must be a dictionary, such as {{'epochs': 20}}, not {set!r:.80}")
    named = {"methods": methods, "backbone": backbone, "tasks": tasks, "suite": suite, "data": data, "weights": weights}
    named |= {"set": set, "seeds": seeds, "results": results, "workers": workers, **options}
    parsed = parse_arguments("run", named if isinstance(recipe, Recipe) else {**named, "recipe": recipe})
    if isinstance(recipe, Recipe):
        parsed.recipe = recipe
    if parsed.limit_test:
        raise ValueError("limit_test stores no run, so there is no table; use `vtab-peft run --limit-test N`")
    with python_wording():
        done = execute(parsed)
    store = Store(parsed.results)
    stored = [store.latest(planned.spec)[0] for planned in done[0]] if done else []
    return to_frame(record for record in stored if record is not None)


def load_results(folder: str | Path = "results") -> "pd.DataFrame":
    """Return all stored runs, one row each, the latest repetition of each run; docs/python.md describes the columns.

    Damaged records are left out with a warning, and moved to `folder`/damaged.

    Raises:
        ValueError: The folder holds no results.
    """
    store = Store(folder_of(folder, "folder"))
    with python_wording():
        store.require_results_folder()
    runs, problems = store.load_runs()
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return to_frame(runs)


def leaderboard(runs: "str | Path | pd.DataFrame" = "results", name: str = "") -> "pd.DataFrame":
    """Return a leaderboard, best method first, with the columns of leaderboard.csv (docs/results.md).

    Accuracies are in [0, 1] here.  Missing values are NaN or None.

    Args:
        runs: A results folder, or rows of `load_results` or `run`.  Validation runs are on no leaderboard.
        name: Part of the leaderboard's name, if the runs are of several; ranks never cross leaderboards.

    Raises:
        ValueError: The runs belong to no leaderboard, or to several whose names contain `name`.
    """
    import pandas as pd

    entry, _ = _one_leaderboard(runs, name)
    return pd.DataFrame(
        [{column: row[column] for column in entry.columns} for row in entry.rows], columns=entry.columns
    )


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two rows of a leaderboard; `print`, or the last line of a notebook's cell, shows the text of the command."""

    tasks: "pd.DataFrame"
    """One row per task, and one for the mean over several tasks (`mean of n`); accuracies in [0, 1].

    a, b, difference: means over the common seeds; low, high: 95 % interval of the difference over seeds;
    low_images, high_images: over seeds and test images; mcnemar_p: dictionary from seed to McNemar's p.
    """
    over_tasks: PairOverTasks | None
    """Wins, ties and losses of a, and `p` of Wilcoxon's signed-rank test; None where tasks are too few or missing."""
    text: str
    """The printed comparison."""

    def __repr__(self) -> str:
        return self.text


def compare(
    a: "str | Method", b: "str | Method", runs: "str | Path | pd.DataFrame" = "results", leaderboard: str = ""
) -> Comparison:
    """Compare two rows of a leaderboard by paired tests: over seeds, over images and over tasks.

    Args:
        a: Method spec, an instance of `Method`, or label of a row.
        b: The other row; differences are a - b.
        runs: A results folder, or rows of `load_results` or `run`.
        leaderboard: Part of the leaderboard's name, if both rows are on several.

    Raises:
        ValueError: a or b is on no leaderboard, both are the same row, or several leaderboards have both.
    """
    import pandas as pd

    where = runs if isinstance(runs, str | Path) else "the given runs"
    with python_wording():
        found = comparisons.find_rows(_leaderboards(runs), word(a), word(b), leaderboard, where)
    entry, _, row_a, row_b = found
    try:
        over_tasks = comparisons.over_tasks(entry, row_a, row_b)
    except InsufficientData:
        over_tasks = None
    tasks = [
        {
            **{name: getattr(one, name) for name in ("task", "a", "b", "difference")},
            **_ends(one.over_seeds, "low", "high"),
            **_ends(one.over_images, "low_images", "high_images"),
            "mcnemar_p": dict(one.p_values),
        }
        for one in differences(*found)
    ]
    return Comparison(pd.DataFrame(tasks), over_tasks, comparisons.compare(*found))


def _ends(interval: Interval | None, low: str, high: str) -> dict[str, float | None]:
    return {low: interval and interval.low, high: interval and interval.high}


def published(method: "str | Method | None" = None) -> "pd.DataFrame":
    """Return numbers that papers report, one row per number, in percent, with their source.

    Args:
        method: Our name of the method, or the name that papers print; None: all methods.

    Raises:
        ValueError: No paper reports a method of this name.
    """
    import pandas as pd

    rows = papers.load() if method is None else papers.find(word(method), papers.load())
    return pd.DataFrame(
        [
            {
                "suite": row.source.suite,
                "architecture": row.source.architecture,
                "method": row.method,
                "printed": row.printed,
                "task": task,
                "accuracy": number.accuracy,
                "params_m": row.params_m if number.params_m is None else number.params_m,
                "flag": number.flag,
                "source": row.source.source,
                "reference": row.source.reference,
                "pretrained": row.source.pretrained,
                "normalisation": row.source.normalisation,
                "selection": row.source.selection,
                "seeds": row.source.seeds,
            }
            for row in rows
            for task, number in row.numbers.items()
        ]
    )


def to_bencheval(runs: "str | Path | pd.DataFrame" = "results", leaderboard: str = "") -> "pd.DataFrame":
    """Return the test runs of a leaderboard as TabArena's `bencheval` takes them: a row per method, task and seed.

    Columns: method (label of the row), task, seed, metric_error (1 - accuracy), time_train_s, time_infer_s (all test
    images).  bencheval needs every combination, so methods that lack a task, and then seeds that a method lacks, are
    left out with a warning.

    Args:
        runs: A results folder, or rows of `load_results` or `run`.
        leaderboard: Part of the leaderboard's name, if the runs are of several.

    Raises:
        ValueError: No method has all tasks, the methods have no common seed, a seed has two results, or the runs belong
            to no or to several leaderboards whose names contain `leaderboard`.
    """
    import pandas as pd

    entry, own = _one_leaderboard(runs, leaderboard)
    labels = {row["identity"]: row["label"] for row in entry.rows}
    tasks = {task.task_id: task.label for task in entry.tasks}
    rows = {}
    for run in own:
        at = labels[entry.id.row_identity(run)], tasks[run.task_id], run.spec.seed
        if at in rows:
            raise ValueError(f"two results for {', '.join(map(str, at))}; delete the outdated one")
        rows[at] = 1 - run.accuracy, run.train_seconds, run.eval_seconds
    lacking = [row["label"] for row in entry.rows if row["mean_tasks"] is None]
    complete = {at: row for at, row in rows.items() if at[0] not in lacking}
    counts = Counter(seed for _, _, seed in complete)
    rest = sorted(seed for seed, n in counts.items() if n < (len(labels) - len(lacking)) * len(tasks))
    if len(rest) == len(counts):
        raise ValueError("no seed has all tasks of all methods that have all tasks; filter the rows of `load_results`")
    if lacking:
        warnings.warn(f"left out, because they lack tasks: {', '.join(lacking)}", stacklevel=2)
    if rest:
        warnings.warn(f"left out, because methods lack them: seeds {', '.join(map(str, rest))}", stacklevel=2)
    columns = ["method", "task", "seed", "metric_error", "time_train_s", "time_infer_s"]
    found = [(*at, *row) for at, row in sorted(complete.items()) if at[2] not in rest]
    return pd.DataFrame(found, columns=columns)


def _one_leaderboard(runs: "str | Path | pd.DataFrame", name: str) -> tuple[leaderboards.Leaderboard, list[Run]]:
    """Return the only leaderboard whose name contains `name`, with its runs; raise `ValueError` for none or several."""
    found = _leaderboards(runs)
    if not found:
        raise ValueError("there are no test runs, so there is no leaderboard; validation runs are on none")
    entries = comparisons.named(found, name)
    if len(entries) > 1:
        advice = "filter them, or give part of one name"
        raise ValueError(f"{len(entries)} leaderboards hold these runs; {advice}:\n  {comparisons.slugs(entries)}")
    return entries[0]


def _leaderboards(runs: "str | Path | pd.DataFrame") -> list[tuple[leaderboards.Leaderboard, list[Run]]]:
    """Return the leaderboards of a results folder or of the records that a table names, with their runs."""
    import pandas as pd

    frame = load_results(runs) if isinstance(runs, str | Path) else runs
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"runs must be a results folder or a table of `load_results`, not {runs!r:.80}")
    if "path" not in frame:
        raise ValueError("the runs have no column 'path', which names their files; keep it, as `load_results` gives it")
    paths = dict.fromkeys(Path(path).resolve() for path in frame["path"])
    if gone := next((path for path in paths if not path.exists()), None):
        raise ValueError(f"{gone} does not exist; paths are relative to the folder in which the table was made")
    records = _latest([read_run(path) for path in paths])
    return [(leaderboards.leaderboard(identity, own), own) for identity, own in by_leaderboard(records)]


def _latest(records: Sequence[Run]) -> list[Run]:
    """Return one record per run, the latest repetition, as for one results folder; rows may come from several folders.

    Raises:
        ValueError: two folders have different results for one run.
    """
    latest: dict[str, Run] = {}
    for run in records:
        other = latest.setdefault(run.run_id, run)
        if run.repetition > other.repetition:
            latest[run.run_id] = run
        elif run.repetition == other.repetition and run.accuracy != other.accuracy:
            accuracies = f"{100 * other.accuracy:.2f} % in {other.path}, {100 * run.accuracy:.2f} % in {run.path}"
            raise ValueError(f"run {run.run_id} has two results, {accuracies}; keep the rows of one")
    return list(latest.values())
