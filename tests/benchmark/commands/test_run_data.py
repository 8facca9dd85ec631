"""Tests of what `run`, `rerun` and `verify` do about wrong folders, odd labels and damaged caches."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from in_process import LOCAL_BACKEND, InProcessBackend
from PIL import Image
from vtab_peft.benchmark.cli import main
from vtab_peft.datasets.cache import default_root

BASE = ["--backbone", "toy_vit", "--recipe", "smoke", "--methods", "linear", "--seeds", "0", "--threads", "1"]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)


def command(task: Path, results: Path) -> list[str]:
    return ["run", *BASE, "--tasks", str(task), "--results", str(results)]


def record(results: Path) -> dict:
    path = max((results / "runs").rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", ["run", "tune"])
def test_plans_check_folders_before_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, None)
    options = ["--suite", "vtab1k", "--data", str(tmp_path / "absent"), "--methods", "linear", "--backbone", "toy_vit"]
    assert main([name, *options, "--dry-run", "--results", str(tmp_path / "results")]) == 1
    assert str(tmp_path / "absent" / "caltech101") in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("in_this_process")
def test_label_warnings_are_printed_once_and_stored(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, results = make_task(), tmp_path / "results"
    (task / "classes.txt").unlink(missing_ok=True)
    for path in task.glob("*.txt"):
        lines = [line.rsplit(maxsplit=1) for line in path.read_text().splitlines()]
        path.write_text("".join(f"{file} {int(label) + 1}\n" for file, label in lines))
    assert main(command(task, results)) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning: " in line]
    assert ["labels are 1 to" in line for line in warnings] == [True]
    (stored,) = record(results)["facts"]["data_warnings"]
    assert stored in warnings[0]


@pytest.mark.usefixtures("in_this_process")
def test_zeroed_caches_are_found_and_repaired(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, results = make_task(), tmp_path / "results"
    assert main(command(task, results)) == 0
    before = record(results)
    assert main(["verify", "--results", str(results)]) == 0
    arrays = sorted((default_root() / "images").iterdir())
    contents = [path.read_bytes() for path in arrays]
    for path in arrays:
        np.save(path, np.zeros_like(np.load(path)))
    capsys.readouterr()
    assert main(["verify", "--results", str(results)]) == 1
    said = capsys.readouterr().out
    assert all(str(path) in said for path in arrays)
    assert main([*command(task, results), "--repeat"]) == 0
    said = capsys.readouterr().err
    assert all(str(path) in said for path in arrays)
    assert [path.read_bytes() for path in arrays] == contents
    assert record(results)["predictions_sha256"] == before["predictions_sha256"]
    assert main(["verify", "--results", str(results)]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_runs_on_class_folders_are_repeated_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(tmp_path / "cache"))
    rng, results = np.random.default_rng(0), tmp_path / "results"
    for name in ("one", "two"):
        (tmp_path / "shapes" / name).mkdir(parents=True)
        for number in range(10):
            picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            picture.save(tmp_path / "shapes" / name / f"{number}.png")
    folder = f"imagefolder:{tmp_path / 'shapes'}"
    assert main(["run", *BASE, "--tasks", folder, "--results", str(results)]) == 0
    key, spec = record(results)["key"], record(results)["spec"]
    assert (spec["task"]["suite"], spec["task"]["name"]) == ("own", "shapes")
    assert main(["rerun", key, "--data", folder, "--results", str(results)]) == 0
    assert "bit-identical" in capsys.readouterr().out
