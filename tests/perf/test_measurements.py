"""Test on a CPU that the GPU targets of make and the scripts of perf/ run, and store what they measure."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aoft_products
import compare
import profile_step
import pytest
import roofline
import torch
import vmap_runs
from vtab_peft.benchmark.cli import parser
from vtab_peft.benchmark.engine.backbone import Backbone, load
from vtab_peft.benchmark.engine.live_model import LiveModel
from vtab_peft.benchmark.engine.numerics import Numerics

ROOT = Path(__file__).parents[2]
TARGETS = ("gpu-check", "gpu-speed", "gpu-compare", "gpu-profile", "gpu-streams")


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """`made(target)` lets make call a stand-in for Python; returns the PYTHONPATH and the words of each call."""

    def calls(target: str) -> list[tuple[str, list[str]]]:
        log, python = tmp_path / "calls", tmp_path / "python"
        asked = f'[ "$1" != -c ] || exec "{sys.executable}" "$@"'  # for its version
        python.write_text(f'#!/bin/sh\n{asked}\necho "$PYTHONPATH $*" >>"{log}"\n')
        python.chmod(0o755)
        environment = {**os.environ, "PYTHONPATH": "carried"}
        subprocess.run(["make", "-C", str(ROOT), target, f"PYTHON={python}"], check=True, env=environment)
        found = [line.split() for line in log.read_text().splitlines()]
        return [(words[0], words[1:]) for words in found]

    return calls


@pytest.mark.parametrize("target", TARGETS)
def test_make_calls_scripts_with_options_that_they_have(target: str, made: Any) -> None:
    for path, (script, *words) in made(target):
        assert path.split(":")[1:] == ["carried"], "packages beside those of Python are found"
        if script == "-m":
            assert words[0] == "pytest"
            assert all((ROOT / word).exists() for word in words if "/" in word)
        elif script == "run_benchmark.py":
            parser().parse_args(words)
        else:
            source = (ROOT / script).read_text(encoding="utf-8")
            assert all(f'"{word}"' in source for word in words if word.startswith("--")), words


def test_a_profile_is_taken_of_the_engines_own_loop(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(profile_step.STEPS, "cpu", 1)
    row = profile_step.shares("lora", backbone, 2, LiveModel(torch.device("cpu"), Numerics(1)))
    assert row["ms_per_step"] > 0
    assert sum(row["shares"].values()) == pytest.approx(1)
    assert row["shares"]["matrix products"] > 0


@pytest.fixture
def backbone() -> Backbone:
    return load("toy_vit", "random")


class Cut(Exception):
    """Ends a measurement, as a time limit does."""


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return a list of what the scripts store, in order."""
    found: list[dict[str, Any]] = []
    for script in (aoft_products, roofline, vmap_runs):
        monkeypatch.setattr(script, "save", lambda _, row, *__, **___: found.append(row))
        monkeypatch.setattr(script.torch, "set_num_threads", lambda _: None)
    return found


def cut_after(calls: int, result: Any) -> Any:
    """Return a stand-in for a measurement that is cut off after some calls."""
    left = iter(range(calls))

    def measured(*_: Any) -> Any:
        if next(left, None) is None:
            raise Cut
        return result

    return measured


def test_rows_are_stored_as_they_are_measured(stored: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["script"])
    monkeypatch.setattr(aoft_products, "milliseconds", cut_after(2, 1.0))
    with pytest.raises(Cut):
        aoft_products.main()
    assert len(stored.pop()["rows"]) == 1

    monkeypatch.setattr(vmap_runs, "load", lambda *_: None)
    monkeypatch.setattr(vmap_runs, "measure", cut_after(1, {"images_per_second": {}, "gain": 1.0}))
    with pytest.raises(Cut):
        vmap_runs.main()
    assert len(stored.pop()["rows"]) == 1

    monkeypatch.setattr(roofline, "product", lambda *_: 1e12)
    monkeypatch.setattr(roofline, "attention", cut_after(1, {"fused": 1.0}))
    with pytest.raises(Cut):
        roofline.main()
    kept = stored.pop()
    assert kept["attention_seconds"]["fp32"] == {"fused": 1.0}
    assert len(kept["products"]) == len(roofline.SHAPES["cpu"])


def test_a_loop_that_fails_tells_why(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "HERE", Path("nowhere"))
    options = SimpleNamespace(recipe="uniform", backbone="b", epochs=1, threads=1, workers=0, weights="random")
    with pytest.raises(subprocess.CalledProcessError):
        compare.peer(options, "lora", Path("folder"), "fp32")
    assert "peer_loop.py" in capfd.readouterr().err
