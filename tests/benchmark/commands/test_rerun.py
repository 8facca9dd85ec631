"""`rerun`: a run is repeated from its record alone, and the accuracies are compared."""

import json
import shlex
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from in_process import LOCAL_BACKEND
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands.rerun import exact, numerics_of, verdict
from vtab_peft.benchmark.storage.store import Store


def record(accuracy: float = 0.5, sha: str = "aa", **numerics: Any) -> Any:
    """Return the fields of a `Run` that the comparison reads."""
    origin = {"cpu": "EPYC", "threads": 1, "engine": "eager", **numerics}
    return SimpleNamespace(
        predictions_sha256=sha,
        accuracy=accuracy,
        loss_curve=[1.0, 0.5],
        provenance={"device": "EPYC", "numerics": origin, "versions": {"torch": "2.9", "vtab-peft": "0.1"}},
    )


def test_equal_bits_agree_under_any_conditions() -> None:
    agrees, text = verdict(record(), record(threads=8), 500)
    assert agrees
    assert text.startswith("bit-identical")


def test_other_bits_under_equal_conditions_disagree() -> None:
    agrees, text = verdict(record(), record(sha="bb"), 500)
    assert not agrees
    assert "DIFFERS" in text


@pytest.mark.parametrize(("off", "agrees"), [(0.99, True), (1.01, False)])
def test_tolerance_is_four_standard_errors(off: float, agrees: bool) -> None:
    """0.8 on 400 images: the standard error is sqrt(0.8 * 0.2 / 400) = 0.02."""
    before, now = record(0.8), record(0.8 - off * 4 * 0.02, "bb", threads=8)
    found, text = verdict(before, now, 400)
    assert found is agrees
    assert "8.00 points" in text


def test_perfect_accuracy_may_lose_one_image() -> None:
    assert verdict(record(1.0), record(1 - 1 / 400, "bb", threads=8), 400)[0]
    assert verdict(record(1.0), record(0.998, "bb", threads=8), 500)[0]
    assert not verdict(record(1.0), record(1 - 2 / 400, "bb", threads=8), 400)[0]


def test_run_of_a_plugin_needs_its_file(
    store: Store, fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, lambda *_: SimpleNamespace(close=lambda: None))
    spec = fake.spec(method="mine", plugin="ab" * 32)
    store.save_failure(spec, "out of memory", "")
    assert main(["rerun", spec.run_id(), "--results", str(store.root)]) == 2
    err = capsys.readouterr().err
    assert all(fact in err for fact in ("mine", "abababababab", "--plugin"))


def test_all_that_is_missing_is_named_at_once(
    store: Store, fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, lambda *_: SimpleNamespace(close=lambda: None))
    files = [("mine.py", "ab" * 32, False), ("vit.py", "cd" * 32, True)]
    record = fake.record()
    record["provenance"]["plugins"] = [{"file": f, "sha256": sha, "backbone": of} for f, sha, of in files]
    spec = fake.spec("pets", "mine", plugin="ab" * 32)
    store.save(spec, record, np.zeros(4, dtype=np.int16))
    again = ["rerun", spec.run_id(), "--results", str(store.root)]
    assert main(again) == 2
    err = capsys.readouterr().err
    assert all(fact in err for fact in ("abababababab", "vit.py", "--plugin", "own/pets", "--data"))
    assert main([*again, "--data", str(store.root)]) == 2
    err = capsys.readouterr().err
    assert "--plugin" in err
    assert "--data FOLDER" not in err


def test_the_stored_command_is_quoted_for_a_shell(
    store: Store, fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, lambda *_: SimpleNamespace(close=lambda: None))
    command = ["vtab-peft", "run", "--tasks", "my pictures", "--methods", "mine(rank=2)"]
    record = fake.record()
    record["provenance"]["argv"] = command
    spec = fake.spec(method="mine", plugin="ab" * 32)
    store.save(spec, record, np.zeros(4, dtype=np.int16))
    assert main(["rerun", spec.run_id(), "--results", str(store.root)]) == 2
    shown = capsys.readouterr().err.rpartition("the stored command is: ")[2]
    assert shlex.split(shown) == command


def changed(part: str, name: str, value: Any) -> Any:
    other = deepcopy(record())
    place = other.provenance if part == "provenance" else other.provenance[part]
    place[name] = value
    return other


@pytest.mark.parametrize(
    ("now", "same"),
    [
        (record(), True),
        (changed("numerics", "checkpointing", False), True),  # missing in older records
        (changed("versions", "vtab-peft", "0.2"), False),  # the suite has arithmetic too
        (changed("versions", "torch", "2.10"), False),
        (changed("numerics", "threads", 2), False),
        (changed("numerics", "engine", "compiled"), False),
        (changed("provenance", "device", "NVIDIA H100"), False),
    ],
)
def test_conditions_for_equal_bits(now: Any, same: bool) -> None:
    assert exact(record(), now) is same


def test_gpu_guarantees_no_bits() -> None:
    gpu = changed("provenance", "device", "NVIDIA H100")
    assert not exact(gpu, gpu)


def test_numerics_are_those_of_the_record() -> None:
    assert numerics_of(record(threads=3).provenance, None).threads == 3
    assert numerics_of(record(engine="graphs").provenance, 2).engine == "graphs"
    assert numerics_of(record(threads=3).provenance, 2).threads == 2


def test_unknown_run_id_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run_id in ("0123456789abcdef", "../../x", ""):
        assert main(["rerun", run_id, "--results", str(tmp_path)]) == 2
        assert repr(run_id) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ambiguous_run_id_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for prefix, folder in (("abcd", "runs/toy_vit/own/colours/lora"), ("abef", "failed")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{prefix * 4}.json").write_text("{}")
    assert main(["rerun", "ab", "--results", str(tmp_path)]) != 0
    said = capsys.readouterr().err
    assert "abcdabcdabcdabcd  toy_vit · own · colours · lora" in said


@pytest.mark.slow
def test_run_is_repeated_from_its_record(
    make_task: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, results = make_task(), tmp_path / "results"
    base = ["--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--results", str(results)]
    ask = ["run", *base, "--tasks", str(task), "--methods", "lora(rank=2)", "--seeds", "3", "--threads", "1"]
    assert main(ask) == 0
    (path,) = (results / "runs").rglob("*.json")
    again = ["rerun", path.stem[:6], "--results", str(results)]

    assert main([*again, "--weights", "random"]) == 2
    said = capsys.readouterr().err
    assert "own/colours" in said
    assert "--data" in said
    assert "lora(rank=2)" in said, "the command of the stored run"
    assert main([*again, "--data", str(task)]) == 2
    assert "--weights" in capsys.readouterr().err
    other = make_task("other", seed=1)
    assert main([*again, "--data", str(other), "--weights", "random"]) == 2
    assert "own/other" in capsys.readouterr().err

    for folder in (task, task.parent):
        assert main([*again, "--data", str(folder), "--weights", "random"]) == 0
        assert f"{path.stem}: bit-identical" in capsys.readouterr().out
    records = [json.loads(file.read_text()) for file in Store(results).root.rglob("*.json") if "runs" in file.parts]
    assert len(records) == 3
    assert {record["predictions_sha256"] for record in records} == {records[0]["predictions_sha256"]}
    assert {record["provenance"]["numerics"]["threads"] for record in records} == {1}
    assert main(["verify", "--results", str(results)]) == 0, "the report is rebuilt"
