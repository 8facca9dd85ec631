"""`rerun`: a result is repeated from its record alone, and what makes the numbers agree is judged by rule."""

import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands import rerun as rerunning
from vtab_peft.benchmark.commands.rerun import exact, numerics_of, verdict
from vtab_peft.benchmark.storage.store import Store


def record(accuracy: float = 0.5, sha: str = "aa", **numerics: Any) -> dict[str, Any]:
    origin = {"cpu": "EPYC", "threads": 1, "engine": "eager", **numerics}
    return {
        "predictions_sha256": sha,
        "result": {"accuracy": accuracy, "loss_curve": [1.0, 0.5]},
        "provenance": {"device": "EPYC", "numerics": origin, "versions": {"torch": "2.9", "vtab-peft": "0.1"}},
    }


def test_the_same_bits_agree_wherever_they_were_made() -> None:
    agrees, text = verdict(record(), record(threads=8), 500)
    assert agrees
    assert text.startswith("bit-identical")


def test_other_bits_under_the_same_conditions_do_not_agree_however_close() -> None:
    agrees, text = verdict(record(), record(sha="bb"), 500)
    assert not agrees
    assert "where it should not" in text


@pytest.mark.parametrize(("off", "agrees"), [(0.99, True), (1.01, False)])
def test_elsewhere_accuracies_agree_within_four_standard_errors(off: float, agrees: bool) -> None:
    """0.8 on 400 images: the standard error is sqrt(0.8 * 0.2 / 400) = 0.02."""
    before, now = record(0.8), record(0.8 - off * 4 * 0.02, "bb", threads=8)
    found, text = verdict(before, now, 400)
    assert found is agrees
    assert "8.00 points" in text


def test_a_perfect_accuracy_may_lose_one_image() -> None:
    assert verdict(record(1.0), record(1 - 1 / 400, "bb", threads=8), 400)[0]
    assert not verdict(record(1.0), record(1 - 2 / 400, "bb", threads=8), 400)[0]


def test_a_result_of_a_plug_in_asks_for_its_file(
    store: Store, fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rerunning, "WorkerProcess", lambda *_: SimpleNamespace(stop=lambda: None))
    spec = fake.spec(method="mine", plugin="ab" * 32)
    store.put_failure(spec, "out of memory", "")
    assert main(["rerun", spec.run_id(), "--results", str(store.root)]) == 2
    assert "mine came from a plug-in file (abababababab): give it as --plugin FILE" in capsys.readouterr().err


def changed(part: str, name: str, value: Any) -> dict[str, Any]:
    other = deepcopy(record())
    place = other["provenance"] if part == "provenance" else other["provenance"][part]
    place[name] = value
    return other


@pytest.mark.parametrize(
    ("now", "same"),
    [
        (record(), True),
        (changed("numerics", "checkpointing", False), True),  # older records say nothing of it
        (changed("versions", "vtab-peft", "0.2"), False),  # its arithmetic is its own
        (changed("versions", "torch", "2.10"), False),
        (changed("numerics", "threads", 2), False),
        (changed("numerics", "engine", "compiled"), False),
        (changed("provenance", "device", "NVIDIA H100"), False),
    ],
)
def test_conditions_are_the_same_or_not(now: dict[str, Any], same: bool) -> None:
    assert exact(record(), now) is same


def test_a_gpu_promises_no_bits() -> None:
    gpu = changed("provenance", "device", "NVIDIA H100")
    assert not exact(gpu, gpu)


def test_it_is_computed_as_recorded_unless_threads_are_given() -> None:
    assert numerics_of(record(threads=3), None).threads == 3
    assert numerics_of(record(engine="graphs"), 2).engine == "graphs"
    assert numerics_of(record(threads=3), 2).threads == 2


def test_an_unknown_key_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("0123456789abcdef", "../../x", ""):
        assert main(["rerun", key, "--results", str(tmp_path)]) == 2
        assert f"no result {key!r}" in capsys.readouterr().err
    assert math.isclose(sum(1 for _ in tmp_path.iterdir()), 0)


def test_a_beginning_that_several_cells_share_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key, folder in (("abcd", "runs/toy_vit/own/colours/lora"), ("abef", "failed")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{key * 4}.json").write_text("{}")
    assert main(["rerun", "ab", "--results", str(tmp_path)]) != 0
    said = capsys.readouterr().err
    assert "2 cells" in said
    assert "abcdabcdabcdabcd  toy_vit · own · colours · lora" in said


@pytest.mark.slow
def test_a_result_is_repeated_from_its_record(
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
    assert "own/colours is read from disk" in said
    assert "it was made by: " in said
    assert main([*again, "--data", str(task)]) == 2
    assert "give those with --weights" in capsys.readouterr().err
    other = make_task("other", seed=1)
    assert main([*again, "--data", str(other), "--weights", "random"]) == 2
    assert "is own/other" in capsys.readouterr().err

    for folder in (task, task.parent):
        assert main([*again, "--data", str(folder), "--weights", "random"]) == 0
        assert f"{path.stem}: bit-identical" in capsys.readouterr().out
    records = [json.loads(file.read_text()) for file in Store(results).root.rglob("*.json") if "runs" in file.parts]
    assert len(records) == 3
    assert {record["predictions_sha256"] for record in records} == {records[0]["predictions_sha256"]}
    assert {record["provenance"]["numerics"]["threads"] for record in records} == {1}
