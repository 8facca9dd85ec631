"""Wording of help texts and messages, compared with tests/snapshots/messages.txt.

All other tests check facts, so that a sentence can be changed in one place.  To rewrite the file after a change:
VTAB_PEFT_REWRITE=1 pytest tests/benchmark/commands/test_messages.py
"""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vtab_peft.benchmark.cli import main, parser
from vtab_peft.benchmark.commands.messages import announcement, estimate_of, say_outcome, unread_note
from vtab_peft.benchmark.commands.regression_gate import Verdict, diff_table
from vtab_peft.benchmark.commands.rerun import verdict
from vtab_peft.benchmark.execution.scheduler import SweepResult
from vtab_peft.benchmark.plan import BackboneInfo, PlannedRun
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.spec import BackboneRef
from vtab_peft.benchmark.storage.store import Store

SNAPSHOT = Path(__file__).parents[2] / "snapshots" / "messages.txt"
GPU = BackboneInfo(
    BackboneRef(name="toy_vit", sha256="5e" * 32), None, (0, 0, 0), (1, 1, 1), 64, (), 1.0, "NVIDIA H200", True
)
ASK = ["--backbone", "toy_vit", "--methods", "lora"]


def helps(command: argparse.ArgumentParser) -> Iterator[str]:
    """Yield what `--help` says of each command, in a layout that does not depend on the version of Python."""
    groups = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for action in group._choices_actions:
            yield f"{group.choices[action.dest].prog}: {action.help}"
            yield from helps(group.choices[action.dest])
    for action in [] if groups else command._actions[1:]:
        name = ", ".join(action.option_strings) or action.metavar or action.dest
        yield f"    {name}: {(action.help or '') % {'default': action.default}}"


@pytest.fixture
def messages(
    store: Store, put: Callable[..., Any], fake: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    """Return a function that collects all messages."""
    runs: list[Any] = [SimpleNamespace(seconds=400.0)] * 3

    def printed(function: Callable[..., Any], *arguments: Any) -> str:
        with suppress(SystemExit):
            function(*arguments)
        said = capsys.readouterr()
        lines = (said.out + said.err).splitlines()
        return "\n".join(line for line in lines if not line.startswith(("usage:", "      ")))

    def command(*words: str) -> str:
        return f"$ vtab-peft {' '.join(words)}\n{printed(main, [*words, '--results', str(store.root)])}"

    def outcome() -> str:
        run: Any = PlannedRun(fake.spec(seed=3), *[None] * 3, 1.0)  # type: ignore[arg-type]
        return printed(say_outcome, SweepResult(failed=[(run, "a reason")], left=2, elsewhere=1), store)

    def collect() -> str:
        recipe = RECIPES["uniform"]
        texts = ["\n".join(helps(parser()))]
        texts += [announcement(runs, runs, GPU, recipe, "eager"), announcement(runs, runs[:1], GPU, recipe, "eager", 1)]
        texts += [estimate_of(runs, ["own/a"], False), unread_note(6, ["own/a", "own/b"], 2)]
        texts += [command("status"), command("report")]
        for seed in (0, 0, 1):
            put("flowers", "lora", seed, 0.5)
        store.put_failure(fake.spec(seed=3), "a reason", "Traceback ...")
        texts += [outcome(), command("status"), command("verify"), command("compare", "lora", "lorra")]
        texts += [
            command("rerun", "zz"),
            command("run", *ASK, "--suite", "toy", "--ray-address", "x"),
            command("status", "--suite", "toy"),
        ]
        texts += [command("run", *ASK, "--split", "val", "--oracle")]
        texts += [command("run", *ASK, "--suite", "vtab1k", "--data", str(tmp_path / "data"))]
        texts += [command("run", *ASK, "--shard", "9/8")]
        texts += [command("export", "zz", "--as", "merged", "--output", "x")]
        old, new = ({"predictions_sha256": text, "result": {"accuracy": 0.5, "loss_curve": []}} for text in "ab")
        for record, threads in ((old, 1), (new, 2)):
            numerics = {"cpu": "EPYC", "threads": threads}
            record["provenance"] = {"device": "EPYC", "numerics": numerics, "versions": {}}
        texts += [verdict(old, old, 100)[1], verdict(old, new, 100)[1]]
        values = [Verdict("lora", "svhn", now, 0.4, 0.6) for now in (None, 0.1, 0.9)]
        texts += [diff_table(values), diff_table([])]
        text = "\n\n".join(text.rstrip() for text in texts) + "\n"
        return text.replace(str(store.root), "RESULTS").replace(str(tmp_path), "FOLDER")

    return collect


def test_wording_is_that_of_the_snapshot(messages: Callable[[], str]) -> None:
    found = messages()
    if os.environ.get("VTAB_PEFT_REWRITE"):
        SNAPSHOT.write_text(found, encoding="utf-8")
    assert found == SNAPSHOT.read_text(encoding="utf-8")
