"""Sensitivity: the expected best against a simulation, plateaus, slices, gains, and no choice on test."""

import re
from dataclasses import replace

import numpy as np
import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands.sensitivity import plateau_in_words
from vtab_peft.benchmark.reporting.figures.sensitivity import draw_slices
from vtab_peft.benchmark.reporting.sensitivity import MethodSensitivity, Slice, expected_best, sensitivities

RATES = (1e-4, 1e-3, 1e-2)


def test_expected_best_equals_a_simulation():
    rng = np.random.default_rng(0)
    accuracies = np.array([0.2, 0.5, 0.5, 0.9, 0.6, 0.61])
    expected = expected_best(accuracies.tolist(), 8)
    for count in (1, 2, 5, 8):
        best = rng.choice(accuracies, size=(200_000, count)).max(axis=1)
        assert expected[count - 1] == pytest.approx(best.mean(), abs=5 * best.std() / 200_000**0.5)
    assert expected[0] == pytest.approx(accuracies.mean())
    assert (np.diff(expected) > 0).all()


@pytest.mark.parametrize(
    ("means", "plateau", "words"),
    [
        ([0.50, 0.60, 0.61, 0.60, 0.50], (2, 4), "2 to 4"),
        ([0.605, 0.50, 0.61, 0.40, 0.61], (3, 3), "3"),  # values behind a gap do not belong to it
        ([0.61, 0.60, 0.60, 0.605, 0.60], (1, 5), "all values tried"),
        ([0.61, 0.60, 0.40, 0.40, 0.40], (1, 2), "2 or less"),
        ([0.40, 0.40, 0.40, 0.60, 0.61], (4, 5), "4 or more"),
        ([0.40, 0.40, 0.40, 0.50, 0.61], (5, 5), "5"),
    ],
)
def test_plateau_is_within_one_point_and_has_no_gap(means, plateau, words):
    found = Slice("lr", (1.0, 2.0, 3.0, 4.0, 5.0), np.array([means]), ())
    assert found.plateau == plateau
    assert plateau_in_words(found) == words


def test_slices_explain_only_what_they_show():
    one = Slice("lr", (1.0, 2.0), np.array([[0.5, 0.6]]), ())
    wide = Slice("lr", (1.0, 2.0), np.array([[0.5, 0.6], [0.6, 0.5]]), ())
    for found, shown in (
        (one, ""),
        (wide, "blue: mean over tasks; grey: each task; band: within one point of the best"),
    ):
        tasks = ("flowers", "cars")[: len(found.accuracies)]
        method = MethodSensitivity("LoRA", tasks, 2, (found,), 0.6, np.array([0.5, 0.6]), ())
        figure = draw_slices([method], "title")
        assert figure.texts[-1].get_text() == shown


def put_trials(store, put, fake, seed_of_test: float = 0.0) -> None:
    """Store trials of two tasks over rates and ranks, refits of the best, and test runs at the defaults."""
    for place, task in enumerate(["flowers", "cars"]):
        for rate, accuracy in zip(RATES, (0.3, 0.5, 0.4), strict=True):
            for rank, more in ((4, 0.0), (8, 0.02)):
                facts = {"args": {"rank": rank, "form": "a"}, "spec": f"lora(rank={rank})", "lr": rate}
                put(task, "lora", 0, accuracy + more + place / 10, split="val", **facts)
    for seed in range(3):
        for place, task in enumerate(["flowers", "cars"]):
            at_default = {"args": {"rank": 8, "form": "a"}, "spec": "lora", "lr": 1e-4}
            put(task, "lora", seed, 0.3 + place / 10 + seed_of_test, **at_default)
            best = {"args": {"rank": 8, "form": "a"}, "spec": "lora(rank=8)", "lr": 1e-3}
            trial = fake.spec(task, "lora", 0, split="val", **best)
            refit = fake.spec(task, "lora", seed, asked="lora", tuned=True, **best)
            refit = replace(refit, recipe=replace(refit.recipe, name="uniform_3ep_tuned6"), recipe_base="tuned:1")
            record = fake.record(0.35 + place / 10 + seed / 100)
            record["facts"]["tuning"] = {"val_key": trial.run_id(), "configurations": 6}
            store.save(refit, record, np.zeros(10, int))


def only(store) -> MethodSensitivity:
    ((method,),) = sensitivities(store.load_runs()[0], store.load_failures()[0]).values()
    return method


def test_slices_differ_in_one_field(store, put, fake):
    put_trials(store, put, fake)
    method = only(store)
    assert (method.title, method.tasks, method.trials) == ("LoRA", ("cars", "flowers"), 6)
    assert {found.field: (found.values, found.others) for found in method.slices} == {
        "lr": (RATES, (("rank", 8),)),
        "rank": ((4, 8), (("lr", 1e-3),)),
    }
    assert method.slices[0].means == pytest.approx([0.37, 0.57, 0.47])
    assert method.slices[0].accuracies[0] == pytest.approx([0.42, 0.62, 0.52]), "cars"
    assert method.best == pytest.approx(0.57)
    assert len(method.expected) == 6


@pytest.mark.parametrize("args", [{"rank": 8}, {"drop_path": 0.1}])
def test_argument_named_like_a_field_is_another_setting(store, fake, args):
    for drop_path, rate, accuracy in ((0.0, 1e-3, 0.5), (0.1, 1e-3, 0.6), (0.2, 1e-3, 0.7), (0.0, 1e-2, 0.4)):
        spec = fake.spec("cars", "snell", 0, split="val", lr=rate, args=args)
        spec = replace(spec, recipe=replace(spec.recipe, drop_path=drop_path))
        store.save(spec, fake.record(accuracy), np.zeros(10, int))
    method = only(store)
    assert (method.trials, method.best) == (4, 0.7)
    assert [found.field for found in method.slices] == ["lr", "drop_path"]


def test_slice_names_an_argument_that_is_named_like_a_field(put, store):
    for drop_path, accuracy in ((0.0, 0.5), (0.1, 0.6)):
        put("cars", "snell", 0, accuracy, split="val", args={"drop_path": drop_path})
    assert [found.field for found in only(store).slices] == ["method.drop_path"]


def test_slices_go_over_arguments_inside_combinations(put, store):
    for rank, accuracy in ((4, 0.5), (8, 0.6)):
        args = {"lora": {"rank": rank, "sites": ["q", "v"]}, "bitfit": {}}
        put("cars", "lora + bitfit", 0, accuracy, split="val", args=args)
    assert [(found.field, found.values) for found in only(store).slices] == [("lora.rank", (4, 8))]


def test_slices_go_over_options_of_peft(put, store):
    for options, accuracy in ((None, 0.4), ({"r": 4, "layers": [0]}, 0.5), ({"r": 8, "layers": [0]}, 0.6)):
        put("cars", "hf", 0, accuracy, split="val", args={"type": "lora", "options": options})
    method = only(store)
    assert (method.trials, method.best) == (3, 0.6)
    assert [(found.field, found.values) for found in method.slices] == [("options.r", (4, 8))]


def test_gain_is_over_the_common_seeds_of_the_test_runs(store, put, fake):
    put_trials(store, put, fake)
    (gain,) = only(store).gains
    assert (gain.recipe, gain.tasks, gain.seeds) == ("uniform_3ep_tuned6", 2, 3)
    assert (gain.default, gain.tuned) == pytest.approx((0.35, 0.41))
    assert gain.interval
    half = 4.302652729911275 * 0.01 / 3**0.5  # Student's quantile for 2 degrees of freedom
    assert (gain.interval.low, gain.interval.high) == pytest.approx((0.06 - half, 0.06 + half))


def test_nothing_but_the_gain_depends_on_test_runs(store, put, fake, tmp_path):
    put_trials(store, put, fake)
    other = type(store)(tmp_path / "other")
    put_trials(other, lambda *a, **facts: put(*a, into=other, **facts), fake, seed_of_test=0.5)
    one, two = only(store), only(other)
    assert one.gains != two.gains
    for name in ("title", "tasks", "trials", "best"):
        assert getattr(one, name) == getattr(two, name)
    assert np.array_equal(one.expected, two.expected)
    for a, b in zip(one.slices, two.slices, strict=True):
        assert (a.field, a.values, a.plateau, a.others) == (b.field, b.values, b.plateau, b.others)
        assert np.array_equal(a.accuracies, b.accuracies)


def test_a_diverged_trial_counts_as_lost(store, put, fake):
    put_trials(store, put, fake)
    for task in ("flowers", "cars"):
        spec = fake.spec(task, "lora", 0, args={"rank": 8, "form": "a"}, spec="lora(rank=8)", lr=0.1, split="val")
        store.save_failure(spec, "the loss is not finite", "", "Diverged")
    method = only(store)
    assert method.trials == 7
    assert method.slices[0].values == (*RATES, 0.1)
    assert method.slices[0].means[-1] == 0


def test_a_diverged_trial_that_is_stored_too_counts_once(store, put):
    """Two machines may have run it, or it was repeated."""
    for rate, accuracy in ((1e-4, 0.3), (1e-3, 0.5)):
        spec = put("cars", "lora", 0, accuracy, split="val", lr=rate)
    store.save_failure(spec, "the loss is not finite", "", "Diverged")
    assert only(store).slices[0].means == pytest.approx([0.3, 0.5])


def test_command_writes_tables_and_figures(store, put, fake, capsys):
    put_trials(store, put, fake)
    assert main(["sensitivity", "--results", str(store.root)]) == 0
    printed = capsys.readouterr().out
    (folder,) = (store.root / "sensitivity").iterdir()
    figures = {f"{name}.{kind}" for name in ("slices", "expected_best") for kind in ("svg", "pdf")}
    assert {path.name for path in folder.iterdir()} == {"sensitivity.md", "slices.csv", *figures}
    assert len((folder / "slices.csv").read_text().splitlines()) == 1 + 2 * (3 + 2)
    page = (folder / "sensitivity.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")] for line in page.splitlines()]
    plateaus = {row[2]: row[6] for row in rows if len(row) == 9 and row[2] in ("lr", "rank")}
    assert (plateaus["lr"], plateaus["rank"]) == ("0.001", "8")
    assert "|" not in printed  # a terminal has no Markdown
    shown = [re.split(r" {2,}", line.strip()) for line in printed.splitlines()]
    assert {row[1]: row[5] for row in shown if row[1:2] in (["lr"], ["rank"])} == plateaus
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["sensitivity", "--results", str(store.root)]) == 0
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_command_needs_trials(store, put):
    put("flowers", "lora", 0, 0.5)
    assert main(["sensitivity", "--results", str(store.root)]) == 2
