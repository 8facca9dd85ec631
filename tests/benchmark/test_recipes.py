"""Recipes: what their sources train with, epoch by epoch and task by task."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.engine import backbone as backbones
from vtab_peft.benchmark.engine.injection import inject
from vtab_peft.benchmark.engine.optim import learning_rate, make_optimizer, total_epochs
from vtab_peft.benchmark.engine.trainer import make_head
from vtab_peft.benchmark.plan import resolve
from vtab_peft.benchmark.recipes import RECIPES, TABLES, UNIFORM
from vtab_peft.benchmark.spec import Recipe
from vtab_peft.datasets.tasks import suite_tasks
from vtab_peft.methods import parse

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"
AOFT, FACT, RLRR = (RECIPES[name] for name in ("aoft_released", "fact", "rlrr"))


def test_recipes_of_stored_results_never_change() -> None:
    bases = [RECIPES[name].base for name in ("uniform", "uniform_3ep", "toy", "smoke")]
    assert bases == ["uniform:89383ecd", "uniform_3ep:863d3485", "toy:dc217474", "smoke:e77bd804"]


@pytest.mark.parametrize("epochs", [11, 22, 39])
def test_a_warm_up_of_all_epochs_has_a_probe(epochs: int) -> None:
    """Scaled to 100 epochs, rounding makes it longer than the training."""
    assert replace(UNIFORM, epochs=epochs, warmup_epochs=epochs).for_probe().warmup_epochs == 100


def rates(recipe: Recipe) -> list[float]:
    """Of our loop: one a step or one an epoch, here at the start of each epoch."""
    return [learning_rate(recipe, epoch) for epoch in range(total_epochs(recipe))]


def official(lr: float, epochs: int, after: int, **cosine: float | bool) -> list[float]:
    """Of a loop that trains an epoch and then calls timm's scheduler with its number plus `after`."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    scheduler = CosineLRScheduler(optimizer, warmup_t=10, **cosine)  # pyright: ignore[reportArgumentType]
    seen = []
    for epoch in range(epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        scheduler.step(epoch + after)
    return seen


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        # FacT/fact_tt.py: step(ep) after epoch ep, 100 epochs
        ("fact", official(1e-3, 100, 0, t_initial=100, lr_min=1e-5, warmup_lr_init=1e-6)),
        ("osu", official(1e-3, 100, 0, t_initial=100, lr_min=1e-5, warmup_lr_init=1e-6)),
        # train.py of SSF: step(epoch + 1), and create_scheduler's 10 epochs of cooldown
        ("ssf", official(5e-3, 110, 1, t_initial=100, lr_min=1e-8, warmup_lr_init=1e-7)),
        # train_vtab.py of RLRR and of AOFT: step(epoch), the same cooldown
        ("rlrr", official(3e-3, 110, 0, t_initial=100, lr_min=1e-8, warmup_lr_init=1e-7)),
        ("aoft_released", official(1e-2, 110, 0, t_initial=100, lr_min=1e-8, warmup_lr_init=1e-7)),
        # train.py of CVPT, supernet.py of GLoRA (500 epochs) and train.py of Hydra (100 of 500): step(ep), as FacT
        ("cvpt", official(1e-3, 100, 0, t_initial=100, lr_min=1e-5, warmup_lr_init=1e-6)),
        ("glora", official(1e-4, 500, 0, t_initial=500, lr_min=1e-5, warmup_lr_init=1e-6)),
        ("hydra", official(5e-4, 100, 0, t_initial=500, lr_min=1e-5, warmup_lr_init=1e-6)),
        # VPT's and adapter_plus's cosine begins after the warm-up: timm's prefix
        ("vpt", official(1.25, 100, 1, t_initial=90, warmup_prefix=True)),
        ("uniform", official(1e-3, 100, 1, t_initial=90, warmup_prefix=True)),
    ],
)
def test_every_epoch_has_the_source_learning_rate(name: str, truth: list[float]) -> None:
    assert rates(RECIPES[name].for_task("cifar")) == pytest.approx(truth, rel=1e-9, abs=1e-15)


def test_a_stretched_cosine_stops_before_its_end() -> None:
    hydra = RECIPES["hydra"].for_task("kitti")
    cosine = [1e-5 + (5e-4 - 1e-5) * (1 + math.cos(math.pi * (epoch - 1) / 500)) / 2 for epoch in range(11, 100)]
    assert rates(hydra)[11:] == pytest.approx(cosine)
    assert rates(hydra)[-1] > 0.9 * hydra.lr
    probe = replace(hydra, probe_epochs=20).for_probe()
    assert (probe.epochs, probe.cosine_epochs) == (20, 100)
    with pytest.raises(ValueError, match="cosine_epochs"):
        replace(hydra, cosine_epochs=99)


def test_dyt_has_its_rate_in_every_step() -> None:
    """util/lr_sched.py: from 0 in 10 epochs, then half a cosine to 1e-5, at the fractional epoch."""
    dyt = RECIPES["dyt"]
    assert [learning_rate(dyt, epoch) for epoch in (0, 2.5, 10, 55, 100)] == pytest.approx(
        [0, 2.5e-4, 1e-3, (1e-3 + 1e-5) / 2, 1e-5]
    )
    assert learning_rate(dyt, 32.5) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.sqrt(0.5)) / 2)


def test_fact_runs_epochs_0_and_1_at_warmup_lr() -> None:
    assert rates(FACT)[:3] == pytest.approx([1e-6, 1e-6, 1e-6 + (1e-3 - 1e-6) / 10])


@pytest.mark.parametrize(
    ("name", "reference", "columns", "names"),
    [
        (
            "aoft_released",
            "aoft_official_hparams.csv",
            {"branch_dropout": "drop_path_max", "batch_size": "batch_size", "augmentation": "hflip"},
            {},
        ),
        (
            "rlrr",
            "rlrr_vtab_hparams.csv",
            {"branch_dropout": "drop_path(really elementwise dropout)", "augmentation": "train_hflip(simple_aug)"},
            {},
        ),
        (
            "ssf",
            "ssf_vtab_hparams.csv",
            {"drop_path": "drop_path", "epochs": "epochs"},
            {"cifar_100": "cifar", "flowers102": "oxford_flowers102", "pets": "oxford_iiit_pet"},
        ),
    ],
)
def test_every_task_has_the_values_of_the_source(
    name: str, reference: str, columns: dict[str, str], names: dict[str, str]
) -> None:
    if not REFERENCE.exists():
        pytest.skip(f"no {REFERENCE}: the tables are compared with the sources' where those lie beside the repository")
    with (REFERENCE / reference).open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("suite", "vtab1k") == "vtab1k"]
    shared = ("lr", "weight_decay", "warmup_lr", "min_lr")
    seen = set()
    for row in rows:
        task = row.get("task") or row["dataset"]
        seen.add(names.get(task, task))
        recipe = RECIPES[name].for_task(names.get(task, task))
        for field, column in {**{field: field for field in shared}, **columns}.items():
            value = {"True": "flip", "False": "none"}.get(row[column], row[column])
            assert str(getattr(recipe, field)) == value or float(getattr(recipe, field)) == float(value), (task, field)
    assert seen == set(suite_tasks("vtab1k"))


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES.values() if recipe.tasks], ids=lambda r: r.name)
def test_task_table_has_all_vtab_tasks_and_no_other(recipe: Recipe) -> None:
    assert set(recipe.tasks) == set(suite_tasks("vtab1k"))
    assert (TABLES / f"{recipe.name}.csv").read_text().startswith("# ")
    with pytest.raises(ValueError, match=f"'{recipe.name}'.*'cub'.*cifar, dtd"):
        recipe.for_task("cub")


def test_recipe_for_a_task_has_its_values_and_no_table() -> None:
    kitti = AOFT.for_task("kitti")
    assert (kitti.lr, kitti.weight_decay, kitti.branch_dropout, kitti.augmentation) == (1e-2, 5e-4, 0.2, "flip")
    assert AOFT.for_task("clevr_count").batch_size == 16
    assert not kitti.tasks
    assert not RECIPES["vpt"].for_task("kitti").search
    assert UNIFORM.for_task("anything") == UNIFORM


def test_method_lr_replaces_untuned_recipe_lr_only() -> None:
    method = SimpleNamespace(frozen_features=False, lr=1e-4)
    backbone = SimpleNamespace(image_size=224)
    rates = [resolve(r.for_task("cifar"), method, backbone).lr for r in (UNIFORM, FACT, AOFT)]  # type: ignore[arg-type]
    assert rates == [1e-4, 1e-4, 1e-2]


def test_weight_decay_parameters() -> None:
    """Not by the path: a matrix behind `norm1` decays, and the gain of a LayerNorm of any name does not."""
    behind = torch.nn.Sequential(torch.nn.LayerNorm(3), torch.nn.Linear(3, 4))
    model = torch.nn.ModuleDict({"norm1": behind, "head": torch.nn.Linear(3, 2)})
    model.register_parameter("q", torch.nn.Parameter(torch.zeros(3)))
    model.register_parameter("bias_table", torch.nn.Parameter(torch.zeros(5, 5)))

    def decayed(recipe: Recipe) -> set[str]:
        groups = make_optimizer(model, replace(recipe, weight_decay=0.5)).param_groups
        found = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
        return {name for name, p in model.named_parameters() if id(p) in found}

    assert decayed(AOFT) == {"norm1.1.weight", "head.weight", "q"}
    assert decayed(RLRR) == {"norm1.1.weight", "head.weight", "bias_table"}
    assert decayed(UNIFORM) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("start", "deviation", "largest"),
    [
        ("trunc_normal", None, 0.04),
        ("normal", 0.01, None),
        ("uniform", 1 / math.sqrt(3 * 192), 1 / math.sqrt(192)),
        ("kaiming", 0.2, None),
    ],
)
def test_head_initialisation_agrees_with_sources(start: str, deviation: float | None, largest: float | None) -> None:
    head = make_head(192, 50, replace(UNIFORM, head_init=start), seed=0)  # pyright: ignore[reportArgumentType]
    assert not head.bias.any()
    if deviation is not None:
        assert head.weight.std().item() == pytest.approx(deviation, rel=0.03)
    if largest is not None:
        assert 0.95 * largest < head.weight.abs().max() <= largest


def test_mlp_dropout_acts_in_training_in_all_blocks() -> None:
    pristine = backbones.load("toy_vit", "random").vit
    recipe = replace(UNIFORM, drop_path=0.0, mlp_dropout=0.1)
    vit = inject(pristine, parse("aoft_lora_released"), recipe, seed=0).vit
    plain = inject(pristine, parse("aoft_lora_released"), replace(recipe, mlp_dropout=0.0), seed=0).vit
    images = torch.zeros(1, 3, 64, 64)
    assert torch.equal(vit.eval()(images), plain.eval()(images))
    assert not torch.equal(vit.train()(images), plain.train()(images))
    rates = [[m.p for m in block.modules() if isinstance(m, torch.nn.Dropout) and m.p] for block in vit.blocks]
    assert rates == [[0.1, 0.1]] * len(vit.blocks)


def test_list_recipes_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    (rate,) = [line.split() for line in lines if line.startswith("lr") and "1.25" in line]
    assert rate.count("per") == 3
    for name in RECIPES:
        assert any(line.startswith(f"{name}: ") for line in lines)


def test_recipe_without_the_task_is_refused_early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["run", "--suite", "toy", "--backbone", "toy_vit", "--methods", "lora", "--recipe", "ssf"]
    assert main([*ask, "--results", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "'ssf'" in message
    assert "'texture'" in message
