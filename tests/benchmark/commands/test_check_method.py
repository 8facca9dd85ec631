"""Tests of `check-method` and `--plugin` with plug-in files, and of docs/extending.md."""

import argparse
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from raises import raises_naming
from vtab_peft.benchmark.cli import main, parser
from vtab_peft.benchmark.commands.check_method import run_check
from vtab_peft.benchmark.method_checks import checks
from vtab_peft.benchmark.method_checks.checks import CHECKS, SLOW_CHECKS, Check
from vtab_peft.benchmark.method_checks.tiny_models import Case, backbones_for
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.methods import METHODS, parse, plugin

ROOT = Path(__file__).parents[3]
PLUGINS = ROOT / "tests" / "plugins"
FAST = [check for check in CHECKS if check not in SLOW_CHECKS]
PAGE = (ROOT / "docs" / "extending.md").read_text()
(LINEAR,) = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
(METHOD,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TASK, RECIPE = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Unregister the methods of a test after it."""
    with patch.dict(METHODS), patch.dict(plugin._LOADED):
        yield


def check_file(capsys: pytest.CaptureFixture[str], file: Path, *options: str) -> tuple[int, str]:
    """Return exit status and output of `check-method`."""
    status = main(["check-method", str(file), *options])
    return status, capsys.readouterr().out


def verdicts(printed: str) -> dict[str, tuple[str, ...]]:
    """Return the verdicts for each backbone by name of the check."""
    lines = (re.fullmatch(r"(\S.*?)  +((?:ok|FAILS|-)(?: +(?:ok|FAILS|-))+)", line) for line in printed.splitlines())
    return {match[1]: tuple(match[2].split()) for match in lines if match}


def test_a_method_that_exits_fails() -> None:
    def leaves(_: Case) -> None:
        raise SystemExit("no GPU here")

    case: Any = None
    assert (run_check(leaves, case, PLUGINS / "good.py") or "").startswith("SystemExit: no GPU here, in ")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the check that compiles."""
    monkeypatch.setattr("vtab_peft.benchmark.commands.check_method.CHECKS", tuple(FAST))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("good", None),
        ("dead_gradient", checks.check_gradients_reach_all),
        ("unfreezes_too_much", checks.check_parameter_count),
    ],
)
def test_only_the_broken_requirement_fails(quick: None, name: str, wrong: Check | None, capsys) -> None:
    status, printed = check_file(capsys, PLUGINS / f"{name}.py")
    assert status == (0 if wrong is None else 1)
    assert verdicts(printed) == {
        check.__name__: (expected(name, check, wrong),) * len(backbones_for(METHODS[name])) for check in FAST
    }
    assert all(len(line) <= 100 for line in printed.splitlines())
    skipped = sum(expected(name, check, wrong) == "-" for check in FAST)
    applied = f"{len(FAST) - skipped} checks"
    verdict = f"all {applied} passed" if wrong is None else f"1 of {applied} failed"
    assert printed.splitlines()[-2] == f"{name}: {verdict}; {skipped} {'does' if skipped == 1 else 'do'} not apply"


def expected(name: str, check: Check, wrong: Check | None = None) -> str:
    """Return the entry of a check in the table of a method without `loss` and `penalty`."""
    return "-" if checks.reason_to_skip(check, parse(name)) else "FAILS" if check is wrong else "ok"


@pytest.mark.slow
def test_the_command_also_compiles(capsys) -> None:
    status, printed = check_file(capsys, PLUGINS / "good.py")
    assert status == 0
    assert verdicts(printed) == {check.__name__: (expected("good", check),) * 3 for check in CHECKS}


def test_a_crash_shows_the_users_line_once(quick: None, capsys, tmp_path: Path) -> None:
    file = tmp_path / "crashes.py"
    code = (PLUGINS / "good.py").read_text().replace('    backbones = ("vit", "swin")\n', "")
    file.write_text(code.replace("F.linear(F.linear(x, self.down), self.up)", "F.linear(x, self.up)"))
    status, printed = check_file(capsys, file)
    assert status == 1
    line = 1 + next(i for i, text in enumerate(file.read_text().splitlines()) if "F.linear(x, self.up)" in text)
    flat = " ".join(printed.split())
    assert f"in crashes.py:{line}: return F.linear(x, self.up)" in flat
    assert flat.count("RuntimeError: ") == 1
    assert "plain, LayerScale: as in check_output_shape" in flat
    assert "Traceback" not in flat


def test_only_one_method_or_one_check(quick: None, capsys, tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    code = (PLUGINS / "good.py").read_text()
    refuse = "    def validate(self) -> None:\n        raise ValueError('no rank fits')\n"
    file.write_text(code + code[code.index("@method") :].replace('"good"', '"second"') + refuse)
    status, printed = check_file(capsys, file)
    assert status == 1
    assert "second cannot be created with its defaults: ValueError" in printed
    assert "no rank fits" in printed
    status, printed = check_file(capsys, file, "--only", "good")
    assert status == 0
    assert "second" not in printed
    status, printed = check_file(capsys, file, "--only", "check_gradients_reach_all")
    assert status == 1  # of the second
    assert verdicts(printed) == {"check_gradients_reach_all": ("ok", "ok", "ok")}
    assert check_file(capsys, file, "--only", "gradients reach all") == (status, printed)


def test_checks_that_do_not_apply_are_not_counted(capsys) -> None:
    for only, verdict, last in (
        ("loss terms", ("-", "-", "-"), "good: 0 checks passed; 1 does not apply"),
        ("starts as identity", ("ok", "ok", "ok"), "good: 1 check passed"),
    ):
        status, printed = check_file(capsys, PLUGINS / "good.py", "--only", only)
        assert status == 0
        assert list(verdicts(printed).values()) == [verdict]
        assert printed.splitlines()[-2] == last


def test_missing_files_and_unknown_names_exit_with_2(capsys, tmp_path: Path) -> None:
    assert main(["check-method", str(tmp_path / "absent.py")]) == 2
    assert "no plug-in file at" in capsys.readouterr().err
    assert main(["check-method", str(PLUGINS / "good.py"), "--only", "godo"]) == 2
    said = capsys.readouterr().err
    assert "neither a method of the file nor a check" in said
    assert "check_gradients_reach_all" in said


def test_plug_ins_are_listed_with_the_others(capsys, tmp_path: Path) -> None:
    for name in set(METHODS) - {"lora"}:  # each takes its time to be measured
        del METHODS[name]
    assert main(["list", "methods", "--json", "--plugin", str(PLUGINS / "good.py")]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {"lora", "good"}
    assert rows["good"]["params_vit_b16"] == 12 * 4 * (768 + 3072)
    assert main(["list", "tasks", "--plugin", str(PLUGINS / "good.py")]) == 2
    error = capsys.readouterr().err
    assert "--plugin" in error
    assert "tasks" in error
    file = tmp_path / "untitled.py"
    code = (PLUGINS / "good.py").read_text()
    file.write_text(code.replace('    title = "Good"\n', "").replace('"good"', '"untitled"'))
    assert main(["list", "methods", "--json", "--plugin", str(file)]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["untitled"]["title"] == "untitled"


def test_missing_facts_only_warn(quick: None, capsys, tmp_path: Path) -> None:
    file = tmp_path / "bare.py"
    lines = (PLUGINS / "good.py").read_text().splitlines(keepends=True)
    file.write_text(
        "".join(line for line in lines if not line.startswith(("    title", "    targets", "    evidence")))
    )
    status, printed = check_file(capsys, file)
    assert status == 0
    assert "\n\nwarning: `title`, `targets`, `evidence` missing" in printed, "it is not of the last check"


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the page's plug-in to the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("norm_scale.py").write_text(METHOD)
    Path("my_lora.py").write_text(LINEAR)
    return Path("norm_scale.py")


@pytest.mark.parametrize("name", ["my_lora", "norm_scale"])
def test_the_methods_on_the_page_pass_the_checks(quick: None, shown: Path, name: str, capsys) -> None:
    status, printed = check_file(capsys, Path(f"{name}.py"))
    assert status == 0, printed


def test_an_error_on_loading_names_the_users_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("first = 1\nsecond = missing\n")
    with raises_naming(plugin.PluginError, "NameError", "broken.py:2", "second = missing"):
        plugin.load_plugin(file)
    file.write_text("class\n")
    with raises_naming(plugin.PluginError, "SyntaxError", "line 1"):
        plugin.load_plugin(file)
    (tmp_path / "own_layers.py").touch()
    file.write_text("from own_layers import Layer\n")
    with raises_naming(plugin.PluginError, "own_layers", "one file", "PYTHONPATH"):
        plugin.load_plugin(file)


def test_a_taken_name_shows_the_file_that_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    for file in (first, second):
        file.write_text((PLUGINS / "good.py").read_text().replace('"good"', '"mine"'))
    plugin.load_plugin(first)
    with raises_naming(plugin.PluginError, "'mine'", "taken", str(first)):
        plugin.load_plugin(second)


def test_the_page_names_the_commands_without_plugins() -> None:
    (subparsers,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    without = {name for name, command in subparsers.choices.items() if "--plugin" not in command.format_help()}
    (stored,) = re.findall(r"stored results need\s+no file: (.*?)\.", PAGE, re.DOTALL)
    assert without == {*re.findall(r"`(\S+)`", stored), "speed", "check-method", "data"}


@pytest.mark.slow
def test_the_page_shows_the_output_of_check_method(shown: Path, capsys) -> None:
    assert f"$ vtab-peft check-method norm_scale.py\n{check_file(capsys, shown)[1].strip()}\n```" in PAGE


def test_the_page_shows_the_output_for_a_dead_gradient(shown: Path, capsys) -> None:
    shutil.copy(PLUGINS / "dead_gradient.py", ".")
    _, printed = check_file(capsys, Path("dead_gradient.py"), "--only", "check_gradients_reach_all")
    assert f"--only check_gradients_reach_all\n{printed.strip()}\n```" in PAGE


def test_the_page_shows_the_difference_to_a_suite_file(shown: Path) -> None:
    hunk = re.search(r"```diff\n.*?@@\n(.*?)```", PAGE, re.DOTALL)
    assert hunk
    lines = [line or " " for line in hunk[1].splitlines()]
    before, after = ("".join(line[1:] + "\n" for line in lines if line[0] in f" {sign}") for sign in "-+")
    assert METHOD.count(before) == 1
    shown.write_text(METHOD.replace(before, after))
    spec = spec_from_file_location("vtab_peft.methods.norm_scale", shown)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    with patch.dict("sys.modules", {spec.name: module}):
        spec.loader.exec_module(module)
    assert METHODS["norm_scale"] is module.NormScale
    assert "vtab_peft" not in shown.read_text()


def test_the_task_and_the_recipe_on_the_page_are_valid() -> None:
    assert TASK in (ROOT / "datasets" / "official_tasks.toml").read_text()
    ((name, entry),) = tomllib.loads(RECIPE).items()
    recipe = replace(RECIPES[entry.pop("base")], name=name, **entry)
    assert recipe.epochs == entry["epochs"]
    assert f"--recipe {name}" in PAGE.partition(RECIPE)[2]
