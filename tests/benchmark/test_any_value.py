"""Any value in place of any field of a file: the file is refused by field and reason, or read; no command fails."""

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from costs import make_cost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import JUNK, adapter_places, mutated, mutated_adapter, paths_in, renamed
from PIL import Image
from shifts import make_shift
from vtab_peft.benchmark.checkpoints.header import read_intact
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands.regression_gate import BaselineError, read_baseline
from vtab_peft.benchmark.execution.locks import RunLock, list_locks
from vtab_peft.benchmark.storage.costs import load_cost, save_cost
from vtab_peft.benchmark.storage.json_io import StoreError
from vtab_peft.benchmark.storage.shifts import load_shift, save_shift
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.reading import InvalidFile


@dataclass
class Folder:
    """A results folder with one file of each kind, and a copy to restore it from."""

    store: Store
    files: dict[str, Path]
    pictures: Path

    def restore(self) -> None:
        shutil.rmtree(self.store.root)
        shutil.copytree(self.store.root.with_name("valid"), self.store.root)

    def places(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Return every field of every file."""
        found = []
        for kind, path in self.files.items():
            places = adapter_places(path.read_bytes()) if kind == "adapter" else paths_in(json.loads(path.read_text()))
            found += [(kind, place) for place in places]
        return found

    def spoil(self, kind: str, place: tuple[Any, ...], junk: str) -> Path:
        """Replace a value, and return the path of the changed file."""
        path = self.files[kind]
        if kind == "adapter":
            path.write_bytes(mutated_adapter(path.read_bytes(), place, junk))
            return path
        text = mutated(path.read_text(), place, junk)
        if kind in ("record", "failure"):
            return renamed(path, text)
        path.write_text(text)
        return path

    def commands(self) -> list[list[str]]:
        """Return commands that read the files."""
        results, adapter = ["--results", str(self.store.root)], str(self.files["adapter"])
        model = ["--weights", "random", *results]
        runs = [
            "--suite",
            "toy",
            "--backbone",
            "toy_vit",
            "--methods",
            "lora",
            "--recipe",
            "smoke",
            "--weights",
            "random",
        ]
        return [
            *(["report", *results], ["status", *results], ["verify", *results]),
            ["run", *runs, "--dry-run", *results],
            ["export", adapter, "--as", "adapter", "--output", str(self.store.root / "out"), *model],
            ["predict", str(self.pictures), "--adapter", adapter, *model],
            ["smoke", "--baseline", str(self.files["baseline"])],
        ]


@pytest.fixture
def folder(
    store: Store, put: Any, fake: Any, make_trained: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Folder:
    put("flowers", "lora", 1, 0.5)
    record = fake.record(0.5) | {"provenance": {"device": "cpu", "numerics": {"threads": 1, "eval_batch": None}}}
    record["provenance"] |= {"created": "now", "argv": ["run"], "versions": {"torch": "2"}, "git_sha": None}
    record["facts"] |= {"tuning": {"val_key": "0" * 16, "configurations": 3}, "test_images": 10}
    record["result"] |= {"per_class_accuracy": [0.5, None] * 5, "loss_curve": [1.0, 0.5, 0.25]}
    spec = fake.spec(seed=2)
    path = store.save(spec, record, np.zeros(10, int))
    failure = store.save_failure(fake.spec(seed=3), "a reason", "a traceback", "ValueError")
    (store.root / "claims").mkdir()
    lock = store.root / "claims" / f"{'a' * 16}.json"
    lock.write_bytes(RunLock("flowers · lora", "elsewhere", 1, 0.0).to_json())
    cell = make_trained("lora")
    adapter = store.root / "adapters" / "adapter.safetensors"
    adapter.parent.mkdir()
    checkpoint = replace(cell.checkpoint, classes=list("abcde"))
    stored = store.save(checkpoint.spec, record, np.zeros(10, int))
    adapter.write_bytes(checkpoint.to_bytes(json.loads(stored.read_text())))
    baseline = store.root / "baseline.json"
    methods = {"lora": {"parameters": 10, "accuracy": {"toy": [0.1, 0.9]}}}
    baseline.write_text(json.dumps({"format": 1, "conditions": {"recipe": ["smoke"]}, "methods": methods}))
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "in" / "x.png")
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(tmp_path / "cache"))
    cost = save_cost(store.root, make_cost(spec))
    run = store.load(path)
    shift = save_shift(store.root, make_shift(run.run_id, run.predictions_sha256))
    shutil.copytree(store.root, store.root.with_name("valid"))
    files = {"record": path, "failure": failure, "lock": lock, "adapter": adapter, "baseline": baseline, "cost": cost}
    files["shift"] = shift
    return Folder(store, files, tmp_path / "in")


READERS: dict[str, Callable[[Store, Path], Any]] = {
    "record": lambda store, path: store.load(path),
    "failure": lambda store, path: store.load_failure_at(path),
    "adapter": lambda _, path: read_intact(path),
    "baseline": lambda _, path: read_baseline(path),
    "cost": lambda _, path: load_cost(path),
    "shift": lambda _, path: load_shift(path),
}


@pytest.mark.parametrize("kind", [*READERS, "lock"])
def test_readers_name_file_and_field(kind: str, folder: Folder) -> None:
    """Every field is replaced by one value; slow tests replace each by all."""
    for number, (own, place) in enumerate(folder.places()):
        if own == kind:
            _read(folder, kind, place, JUNK[number % len(JUNK)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*READERS, "lock"])
def test_readers_name_file_and_field_for_all(kind: str, folder: Folder) -> None:
    for own, place in folder.places():
        for junk in JUNK if own == kind else ():
            _read(folder, kind, place, junk)


def _read(folder: Folder, kind: str, place: tuple[Any, ...], junk: str) -> None:
    before = folder.files[kind].read_bytes()
    path = folder.spoil(kind, place, junk)
    if kind == "lock":
        found, problems = list_locks(path.parent)
        assert len(found) + len(problems) == 1
        assert all(str(path) in problem for problem in problems)
    else:
        told = str(path)
        try:
            READERS[kind](folder.store, path)
        except (InvalidFile, StoreError, BaselineError) as error:
            told = str(error)
        assert str(path) in told
        assert len(told) < 6000
    path.unlink()
    folder.files[kind].write_bytes(before)


@pytest.mark.parametrize("examples", [pytest.param(3, id="few"), pytest.param(40, id="many", marks=pytest.mark.slow)])
def test_commands_survive_any_value(
    examples: int, folder: Folder, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    places = folder.places()

    @settings(
        deadline=None,
        derandomize=True,
        database=None,
        max_examples=examples,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(places), st.sampled_from(JUNK), st.sampled_from(range(len(folder.commands()))))
    def holds(where: tuple[str, tuple[Any, ...]], junk: str, number: int) -> None:
        folder.restore()
        folder.spoil(*where, junk)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                status = main(folder.commands()[number])
            except SystemExit as end:
                status = end.code
        assert status in (0, 1, 2)
        assert "Traceback" not in capsys.readouterr().err
        assert not list(folder.store.root.parent.rglob(".tmp-*"))

    holds()
