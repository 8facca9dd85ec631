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
ASK = "run --backbone toy_vit --methods lora"
COMMANDS = (
    "status",
    "verify",
    "compare lora lorra",
    "rerun zz",
    "export zz --as merged --output x",
    "status --suite toy",
    f"{ASK} --suite toy --ray-address x",
    f"{ASK} --suite toy --split val --oracle",
    f"{ASK} --suite vtab1k --data absent",
    f"{ASK} --shard 9/8",
)


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
def printed(capsys: pytest.CaptureFixture[str], store: Store) -> Callable[..., str]:
    """Return a function that calls another and returns what it prints."""

    def printed(function: Callable[..., Any], *arguments: Any) -> str:
        with suppress(SystemExit):
            function(*arguments)
        said = capsys.readouterr()
        text = (said.out + said.err).replace(str(store.root), "RESULTS").replace(f"{Path.cwd()}/", "")
        return "\n".join(line for line in text.splitlines() if not line.startswith(("usage:", "      ")))

    return printed


def test_wording_is_that_of_the_snapshot(
    store: Store, put: Callable[..., Any], fake: Any, printed: Callable[..., str]
) -> None:
    runs: list[Any] = [SimpleNamespace(seconds=400.0)] * 3
    failed: Any = PlannedRun(fake.spec(seed=3), *[None] * 3, 1.0)  # type: ignore[arg-type]
    outcome = SweepResult(failed=[(failed, "a reason")], left=2, elsewhere=1)
    old, new = (
        SimpleNamespace(
            predictions_sha256=text,
            accuracy=0.5,
            loss_curve=[],
            provenance={"device": "EPYC", "numerics": {"cpu": "EPYC", "threads": threads}, "versions": {}},
        )
        for text, threads in (("a", 1), ("b", 2))
    )

    def command(words: str) -> str:
        return f"$ vtab-peft {words}\n{printed(main, [*words.split(), '--results', str(store.root)])}"

    texts = [
        "\n".join(helps(parser())),
        announcement(runs, runs, GPU, RECIPES["uniform"], "eager"),
        announcement(runs, runs[:1], GPU, RECIPES["uniform"], "eager", 1),
        estimate_of(runs, False),
        unread_note(["own/a", "own/b"]),
        *map(command, ("status", "report")),
    ]
    for seed in (0, 0, 1):
        put("flowers", "lora", seed, 0.5)
    store.save_failure(failed.spec, "a reason", "Traceback ...")
    texts += [
        printed(say_outcome, outcome, store),
        *map(command, COMMANDS),
        verdict(old, old, 100)[1],  # type: ignore[arg-type]
        verdict(old, new, 100)[1],  # type: ignore[arg-type]
        diff_table([Verdict("lora", "svhn", now, 0.4, 0.6) for now in (None, 0.1, 0.9)]),
        diff_table([]),
    ]
    found = "\n\n".join(text.rstrip() for text in texts) + "\n"
    if os.environ.get("VTAB_PEFT_REWRITE"):
        SNAPSHOT.write_text(found, encoding="utf-8")
    assert found == SNAPSHOT.read_text(encoding="utf-8")
