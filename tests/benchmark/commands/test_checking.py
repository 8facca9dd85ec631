"""`check-method` and `--plugin` on files of users, and the page that shows how to write one."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands.check_method import complaint
from vtab_peft.benchmark.method_checks import checks as contract
from vtab_peft.benchmark.method_checks.checks import CHECKS, SLOW, Check, sentence
from vtab_peft.benchmark.method_checks.tiny_models import Case, backbones_for
from vtab_peft.benchmark.recipes import UNIFORM
from vtab_peft.benchmark.spec import Recipe
from vtab_peft.methods import METHODS, plugin

ROOT = Path(__file__).parents[3]
PLUGINS = ROOT / "tests" / "plugins"
FAST = [check for check in CHECKS if check not in SLOW]
PAGE = (ROOT / "docs" / "extending.md").read_text()
METHOD, RECIPE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(TASK,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    with patch.dict(METHODS), patch.dict(plugin._LOADED):
        yield


def judged(capsys: pytest.CaptureFixture[str], file: Path, *options: str) -> tuple[int, str]:
    """Exit status and what `check-method` prints."""
    status = main(["check-method", str(file), *options])
    return status, capsys.readouterr().out


def verdicts(printed: str) -> dict[str, tuple[str, ...]]:
    """Sentence -> the words under plain and LayerScale, and Swin where the method is made for it."""
    lines = (re.fullmatch(r"(\S.*?)  +((?:ok|FAILS)(?: +(?:ok|FAILS))+)", line) for line in printed.splitlines())
    return {match[1]: tuple(match[2].split()) for match in lines if match}


def test_a_method_that_exits_is_a_method_that_fails() -> None:
    def leaves(_: Case) -> None:
        raise SystemExit("no GPU here")

    case: Any = None
    assert (complaint(leaves, case, PLUGINS / "good.py") or "").startswith("SystemExit: no GPU here, in ")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check that compiles."""
    monkeypatch.setattr("vtab_peft.benchmark.commands.check_method.CHECKS", tuple(FAST))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("good", None),
        ("dead_gradient", contract.every_trainable_tensor_learns),
        ("unfreezes_too_much", contract.the_parameter_count_is_the_closed_form),
    ],
)
def test_plug_ins_are_judged_rightly(quick: None, name: str, wrong: Check | None, capsys) -> None:
    status, printed = judged(capsys, PLUGINS / f"{name}.py")
    assert status == (0 if wrong is None else 1)
    assert verdicts(printed) == {
        sentence(check): ("FAILS" if check is wrong else "ok",) * len(backbones_for(METHODS[name])) for check in FAST
    }
    assert all(len(line) <= 100 for line in printed.splitlines())
    verdict = f"all {len(FAST)} checks hold" if wrong is None else f"1 of {len(FAST)} checks failed"
    assert printed.splitlines()[-2] == f"{name}: {verdict}"


@pytest.mark.slow
def test_the_verb_also_compiles(capsys) -> None:
    status, printed = judged(capsys, PLUGINS / "good.py")
    assert status == 0
    assert verdicts(printed) == {sentence(check): ("ok", "ok", "ok") for check in CHECKS}


def test_a_crash_shows_the_users_line_once(quick: None, capsys, tmp_path: Path) -> None:
    file = tmp_path / "crashes.py"
    code = (PLUGINS / "good.py").read_text().replace('    backbones = ("vit", "swin")\n', "")
    file.write_text(code.replace("F.linear(F.linear(x, self.down), self.up)", "F.linear(x, self.up)"))
    status, printed = judged(capsys, file)
    assert status == 1
    line = 1 + next(i for i, text in enumerate(file.read_text().splitlines()) if "F.linear(x, self.up)" in text)
    flat = " ".join(printed.split())
    assert f"in crashes.py:{line}: return F.linear(x, self.up)" in flat
    assert flat.count("RuntimeError: ") == 1
    assert 'plain, LayerScale: as in "features keep their shape"' in flat
    assert "Traceback" not in flat


def test_only_one_method_or_one_check(quick: None, capsys, tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    code = (PLUGINS / "good.py").read_text()
    file.write_text(
        code + code[code.index("@register") :].replace('"good"', '"second"').replace("rank: int = 4", "rank: int")
    )
    status, printed = judged(capsys, file)
    assert status == 1
    assert "second cannot be made with its defaults: ValueError" in printed
    assert "missing 1 required positional argument: 'rank'" in printed
    status, printed = judged(capsys, file, "--only", "good")
    assert status == 0
    assert "second" not in printed
    status, printed = judged(capsys, file, "--only", "every trainable tensor learns")
    assert status == 1  # of the second
    assert verdicts(printed) == {"every trainable tensor learns": ("ok", "ok", "ok")}


def test_what_cannot_be_loaded_or_is_not_there_is_bad_input(capsys, tmp_path: Path) -> None:
    assert main(["check-method", str(tmp_path / "absent.py")]) == 2
    assert "no plug-in file at" in capsys.readouterr().err
    assert main(["check-method", str(PLUGINS / "good.py"), "--only", "godo"]) == 2
    said = capsys.readouterr().err
    assert "neither a method of the file nor a check" in said
    assert "every trainable tensor learns" in said


def test_plug_ins_are_listed_with_the_others(capsys, tmp_path: Path) -> None:
    for name in set(METHODS) - {"lora"}:  # each takes its time to be measured
        del METHODS[name]
    assert main(["list", "methods", "--json", "--plugin", str(PLUGINS / "good.py")]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {"lora", "good"}
    assert rows["good"]["params_vit_b16"] == 12 * 4 * (768 + 3072)
    assert main(["list", "tasks", "--plugin", str(PLUGINS / "good.py")]) == 2
    assert "--plugin brings methods, not tasks" in capsys.readouterr().err
    file = tmp_path / "untitled.py"
    code = (PLUGINS / "good.py").read_text()
    file.write_text(code.replace('    title = "Good"\n', "").replace('"good"', '"untitled"'))
    assert main(["list", "methods", "--plugin", str(file)]) == 2
    assert "check-method FILE` says what is wrong" in capsys.readouterr().err


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's plug-in, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("norm_scale.py").write_text(METHOD)
    return Path("norm_scale.py")


def test_the_page_shows_a_method_that_keeps_the_contract(quick: None, shown: Path, capsys) -> None:
    status, printed = judged(capsys, shown)
    assert status == 0, printed


@pytest.mark.slow
def test_the_page_shows_what_check_method_prints(shown: Path, capsys) -> None:
    assert f"$ vtab-peft check-method norm_scale.py\n{judged(capsys, shown)[1].strip()}\n```" in PAGE


def test_the_page_shows_what_check_method_prints_of_a_dead_gradient(shown: Path, capsys) -> None:
    shutil.copy(PLUGINS / "dead_gradient.py", ".")
    _, printed = judged(capsys, Path("dead_gradient.py"), "--only", "every trainable tensor learns")
    assert f'--only "every trainable tensor learns"\n{printed.strip()}\n```' in PAGE


def test_the_page_shows_the_whole_difference_to_a_file_of_the_suite(shown: Path) -> None:
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


def test_the_page_shows_a_row_of_the_suite_and_a_recipe_that_is_one() -> None:
    assert TASK in (ROOT / "datasets" / "official_tasks.toml").read_text()
    (recipe,) = eval(f"({RECIPE.strip()})", {"replace": replace, "UNIFORM": UNIFORM})
    assert isinstance(recipe, Recipe)
    assert recipe.name in PAGE.partition(RECIPE)[2]
