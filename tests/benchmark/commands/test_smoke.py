"""`smoke` and its regression gate, also with methods of plug-ins."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from in_process import LOCAL_BACKEND, InProcessBackend
from raises import raises_naming
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands import smoke as smoke_module
from vtab_peft.benchmark.commands.regression_gate import (
    BaselineError,
    Verdict,
    check_conditions,
    compare,
    diff_table,
    read_baseline,
    write_baseline,
)
from vtab_peft.benchmark.execution.errors import WorkerStartError
from vtab_peft.benchmark.execution.scheduler import SweepResult
from vtab_peft.benchmark.execution.signals import Terminated
from vtab_peft.benchmark.plan import PlannedRun
from vtab_peft.benchmark.storage.schema import Run
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import find
from vtab_peft.methods.plugin import PluginError, load_plugin

GOOD = '''
"""LoRA with one more name."""
from vtab_peft.methods import method
from vtab_peft.methods.lora import LoRA

@method("my_lora")
class MyLoRA(LoRA):
    """LoRA under another name."""
    title = "My LoRA"
'''
BROKEN = (
    GOOD
    + """
    def inject(self, vit):
        super().inject(vit)
        for block in vit.blocks:                       # a bug: the update is ignored
            block.attn.qkv.updates["v"].forward = lambda x: x * 0 - x.detach() * 3
"""
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce `smoke` to one method, one seed and two tasks."""
    monkeypatch.setattr(smoke_module, "METHODS", ("linear",))
    monkeypatch.setattr(smoke_module, "SEEDS", (0,))
    found = smoke_module.find
    monkeypatch.setattr(smoke_module, "find", lambda names, suite, data: found(["texture", "orientation"], suite, data))


@pytest.mark.slow
def test_gate_passes_equal_code_and_finds_a_broken_method(
    quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin, baseline = tmp_path / "my_lora.py", tmp_path / "baseline.json"
    plugin.write_text(GOOD)
    ask = ["smoke", "--threads", "1", "--plugin", str(plugin)]
    assert main([*ask, "--write-baseline", str(baseline)]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("4 runs to do")

    assert main([*ask, "--baseline", str(baseline)]) == 0
    assert "gate: all 8 values" in capsys.readouterr().out

    plugin.write_text(BROKEN)
    assert main([*ask, "--baseline", str(baseline)]) == 1
    said = capsys.readouterr().out
    assert "REGRESSED" in said
    assert "my_lora" in said
    assert "linear" not in said.partition("gate:")[2]


def test_gate_finds_lost_methods_and_parameter_changes(tmp_path: Path, store: Store, put) -> None:
    for task in ("a", "b"):
        put(task, "lora", 0, 0.6, params=100)
        put(task, "linear", 0, 0.5, params=0)
    baseline = tmp_path / "baseline.json"
    write_baseline(baseline, store.load_runs()[0], test_images=500)
    runs = store.load_runs()[0]
    planned = [run.spec for run in runs]

    def compared(runs: list[Run]) -> list[Verdict]:
        return compare(read_baseline(baseline), planned, runs)

    assert not any(verdict.regressed for verdict in compared(runs))

    grown = [replace(run, trainable_params=run.trainable_params + 1) for run in runs]
    assert {v.what for v in compared(grown) if v.regressed} == {"parameters"}

    others = [run for run in runs if run.spec.method.name == "linear"]
    lost = [v for v in compared(others) if v.regressed]
    assert {v.method for v in lost} == {"lora"}
    assert {v.what for v in compared(runs[1:]) if v.regressed} >= {"runs"}
    assert all(v.regressed for v in compared([]))
    assert "MISSING" in diff_table(lost)

    improved = [replace(run, accuracy=0.99) for run in runs]
    better = [v for v in compared(improved) if not v.inside]
    assert better
    assert not any(v.regressed for v in better)
    assert "better" in diff_table(better)


def test_gate_refuses_a_baseline_of_another_recipe(tmp_path: Path, store: Store, put) -> None:
    put("a", "lora", 0, 0.6)
    runs = store.load_runs()[0]
    baseline = tmp_path / "baseline.json"
    write_baseline(baseline, runs, test_images=500)
    check_conditions(read_baseline(baseline), [run.spec for run in runs])
    with pytest.raises(BaselineError, match=str(baseline)):
        check_conditions(read_baseline(baseline), [replace(run.spec, recipe_base="other:1") for run in runs])


def test_gate_refuses_a_method_that_the_baseline_lacks(tmp_path: Path, store: Store, put) -> None:
    known, new = put("a", "lora", 0, 0.6), put("a", "my_lora", 0, 0.6)
    baseline = tmp_path / "baseline.json"
    write_baseline(baseline, [run for run in store.load_runs()[0] if run.spec == known], test_images=500)
    check_conditions(read_baseline(baseline), [known])
    with raises_naming(BaselineError, baseline, "my_lora"):
        check_conditions(read_baseline(baseline), [known, new])


def test_gate_repeats_stored_runs_and_fails_without_new_ones(
    resolve: Any,
    store: Store,
    fake: Any,
    make_task: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = find([str(make_task(name)) for name in ("whole", "broken")], None, None)
    broken: list[str] = []

    def sweep(todo: list[PlannedRun], *_: Any) -> SweepResult:
        counts.append(len(todo))
        result = SweepResult(failed=[(run, "broken") for run in todo if run.spec.task.name in broken])
        for run in todo:
            if run.spec.task.name not in broken:
                store.save(run.spec, fake.record(0.6), np.zeros(10, int))
        return result

    counts: list[int] = []
    pool = SimpleNamespace(resolve=lambda _: resolve("linear"), stop=lambda: None)
    monkeypatch.setattr(smoke_module, "local_pool", lambda _: pool)
    monkeypatch.setattr(smoke_module, "SEEDS", (0,))
    monkeypatch.setattr(smoke_module, "sweep", sweep)
    monkeypatch.setattr(smoke_module, "find", lambda *_: tasks)
    monkeypatch.setattr(smoke_module, "write", lambda *_, **__: SimpleNamespace(text="", leaderboards=["one"]))
    baseline = tmp_path / "base.json"
    ask = ["smoke", "--results", str(store.root)]
    write, gate = [*ask, "--write-baseline", str(baseline)], [*ask, "--baseline", str(baseline)]
    assert [main(write), main(gate), main(ask)] == [0, 0, 0]
    assert counts == [2, 2, 0]
    content = baseline.read_bytes()
    broken.append("broken")
    assert [main(write), main(gate)] == [1, 1]
    broken.append("whole")
    assert [main(write), main(gate)] == [1, 1]
    assert baseline.read_bytes() == content


class NoWorker:
    """Worker that must not be started."""

    def __init__(self, *_: Any) -> None:
        pytest.fail("a worker was started")


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "--write-baseline"),
        ("{", "base.json"),
        ("[]", "base.json"),
        ('{"format": 1, "conditions": {}}', "methods: is missing"),
        ('{"format": 2, "conditions": {}, "methods": {}}', "format: "),
        ('{"format": 1, "conditions": {}, "methods": {}}', "methods: "),
        (
            '{"format": 1, "conditions": {}, "methods": {"a": {"parameters": "1", "accuracy": {}}}}',
            "parameters",
        ),
    ],
)
def test_unreadable_baseline_is_refused_before_any_run(
    content: str | None,
    fact: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, NoWorker)
    if content is not None:
        (tmp_path / "base.json").write_text(content)
    assert main(["smoke", "--baseline", str(tmp_path / "base.json")]) == 2
    err = capsys.readouterr().err
    assert fact in err
    assert str(tmp_path / "base.json") in err


@pytest.mark.parametrize("where", ["file/base.json", "folder"])
def test_unwritable_baseline_is_refused_before_any_run(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, NoWorker)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    assert main(["smoke", "--write-baseline", str(tmp_path / where)]) == 2
    assert str(tmp_path / where) in capsys.readouterr().err


@pytest.mark.parametrize(("end", "status"), [(KeyboardInterrupt, 130), (Terminated, 143), (WorkerStartError, 1)])
def test_folder_is_removed_unless_it_has_tracebacks(
    end: type[BaseException],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fake: Any,
) -> None:
    fails = False

    class Ends(InProcessBackend):
        def spawn(self, number: int) -> Any:
            assert self.config.results.is_dir()
            if fails:
                Store(self.config.results).save_failure(fake.spec(), "broke", "Traceback ...")
            raise end

    monkeypatch.setattr(LOCAL_BACKEND, Ends)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["smoke"]) == status
    assert not list(tmp_path.iterdir())

    fails = True
    assert main(["smoke"]) == status
    (left,) = tmp_path.iterdir()
    assert str(left / "failed") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "fact"),
    [
        ("", "plugin.py"),
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        ("import absent_package", "ModuleNotFoundError: No module named 'absent_package'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = '\udcff'", "SyntaxError"),
        ("x = '\0'", "null bytes"),
        (GOOD.replace('"my_lora"', '"lora"'), "lora"),
    ],
)
def test_invalid_plugin_is_refused(code: str, fact: str, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_bytes(code.encode("utf-8", "surrogateescape"))
    with pytest.raises(PluginError, match=fact):
        load_plugin(plugin)


def test_missing_plugin_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"absent\.py"):
        load_plugin(tmp_path / "absent.py")


@pytest.mark.slow
def test_hash_of_a_plugin_is_in_the_run_id(make_task, tmp_path: Path) -> None:
    plugin, results = tmp_path / "my_lora.py", tmp_path / "results"
    for code in (GOOD, GOOD + "\n# edited\n"):
        plugin.write_text(code)
        ask = ["run", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1"]
        ask += ["--tasks", str(make_task(f"t{len(code)}")), "--methods", "my_lora", "--plugin", str(plugin)]
        assert main([*ask, "--seeds", "0", "--results", str(results)]) == 0
    records = [json.loads(path.read_text()) for path in (results / "runs").rglob("*.json")]
    hashes = {record["spec"]["method"]["plugin"] for record in records}
    assert len(hashes) == 2
    assert None not in hashes
