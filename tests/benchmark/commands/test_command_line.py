"""The command line as people expect it: no arguments, versions, short help, titles, commas and nearest names."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from in_process import LOCAL_BACKEND, InProcessBackend
from vtab_peft.benchmark import __version__
from vtab_peft.benchmark.cli import main, parser
from vtab_peft.benchmark.engine.backbone import BackboneError, load, names
from vtab_peft.benchmark.engine.backbone_names import nearest_backbones
from vtab_peft.benchmark.recipes import split_list
from vtab_peft.datasets.folder import folder_task
from vtab_peft.methods import METHODS, parse

RUN = ["run", "--backbone", "toy_vit", "--methods"]


def leaves(command: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    below = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield command
    for family in below:
        for one in family.choices.values():
            yield from leaves(one)


@pytest.mark.parametrize("words", [[], ["data"]])
def test_without_a_command_the_commands_are_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code
    assert ("check" if words else "tune") in capsys.readouterr().out


def test_help_states_the_defaults_of_reproduce(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("(default: the paper's)") == 5  # methods, backbone, recipe, normalisation, interpolation
    assert not any(default in said for default in ("uniform", "(default: own", "(default: bicubic"))


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out.split() == ["vtab-peft", __version__]


@pytest.mark.parametrize("command", list(leaves(parser())), ids=lambda command: command.prog)
def test_help_begins_with_what_the_command_does(command: argparse.ArgumentParser) -> None:
    usage, sentence, *_ = command.format_help().split("\n\n")
    assert usage.startswith("usage: ")
    assert sentence[0].isupper()
    assert sentence.endswith(".")


def test_usage_marks_arguments_of_several_values() -> None:
    usages = {command.prog: command.format_help().split("\n\n")[0] for command in leaves(parser())}
    assert usages["vtab-peft run"] == "usage: vtab-peft run --methods METHODS ... --backbone BACKBONE [options]"
    assert usages["vtab-peft analyze"] == "usage: vtab-peft analyze RUN ... [options]"
    assert usages["vtab-peft data fetch"] == "usage: vtab-peft data fetch [TASK ...] [options]"


@pytest.mark.parametrize("command", list(leaves(parser())), ids=lambda command: command.prog)
def test_help_fits_a_screen_or_is_grouped(command: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = command.format_help().splitlines()
    groups = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert len(lines) <= 24 or len(groups) > 3, len(lines)
    assert len(" ".join(lines[:2])) < 200, "the usage is short"


@pytest.mark.parametrize("words", [["run"], ["trainn"], ["run", "--nonsense"], [*RUN, "lora", "--seeds", "x"]])
def test_an_error_has_one_line_of_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("usage: ") for line in lines] == [False, True]


@pytest.mark.parametrize(
    ("words", "near"),
    [(["train"], "run"), (["sweep"], "tune"), (["reprt"], "report"), (["data", "chek"], "check"), (["ls"], "list")],
)
def test_the_nearest_command_is_named(words: list[str], near: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert f"did you mean {near}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("run --model toy_vit", "--backbone"),
        ("run --output folder", "--results"),
        ("predict --model toy_vit", "--backbone"),
        ("run --method lora", "--methods"),
        ("verify --output folder", "--results"),
    ],
)
def test_the_option_of_other_programs_is_named(words: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    assert f"did you mean {near}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("lora,ssf", ["lora", "ssf"]),
        ("lora(rank=4,alpha=8),ssf", ["lora(rank=4,alpha=8)", "ssf"]),
        ("hf(config={'a': (1, 2), 'b': [3, 4]}, x=1),lora", ["hf(config={'a': (1, 2), 'b': [3, 4]}, x=1)", "lora"]),
        ("aoft_lora(sites='qv,fc1')", ["aoft_lora(sites='qv,fc1')"]),
        ("lora, ssf,", ["lora", "ssf"]),
        ("", [""]),
        (",", [","]),
    ],
)
def test_lists_split_at_commas_outside_brackets(text: str, parts: list[str]) -> None:
    assert split_list(text) == parts


def test_lists_take_commas_and_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = parser().parse_args([*RUN, "lora(rank=4,alpha=8),ssf", "linear", "--seeds", "0,1", "2", "--tasks", "a,b"])
    assert given.methods == ["lora(rank=4,alpha=8)", "ssf", "linear"]
    assert given.seeds == [0, 1, 2]
    assert given.tasks == ["a", "b"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my,task").mkdir()
    tasks = parser().parse_args([*RUN, "lora", "--tasks", "my,task", "./x,y", "imagefolder:my,task"]).tasks
    assert tasks == ["my,task", "./x,y", "imagefolder:my,task"]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_title_means_its_method(name: str) -> None:
    title = METHODS[name].title
    if title and not METHODS[name].stands_for_many:
        assert parse(title).spec() == parse(title.upper()).spec() == parse(name).spec()


def test_titles_take_arguments_and_near_titles_are_named() -> None:
    assert parse("LoRA(rank=4)").spec() == parse("lora(rank=4)").spec()
    with pytest.raises(ValueError, match="did you mean lora") as refused:
        parse("lorra")
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vit_tiny", "vit_tiny_patch16_224.augreg_in21k"),
        ("dinov2_vits14", "vit_small_patch14_dinov2.lvd142m"),
        ("ViT-B/16", "vit_base_patch16_224"),
        ("vit_base_patch16_224.augreg_in21", "vit_base_patch16_224.augreg_in21k"),
    ],
)
def test_nearest_backbones_are_named(name: str, near: str) -> None:
    found = nearest_backbones(name, names())
    assert 1 <= len(found) <= 3
    assert any(one.startswith(near) for one in found)
    with pytest.raises(BackboneError, match=near):
        load(name)
    assert nearest_backbones("qqqq", names()) == []


def test_backbones_that_begin_as_typed_come_first() -> None:
    known = [
        "vit_pe_core_tiny_patch16_384.fb",
        "vit_tiny_r_s16_p8_224.augreg_in21k",
        "vit_tiny_patch16_224.augreg_in21k",
    ]
    assert nearest_backbones("vit_tiny", known) == [known[2], known[1]]


def test_one_method_has_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("lora", "LoRA"):
        assert main(["list", "methods", name]) == 0
        page = capsys.readouterr().out
        assert page.startswith("## lora")
        assert "Parameters" in page
        assert "## ssf" not in page
    assert main(["list", "methods", "lorra"]) == 2
    assert "did you mean lora" in capsys.readouterr().err
    assert main(["list", "recipes", "toy"]) == 0
    assert "smoke:" not in capsys.readouterr().out


def test_data_check_takes_folders_by_position(
    make_task: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", "--deep", str(make_task())]) in (0, 1)
    assert "own/colours" in capsys.readouterr().out
    assert main(["data", "status", str(make_task("other"))]) == 0
    assert "own/other" in capsys.readouterr().out


@pytest.mark.slow
def test_smoke_leaves_runs_page_and_figures(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    monkeypatch.setattr("vtab_peft.benchmark.commands.smoke.METHODS", ("linear",))
    monkeypatch.setattr("vtab_peft.benchmark.commands.smoke.SEEDS", (0,))
    task = folder_task(make_task())
    monkeypatch.setattr("vtab_peft.benchmark.commands.smoke.find", lambda *_: [task])
    results = tmp_path / "my-results"
    for _ in range(2):
        assert main(["smoke", "--results", str(results), "--set", "probe_epochs=2"]) == 0
        assert str(results / "index.html") in capsys.readouterr().out
        assert (results / "index.html").exists()
        assert list(results.rglob("*.svg"))
        assert len(list((results / "runs").rglob("*.json"))) == 1, "stored runs are not repeated"


def test_shell_completion_knows_the_commands() -> None:
    if find_spec("shtab") is None:
        pytest.skip("shtab is not installed")
    command = [sys.executable, "-m", "shtab", "--shell=bash", "--prog=vtab-peft", "vtab_peft.benchmark.cli.parser"]
    script = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "check-method" in script
    assert "--limit-test" in script
