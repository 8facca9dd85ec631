"""Bad input is refused with the fact that is wrong, before anything is loaded, decoded or written."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from asking import BASE, command
from in_process import LOCAL_BACKEND
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands import run as sweep
from vtab_peft.datasets.cache import Preprocessing
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.task import DataError


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["--methods", "lorra"], "lora"),
        pytest.param(
            *(["--methods", "lora", "--backbone", "vit_base_patch16_224_in21k"], "vit_base_patch16_224_in21k"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(["--methods", "lora", "--weights", "absent.safetensors"], "absent.safetensors"), marks=pytest.mark.slow
        ),
        pytest.param(*(["--methods", "vpt_deep(dropout=1.5)"], "dropout"), marks=pytest.mark.slow),
        (["--methods", "lora", "apla(rank=129)"], "apla(rank=129) does not fit toy_vit"),
        pytest.param(*(["--methods", "consolidator(group_width=129)"], "group_width=129"), marks=pytest.mark.slow),
        (["--methods", "lora", "--tasks", "cifar"], "--suite vtab1k"),
        (["--methods", "lora", "--suite", "vtab1k", "--tasks", "cifr", "--data", "."], "cifar"),
        (["--methods", "lora", "--suite", "vtab1k", "--tasks", "cifar"], "--data"),
        (["--methods", "lora", "--suite", "vtab1k", "--tasks", "cifar", "--data", "absent"], "absent/cifar"),
        (["--methods", "lora", "--suite", "vtab2k", "--tasks", "all"], "vtab2k"),
        (["--methods", "lora", "--threads", "100000"], "1,024"),
    ],
)
def test_bad_input_is_refused_without_a_traceback(
    arguments: list[str], fact: str, make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert main([*command(make_task(), results), *arguments]) in (1, 2)
    err = capsys.readouterr().err
    assert fact in err
    assert "Traceback" not in err
    assert not results.exists()


@pytest.mark.parametrize("name", ["run", "tune"])
def test_missing_folders_are_named_before_a_worker_starts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker would first try to download weights."""
    monkeypatch.setattr(LOCAL_BACKEND, lambda *_: pytest.fail("a worker was started"))
    ask = [name, "--suite", "vtab1k", "--data", str(tmp_path), "--methods", "lora", "--backbone", "vit"]
    assert main([*ask, "--results", str(tmp_path / "results")]) == 1
    err = capsys.readouterr().err
    assert str(tmp_path / "cifar") in err
    assert "16 more" in err


def test_every_bad_task_is_named_before_decoding(
    make_task: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [folder_task(make_task(name)) for name in ("good", "bad", "worse")]
    for task in tasks[1:]:
        assert task.folder is not None
        (task.folder / "images" / "test_0.png").unlink()
    monkeypatch.setitem(os.environ, "VTAB_PEFT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"(?s)own/bad .*own/worse "):
        sweep.cached_tasks(tasks, Preprocessing(32, "bicubic"))
    assert not (tmp_path / "cache").exists()


def test_file_as_results_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        main([*BASE, "--methods", "lora", "--results", str(tmp_path / "file")])
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--results", "--tasks", "--methods"])
def test_names_too_long_for_a_file_are_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, None)
    ask = {"--results": str(tmp_path), "--tasks": str(tmp_path), "--methods": "linear", "--backbone": "toy_vit"}
    words = [word for pair in {**ask, option: "a" * 5000}.items() for word in pair]
    try:
        status = main(["run", *words])
    except SystemExit as ended:
        status = ended.code
    assert status in (1, 2)
    assert "aaa" in capsys.readouterr().err or option == "--methods"


def test_too_large_seed_names_the_largest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*BASE, "--methods", "lora", "--seeds", "9" * 20])
    assert "2147483647" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--seeds", "-1"], ["--threads", "0"], ["--max-minutes", "nan"], ["--recipe", "x"]])
def test_parser_refuses_invalid_values(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*BASE, "--methods", "lora", *option])
    assert stop.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_abbreviated_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Old records are searched for the full option names."""
    with pytest.raises(SystemExit, match="2"):
        main([*BASE, "--methods", "lora", "--work", "2"])
    assert "option --work (did you mean --workers?)" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["data", "cache", "--prune", "--dry"])
    assert "--dry" in capsys.readouterr().err


def test_nearest_choice_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    for words, near in ((["reprt"], "report"), (["run", "--recipe", "unifrm"], "uniform"), (["list", "task"], "tasks")):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert f"did you mean {near}" in capsys.readouterr().err


def test_terminal_without_a_character_shows_its_code() -> None:
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    code = "import sys; from vtab_peft.benchmark.cli import main; sys.exit(main(['published', 'äöü']))"
    done = subprocess.run([sys.executable, "-c", code], env=ascii_only, capture_output=True, text=True)
    assert done.returncode == 2
    assert r"\xe4\xf6\xfc" in done.stderr
    assert "Traceback" not in done.stderr
