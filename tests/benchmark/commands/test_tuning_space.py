"""Search space of `tune`: the grid, the budget and the choice."""

from pathlib import Path
from unittest.mock import patch

import pytest
from vtab_peft.benchmark.commands import tuning_space as searching
from vtab_peft.benchmark.commands.tune import rates_table
from vtab_peft.benchmark.commands.tuning_grid import Grid, check_grid, parse_grid
from vtab_peft.benchmark.commands.tuning_space import Search, budget, choose, fair_budget, settings, tuned
from vtab_peft.benchmark.plan import MethodInfo, SweepConfig
from vtab_peft.benchmark.recipes import RECIPES, UNIFORM
from vtab_peft.benchmark.spec import Recipe
from vtab_peft.datasets.cache import CachedTask
from vtab_peft.methods import METHODS, parse
from vtab_peft.methods.base import later
from vtab_peft.methods.base import method as register

SMOKE = RECIPES["smoke"]


def points(method: MethodInfo, recipe: Recipe = UNIFORM) -> list[tuple[str, float, float]]:
    return [(s.method.ref.spec, s.lr, s.weight_decay) for s in settings(method, recipe)]


def test_grid_is_the_full_product_with_the_default_first(resolve) -> None:
    _, (lora, linear) = resolve("lora", "linear")
    rates, decays = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (1e-4, 1e-2, 1e-1)
    specs = ("lora", "lora(alpha=0.8)", "lora(alpha=80.0)")
    assert points(lora)[0] == ("lora", 1e-3, 1e-4)
    assert sorted(points(lora)) == sorted((s, lr, wd) for s in specs for lr in rates for wd in decays)
    assert points(linear)[0] == ("linear", 1e-3, 1e-4)
    assert sorted(points(linear)) == sorted(("linear", lr, wd) for lr in rates for wd in decays)


@pytest.mark.parametrize("recipe", ["uniform", "osu", "vpt", "smoke"])
def test_every_rate_is_tried_at_the_defaults_first(resolve, recipe: str) -> None:
    _, methods = resolve("all", "lora(rank=4)")
    used = RECIPES[recipe]
    for method in methods:
        ordered = settings(method, used)
        rates = {s.lr for s in ordered}
        first = ordered[: len(rates)]
        assert {s.lr for s in first} == rates, method.ref.spec
        assert all(s.method == method.variants[0] for s in first)
        assert {s.weight_decay for s in first} == {used.weight_decay}
        if "lr" not in used.search:
            assert [s.lr / first[0].lr for s in first] == pytest.approx([1, 3, 0.3, 0.1, 10])


def test_docs_list_the_rates_at_the_defaults(resolve) -> None:
    backbone, methods = resolve("all")
    table = rates_table(Search(backbone, UNIFORM, 15, SweepConfig(tuned(UNIFORM, 15), seeds=[0])), methods, "github")
    page = (Path(searching.__file__).parents[2] / "docs" / "tuning.md").read_text()
    assert table in page, f"put this into docs/tuning.md:\n{table}"


def test_all_names_methods_without_their_package(resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtab_peft.methods.base.find_spec", lambda package: None)
    backbone, methods = resolve("all")
    with_peft = {name for name, cls in METHODS.items() if cls.needs == "peft" and not cls.stands_for_many}
    assert len(methods) == len(METHODS) - len(with_peft) - 1  # `hf` stands for many
    assert len(with_peft) == 24
    assert not with_peft & {method.ref.name for method in methods}
    (note,) = [note for note in backbone.notes if "vtab-peft[peft]" in note]
    assert all(name in note for name in with_peft)


def test_no_note_if_no_requested_method_is_missing(resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, methods = resolve("all")
    assert len(methods) == len(METHODS) - 1  # `hf` stands for many
    assert "vtab-peft[peft]" not in str(backbone.notes)
    monkeypatch.setattr("vtab_peft.methods.base.find_spec", lambda package: None)
    backbone, methods = resolve("lora")
    assert len(methods) == 1
    assert "vtab-peft[peft]" not in str(backbone.notes)


def test_explicit_argument_is_not_searched(resolve) -> None:
    _, (fixed, free) = resolve("lora(alpha=3.0)", "lora(rank=4)")
    assert {spec for spec, _, _ in points(fixed)} == {"lora(alpha=3.0)"}
    assert {spec for spec, _, _ in points(free)} == {
        "lora(rank=4)",
        "lora(rank=4, alpha=0.8)",
        "lora(rank=4, alpha=80.0)",
    }


def test_invalid_arguments_are_left_out(resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS["adalora"], "search", {"target_rank": (2, 99)})  # it must be below rank
    _, (adalora,) = resolve("adalora")
    assert {spec for spec, _, _ in points(adalora)} == {"adalora", "adalora(target_rank=2)"}


def test_learning_rates_are_multiples_of_the_default(resolve) -> None:
    _, (full, linear) = resolve("full", "linear")
    assert points(full)[0] == ("full", 1e-4, 1e-4)
    for (_, low, decay), (_, lr, same) in zip(points(full), points(linear), strict=True):
        assert (10 * low, decay) == pytest.approx((lr, same))


def test_grid_of_a_recipe_is_used(resolve) -> None:
    _, (full, linear) = resolve("full", "linear")
    osu = sorted((lr, wd) for lr in (1e-3, 1e-2) for wd in (1e-4, 1e-3))
    for method in (full, linear):
        assert sorted((lr, wd) for _, lr, wd in points(method, RECIPES["osu"])) == osu
    assert fair_budget(RECIPES["osu"]) == 4
    assert fair_budget(RECIPES["vpt"]) == len(points(linear, RECIPES["vpt"])) == 40


def grid_of(*texts: str) -> Grid:
    grid = parse_grid(texts)
    assert grid is not None
    return grid


def test_grid_of_the_user_is_exactly_the_product(resolve) -> None:
    grid = grid_of("rank=8,4", "lr=3e-4,1e-4", "drop_path=0,0.2")
    _, (lora,) = resolve("lora", grid=grid.arguments)
    found = settings(lora, UNIFORM, grid)
    tried = [(s.method.ref.args["rank"], s.lr, dict(s.others)["drop_path"]) for s in found]
    assert len(tried) == len(set(tried)) == 8
    assert {rank for rank, _, _ in tried} == {4, 8}
    assert {s.weight_decay for s in found} == {UNIFORM.weight_decay}
    assert [s.lr for s in found[:2]] == [3e-4, 1e-4], "all learning rates first, the closest to the default first"
    assert len({(rank, drop) for rank, _, drop in tried[:2]}) == 1
    assert budget(None, UNIFORM, [lora], grid) == 8
    assert settings(lora, UNIFORM, grid_of("lr=1e-4,3e-4", "drop_path=0.2,0.0", "rank=4,8")) == found


def test_default_arguments_come_first_if_they_are_in_the_grid(resolve) -> None:
    default = parse("lora").args()["rank"]
    grid = grid_of(f"rank=3,{default},5", "lr=1e-3,1e-2")
    _, (lora,) = resolve("lora", grid=grid.arguments)
    assert [s.method.ref.spec for s in settings(lora, UNIFORM, grid)[:2]] == ["lora", "lora"]


def test_arguments_are_spelled_as_in_specs(resolve) -> None:
    assert grid_of("scale=True,False", "maybe=None,3,'None'").arguments == {
        "scale": (False, True),
        "maybe": (None, 3, "None"),
    }
    grid = grid_of("scale=False,true")
    _, (goft,) = resolve("goft", grid=grid.arguments)
    assert [setting.method.ref.args["scale"] for setting in settings(goft, UNIFORM, grid)] == [True, False]


def test_spellings_of_a_number_are_one_grid() -> None:
    one, other = (tuned(UNIFORM, 2, grid_of(text)) for text in ("alpha=8,16", "alpha=8.0,1.6e1"))
    assert one.base == other.base
    assert grid_of("weight_decay=-0.0,0,0e3").fields == {"weight_decay": (0.0,)}


@pytest.mark.parametrize(
    ("methods", "texts", "fact"),
    [
        (["lora"], ["lr"], "NAME=VALUE"),
        (["lora"], ["lr=1e-3,nan"], "lr must be a number"),
        (["lora"], ["lr=1e-3", "lr=1e-4"], "twice"),
        (["lora"], ["image_size=64,128"], "--set image_size=64"),
        (["lora"], ["rnk=4,8"], "did you mean rank"),
        (["lora"], ["rank=4,x"], "--grid: lora: rank must be"),
        (["lora + bitfit"], ["lora=4,8"], "combination"),
        (["lora + bitfit"], ["rank=4,8"], "combination"),
        (["lora", "linear"], ["rank=4,8"], "linear has no argument"),
        (["lora(rank=4)"], ["rank=4,8"], "fixed"),
    ],
)
def test_wrong_grids_are_refused(resolve, methods: list[str], texts: list[str], fact: str) -> None:
    with pytest.raises(ValueError) as refused:
        resolve(*methods, grid=grid_of(*texts).arguments)
    assert fact in str(refused.value)


def test_grids_share_trials_and_not_leaderboards(resolve, data: CachedTask) -> None:
    backbone, (lora,) = resolve("lora")
    searches = [
        Search(backbone, SMOKE, 2, SweepConfig(tuned(SMOKE, 2, grid), seeds=[0]), grid)
        for grid in (grid_of("lr=1e-3,1e-2"), grid_of("lr=1e-2,1e-1"))
    ]
    trials = [search.trials(lora, data) for search in searches]
    ids = [{run.spec.run_id() for run in own.runs} for own in trials]
    assert len(ids[0] & ids[1]) == 1
    refits = [search.refits(own, [0.5, 0.6])[0] for search, own in zip(searches, trials, strict=True)]
    assert len({run.spec.recipe_base for run in refits}) == 2
    assert refits[0].spec.recipe.name == "smoke_tuned2(lr=0.001/0.01)"


def test_arguments_added_later_are_tried(resolve) -> None:
    grid = grid_of("start=torch,released", "lr=1e-3,1e-2")
    _, (mona,) = resolve("mona", grid=grid.arguments)
    tried = {(setting.method.ref.spec, setting.lr) for setting in settings(mona, UNIFORM, grid)}
    assert tried == {(spec, lr) for spec in ("mona", "mona(start='released')") for lr in (1e-3, 1e-2)}


def test_an_argument_added_later_may_not_be_a_field_of_the_recipe_in_a_grid(resolve) -> None:
    with patch.dict(METHODS):

        @register("drops")
        class Drops(METHODS["bitfit"]):
            drop_path: float = later(default=0.0)

        _, methods = resolve("drops", grid={})
    with pytest.raises(ValueError, match="drop_path"):
        check_grid(grid_of("drop_path=0,0.1"), methods)
    check_grid(grid_of("lr=1e-3,1e-2"), methods)


def test_lists_and_dictionaries_are_tried(resolve) -> None:
    grid = grid_of("options={'r': 4},{'r': 8, 'lora_alpha': 8},{'r':4}")
    assert grid.arguments == {"options": ({"r": 4}, {"r": 8, "lora_alpha": 8})}
    _, (lora,) = resolve("hf(type='lora')", grid=grid.arguments)
    tried = [setting.method.ref.args["options"] for setting in settings(lora, UNIFORM, grid)]
    assert sorted(map(len, tried)) == [1, 2]
    assert grid_of("ranks=[4,4],[2,2]", "open=[4").arguments == {"ranks": ([2, 2], [4, 4]), "open": ("[4",)}


def test_a_field_of_the_recipe_is_suggested(resolve) -> None:
    for name in ("wd", "weigth_decay"):
        with pytest.raises(ValueError, match=f"{name}.*weight_decay"):
            resolve("lora", grid=grid_of(f"{name}=0,1").arguments)


def test_budget_larger_than_a_grid_is_refused(resolve) -> None:
    _, methods = resolve("lora", "linear")
    assert budget(None, UNIFORM, methods) == fair_budget(UNIFORM) == 15
    assert budget(7, UNIFORM, methods) == 7
    with pytest.raises(ValueError, match=r"linear.* 15 .*16.*--max-configs 15"):
        budget(16, UNIFORM, methods)


def test_tuned_recipe_depends_on_recipe_grid_and_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    bases = {tuned(UNIFORM, 15).base, tuned(UNIFORM, 14).base, tuned(SMOKE, 15).base, tuned(RECIPES["osu"], 4).base}
    monkeypatch.setattr(searching, "WEIGHT_DECAYS", (1e-4, 1e-2, 0.2))
    bases.add(tuned(UNIFORM, 15).base)
    assert len(bases) == 5
    assert tuned(UNIFORM, 15).tuned
    with pytest.raises(ValueError, match="'ssf'"):
        tuned(RECIPES["ssf"], 15)


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ([0.5, 0.7, 0.6], 1),
        ([0.7, 0.7, 0.7], 0),
        ([0.5, 0.7, 0.7], 1),
        ([None, 0.1, None], 1),
        ([0.0, None], 0),
        ([None], None),
    ],
)
def test_highest_accuracy_wins_and_the_first_on_ties(accuracies: list[float | None], best: int | None) -> None:
    assert choose(accuracies) == best
