"""What is refused, and in which words: before anything is loaded, decoded or written."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from asking import BASE, command
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands import run as sweep
from vtab_peft.datasets.cache import Preprocessing
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.task import DataError


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--methods", "lorra"], "did you mean lora"),
        (["--methods", "lora", "--backbone", "vit_base_patch16_224_in21k"], "ambiguous"),
        (["--methods", "lora", "--weights", "absent.safetensors"], "no weights at absent.safetensors"),
        (["--methods", "lora", "--tasks", "cifar"], "say `--suite vtab1k`"),
        (["--methods", "lora", "--suite", "vtab1k", "--tasks", "cifr", "--data", "."], "did you mean cifar"),
        (["--methods", "lora", "--suite", "vtab1k", "--tasks", "cifar"], "say `--data FOLDER`"),
        (["--methods", "lora", "--suite", "vtab1k", "--tasks", "cifar", "--data", "absent"], "absent/cifar"),
        (["--methods", "lora", "--suite", "vtab2k", "--tasks", "all"], "no suite"),
    ],
)
def test_bad_input_is_answered_in_one_message(
    arguments: list[str], says: str, make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert main([*command(make_task(), results), *arguments]) in (1, 2)
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert not results.exists()


@pytest.mark.parametrize("verb", ["run", "tune"])
def test_folders_that_are_not_there_are_named_before_a_worker_is_started(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker would ask the hub for weights first, and try again for half a minute."""
    monkeypatch.setattr(sweep, "WorkerProcess", lambda *_: pytest.fail("a worker was started"))
    ask = [verb, "--suite", "vtab1k", "--data", str(tmp_path), "--methods", "lora", "--backbone", "vit"]
    assert main([*ask, "--results", str(tmp_path / "results")]) == 1
    assert f"there is no folder {tmp_path / 'cifar'}, " in (said := capsys.readouterr().err)
    assert "and 16 more" in said


def test_all_tasks_that_cannot_be_used_are_named_before_any_is_decoded(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [folder_task(make_task(name)) for name in ("good", "bad", "worse")]
    for task in tasks[1:]:
        assert task.folder is not None
        (task.folder / "images" / "test_0.png").unlink()
    monkeypatch.setitem(os.environ, "VTAB_PEFT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"(?s)own/bad cannot be used:.*own/worse cannot be used:"):
        sweep.cached_tasks(tasks, Preprocessing(32, "bicubic"))
    assert not (tmp_path / "cache").exists()


def test_a_file_is_no_results_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        main([*BASE, "--methods", "lora", "--results", str(tmp_path / "file")])
    assert "file is a file; give a folder" in capsys.readouterr().err


def test_a_seed_that_is_too_large_is_told_the_largest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*BASE, "--methods", "lora", "--seeds", "9" * 20])
    assert "is not a whole number from 0 to 2147483647" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--seeds", "-1"], ["--threads", "0"], ["--max-minutes", "nan"], ["--recipe", "x"]])
def test_nonsense_options_are_refused_by_the_parser(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*BASE, "--methods", "lora", *option])
    assert stop.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_an_abbreviated_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A record's command would not say that cells shared their device."""
    with pytest.raises(SystemExit, match="2"):
        main([*BASE, "--methods", "lora", "--work", "2"])
    assert "unrecognized arguments: --work 2" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["data", "cache", "--prune", "--dry"])
    assert "unrecognized arguments: --dry" in capsys.readouterr().err


def test_a_choice_that_is_nearly_right_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    for words, near in ((["reprt"], "report"), (["run", "--recipe", "unifrm"], "uniform"), (["list", "task"], "tasks")):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert f"(did you mean {near}" in capsys.readouterr().err


def test_a_terminal_without_a_character_shows_its_number() -> None:
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    code = "import sys; from vtab_peft.benchmark.cli import main; sys.exit(main(['published', 'äöü']))"
    done = subprocess.run([sys.executable, "-c", code], env=ascii_only, capture_output=True, text=True)
    assert done.returncode == 2
    assert r"\xe4\xf6\xfc" in done.stderr
    assert "Traceback" not in done.stderr
