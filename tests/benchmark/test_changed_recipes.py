"""Recipes that users change: one name and one run ID for one set of values, and refusals that name file and field."""

import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asking import command
from in_process import LOCAL_BACKEND, InProcessBackend
from vtab_peft.benchmark import recipes
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.engine.backbone import BackboneError, load
from vtab_peft.benchmark.engine.optim import learning_rate, total_epochs
from vtab_peft.benchmark.plan import resolve
from vtab_peft.benchmark.recipes import DERIVED, FIELDS, LIMITS, RECIPES, UNIFORM, choose_recipe
from vtab_peft.benchmark.spec import Recipe
from vtab_peft.benchmark.storage.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
EXAMPLE = re.search(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        (tmp_path / "my.toml").write_text(text, encoding="utf-8")
        return str(tmp_path / "my.toml")

    return write


def test_order_and_spelling_do_not_matter(write: Callable[[str], str]) -> None:
    first = choose_recipe("uniform", ["lr=3e-4", "epochs=20"])
    assert first.name == "uniform(epochs=20,lr=0.0003,warmup_epochs=2)"
    assert first.source.startswith("base recipe uniform, changed: epochs=20")
    assert choose_recipe("uniform", ["epochs=20", "lr=0.0003"]) == first
    assert choose_recipe("uniform", ["epochs=20", "lr=0.0003", "warmup_epochs=2.0"]) == first
    assert choose_recipe(write('base = "uniform"\nlr = 3e-4\nepochs = 20')) == first
    assert choose_recipe(write('base = "uniform"\nlr = 1\nepochs = 20'), ["lr=3e-4"]) == first
    assert len({first.base, UNIFORM.base, choose_recipe("uniform", ["lr=3e-4"]).base}) == 3


@pytest.mark.parametrize("name", RECIPES)
def test_own_values_of_the_base_change_nothing(name: str, write: Callable[[str], str]) -> None:
    base = RECIPES[name]
    in_tables = {field for table in base.tasks.values() for field in table}
    texts = {field: str(getattr(base, field)).lower() for field in FIELDS if field not in in_tables}
    texts["decayed"] = base.decayed
    assert choose_recipe(name, [f"{field}={text}" for field, text in texts.items()]) is base
    assert choose_recipe(write(f'base = "{name}"\n[tasks.cifar]\n')) is base


def test_every_number_has_limits() -> None:
    assert {field.name for field in fields(Recipe)} == set(FIELDS) | set(DERIVED)
    numbers = {name for name in FIELDS if isinstance(getattr(UNIFORM, name), int | float | None)}
    assert numbers - {"drop_last"} == set(LIMITS)


def test_warmup_keeps_its_share_unless_it_is_set() -> None:
    assert choose_recipe("uniform", ["epochs=50"]).warmup_epochs == 5
    assert choose_recipe("uniform", ["epochs=50", "warmup_epochs=10"]).warmup_epochs == 10
    assert choose_recipe("rlrr", ["epochs=50"]).cooldown_epochs == 5
    assert choose_recipe("hydra", ["epochs=50"]).cosine_epochs == 250
    assert choose_recipe("hydra", ["cosine_epochs=none"]).cosine_epochs is None
    with pytest.raises(ValueError, match=r"warmup_epochs \(30.0\) exceeds epochs \(20\)"):
        choose_recipe("uniform", ["epochs=20", "warmup_epochs=30"])


def test_a_chosen_lr_holds_for_methods_with_their_own() -> None:
    full: Any = SimpleNamespace(frozen_features=False, lr=1e-4)
    backbone: Any = SimpleNamespace(image_size=224)
    settings = ([], ["lr=3e-4"], ["epochs=20"], ["lr=1e-3"])
    rates = [resolve(choose_recipe("uniform", own).for_task("dtd"), full, backbone).lr for own in settings]
    assert rates == [1e-4, 3e-4, 1e-4, 1e-4]


def test_a_setting_replaces_the_values_per_task() -> None:
    changed = choose_recipe("ssf", ["lr=3e-4"])
    assert {changed.for_task(task).lr for task in changed.tasks} == {3e-4}
    assert changed.for_task("kitti").weight_decay == RECIPES["ssf"].for_task("kitti").weight_decay
    assert choose_recipe("ssf", [f"lr={RECIPES['ssf'].lr}"]).for_task("kitti").lr == RECIPES["ssf"].lr


def test_tables_hold_for_their_task_alone(write: Callable[[str], str]) -> None:
    file = write('base = "uniform"\nepochs = 20\n[tasks.dtd]\nlr = 0.01\nepochs = 50\n[tasks.svhn]\nepochs = 20')
    changed = choose_recipe(file)
    dtd, svhn, own = (changed.for_task(task) for task in ("dtd", "svhn", "a task of my own"))
    assert (dtd.lr, dtd.epochs, dtd.warmup_epochs) == (0.01, 50, 5)
    assert svhn == own == replace(own, epochs=20, warmup_epochs=2.0, lr=1e-3)
    assert re.fullmatch(r"uniform\(epochs=20,warmup_epochs=2,tasks=[0-9a-f]{8}\)", changed.name)
    assert "dtd: lr=0.01" in changed.source
    assert changed.tuned, "a row of one method must not split by learning rate"
    another = choose_recipe(write('base = "uniform"\nepochs = 20\n[tasks.dtd]\nlr = 0.02'))
    assert another.base != changed.base


@pytest.mark.parametrize(
    ("settings", "fact"),
    [
        (["lr"], "FIELD=VALUE"),
        (["epochs=3,lr=1e-3"], "by spaces"),
        (["lrr=1"], "did you mean lr"),
        (["learning_rate=1"], "did you mean lr"),
        (["name=mine"], "cannot be set"),
        (["lr=nan"], "lr must be a number"),
        (["lr=inf"], "lr must be a number"),
        (["lr=-1"], "lr must be a number"),
        ([f"lr={'9' * 400}"], "lr must be a number"),
        ([f"epochs={'9' * 5000}"], "epochs must be a whole number"),
        (["epochs=1.5"], "epochs must be a whole number"),
        (["epochs=true"], "epochs must be a whole number"),
        (["image_size=1000000"], "from 8 to 4096"),
        (["augmentation=flop"], "did you mean flip"),
        (["augmentation=crop_flip"], "framing"),
        (["drop_last=1"], "true or false"),
        (["lr=1", "lr=2"], "twice"),
        (["branch_dropout=0.1"], "exclude each other"),
        (["decayed=none"], "no biases, no norms"),
    ],
)
def test_wrong_settings_are_refused(settings: list[str], fact: str) -> None:
    with pytest.raises(ValueError, match=re.escape(fact)):
        choose_recipe("uniform", settings)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_short_recipes_leave_the_warm_up_or_are_refused(name: str, epochs: int) -> None:
    try:
        changed = choose_recipe(name, [f"epochs={epochs}"])
    except ValueError as error:
        assert all(fact in str(error) for fact in ("warm-up", "schedule_per=step"))  # noqa: PT017
        assert epochs < 3
        changed = choose_recipe(name, [f"epochs={epochs}", "schedule_per=step", "schedule_lag=0"])
    for recipe in [changed.for_task(task) for task in changed.tasks] or [changed]:
        steps = [epoch + step / 10 for epoch in range(total_epochs(recipe)) for step in range(10)]
        rates = [learning_rate(recipe, step if recipe.schedule_per == "step" else int(step)) for step in steps]
        assert recipe.lr / 2 < max(rates) <= recipe.lr * (1 + 1e-9)


def test_short_probes_and_own_recipes_leave_the_warm_up() -> None:
    with pytest.raises(ValueError, match="schedule_per=step"):
        choose_recipe("vpt", ["probe_epochs=1"])
    with pytest.raises(ValueError, match="schedule_lag=0"):
        choose_recipe("fact", ["epochs=1", "schedule_per=step"])
    with pytest.raises(ValueError, match="schedule_per=step"):
        choose_recipe(replace(RECIPES["fact"], name="mine", epochs=2, warmup_epochs=1))


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("lr = 1", ["base"]),
        ('base = "unifrm"', ["base", "did you mean uniform"]),
        ('base = "uniform"\nlr = "1"', ["lr must be a number"]),
        ('base = "uniform"\nlr = nan', ["lr must be a number"]),
        ('base = "uniform"\nlr = [1, 2]', ["lr must be a number"]),
        ('base = "uniform"\nbatchsize = 8', ["'batchsize'", "did you mean batch_size"]),
        ('base = "uniform"\n[tasks.dtd]\nepoch = 8', ["[tasks.dtd]", "did you mean epochs"]),
        ('base = "uniform"\n[tasks.dtd]\nimage_size = 64', ["[tasks.dtd]", "image_size"]),
        ('base = "uniform"\n[tasks.dtd]\nwarmup_epochs = 200', ["warmup_epochs (200.0)"]),
        ('base = "uniform"\ntasks = 3', ["[tasks.dtd]"]),
        ('base = "uniform"\nsearch = {lr = [1]}', ["search"]),
        ("base = ", ["TOML"]),
        ("base = " + "[" * 3000, ["TOML"]),
    ],
)
def test_wrong_files_are_refused_with_file_and_field(text: str, facts: list[str], write: Callable[[str], str]) -> None:
    with pytest.raises(ValueError) as refused:
        choose_recipe(write(text))
    for fact in facts if "warmup" in facts[0] else ["my.toml", *facts]:
        assert fact in str(refused.value)


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtab_peft.benchmark.recipes.LARGEST_FILE", 10)
    for name, content in (("large.toml", b"#" * 11), ("latin.toml", b"\xff")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            choose_recipe(str(tmp_path / name))
    for path in (tmp_path / "absent.toml", Path("/dev/null")):
        with pytest.raises(ValueError, match=path.name):
            choose_recipe(str(path))


def test_tables_of_unknown_tasks_are_refused(
    write: Callable[[str], str], make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write('base = "smoke"\n[tasks.dttd]\nlr = 1e-2')
    assert main([*command(make_task(), tmp_path / "results"), "--methods", "lora", "--recipe", file]) == 2
    assert "did you mean dtd" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "near"), [(65, "64 or 80"), (8, "16 or 32")])
def test_image_sizes_are_multiples_of_the_patch(size: int, near: str) -> None:
    with pytest.raises(BackboneError, match=near):
        load("toy_vit", "random", size)
    assert load("toy_vit", "random", 96).image_size == 96


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (["run", "--lr", "3e-4"], "--set lr=3e-4"),
        (["run", "--learning-rate=3e-4"], "--set lr=3e-4"),
        (["tune", "--epochs", "20", "--methods", "lora"], "--set epochs=20"),
        (["retry", "--batch-size", "32"], "--set batch_size=32"),
        (["run", "--weight-decay", "0"], "--set weight_decay=0"),
        (["smoke", "--image-size", "224"], "--set image_size=224"),
        (["run", "--img-size"], "--set image_size="),
        (["run", "--sedes", "0"], "--seeds"),
    ],
)
def test_options_of_other_trainers_name_the_setting(
    words: list[str], setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert setting in capsys.readouterr().err


@pytest.mark.parametrize("words", [["run", "--dry-run"], ["tune", "--dry-run"], ["status"]], ids=" ".join)
@pytest.mark.usefixtures("in_process")
def test_a_command_reads_its_recipe_file_once(
    words: list[str],
    make_task: Callable[..., Path],
    tmp_path: Path,
    write: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a file that is saved in between gives half of each version."""
    reads: list[Path] = []
    read = recipes._read
    monkeypatch.setattr(recipes, "_read", lambda path: reads.append(path) or read(path))
    (tmp_path / "results" / "runs").mkdir(parents=True)
    ask = [*command(make_task(), tmp_path / "results")[1:], "--methods", "linear", "--recipe", write('base = "smoke"')]
    main([*words, *ask])
    assert len(reads) == 1


@pytest.mark.slow
def test_changed_runs_work_after_the_file_is_gone(
    make_task: Callable[..., Path],
    tmp_path: Path,
    write: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`report`, `status`, `compare`, `rerun`, `export` and `predict` need the record alone."""
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    file = write('base = "smoke"\nepochs = 1\nbatch_size = 8\nprobe_epochs = 2\n[tasks.colours]\nlr = 2e-3')
    task, results = make_task(), tmp_path / "results"
    ask = [*command(task, results), "--seeds", "0", "--methods", "linear", "lora(rank=2)", "--recipe", file]
    assert main([*ask, "--keep-adapters"]) == 0
    name = choose_recipe(file).name
    (record,) = [run for run in Store(results).load_runs()[0] if run.spec.method.name == "lora"]
    assert record.spec.recipe_base == choose_recipe(file).base
    assert (record.spec.recipe.lr, record.spec.recipe.epochs, record.spec.recipe.name) == (2e-3, 1, name)
    assert main(["status", *ask[1:]]) == 0
    Path(file).unlink()
    capsys.readouterr()

    given = ["--results", str(results)]
    assert main(["report", *given]) == 0
    assert name in " ".join(capsys.readouterr().out.split())
    index = (results / "README.md").read_text(encoding="utf-8")
    page = (results / "index.html").read_text(encoding="utf-8")
    assert all("tasks=" in text and "epochs=1" in text for text in (index, page))
    assert main(["status", *given]) == 0
    assert name in capsys.readouterr().out
    assert main(["compare", "linear", "lora(rank=2)", *given]) == 0
    assert main(["rerun", record.run_id, "--data", str(task), "--weights", "random", *given]) == 0
    exported = str(tmp_path / "exported")
    assert main(["export", record.run_id, "--as", "adapter", "--to", exported, "--weights", "random", *given]) == 0
    assert main(["predict", str(task / "images"), "--adapter", exported, "--weights", "random", *given]) == 0


def test_the_example_of_the_docs_runs(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On small tasks of the same names."""
    assert EXAMPLE is not None
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    (tmp_path / "my_recipe.toml").write_text(EXAMPLE[1], encoding="utf-8")
    recipe, results = str(tmp_path / "my_recipe.toml"), tmp_path / "results"
    for name in ("texture", "count"):
        ask = [*command(make_task(name), results), "--methods", "lora", "--seeds", "0", "--recipe", recipe]
        assert main([*ask, "--split", "val"]) == 0
    found = [json.loads(path.read_text())["spec"] for path in (results / "runs").rglob("*.json")]
    assert {spec["task"]["name"]: spec["recipe"]["lr"] for spec in found} == {"texture": 5e-4, "count": 2e-3}
    assert {(spec["recipe"]["epochs"], spec["recipe"]["augmentation"]) for spec in found} == {(4, "flip")}
