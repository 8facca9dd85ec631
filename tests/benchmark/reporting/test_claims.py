"""Claimed against measured: beside the board, never in its ranking, and only where it belongs."""

from collections.abc import Callable

import pytest
from leaderboards import leaderboards, only
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.reporting.claims import Claims, claims
from vtab_peft.benchmark.reporting.leaderboards import Leaderboard
from vtab_peft.benchmark.reporting.published import load
from vtab_peft.benchmark.spec import BackboneRef
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import suite_tasks

AUGREG = BackboneRef(name="vit_base_patch16_224.augreg_in21k", sha256="ab" * 32)
ORIGINAL = BackboneRef(name="vit_base_patch16_224.orig_in21k", sha256="cd" * 32)


def measure(put: Callable, backbone: BackboneRef = AUGREG, **facts) -> None:
    """LoRA, a plug-in of its name, and Mona, on the 19 tasks; LoRA reaches 70 on each."""
    for task in suite_tasks("vtab1k").values():
        common = {"suite": "vtab1k", "group": task.group, "provenance": "lossless", "backbone": backbone} | facts
        put(task.name, "lora", 0, 0.70, title="LoRA", **common)
        put(task.name, "lora", 0, 0.60, title="My LoRA", plugin="ee" * 32, **common)
        put(task.name, "mona", 0, 0.50, title="Mona", **common)


def found(store: Store) -> tuple[Leaderboard, Claims]:
    entry = only(store)
    return entry, claims(entry, load())


def test_a_claim_stands_beside_the_measured_number(store, put) -> None:
    measure(put)
    _, said = found(store)
    (line,) = said.lines  # nobody prints Mona on VTAB-1k, and a plug-in is not what papers mean
    assert line.label == "LoRA"
    measured, printed = line.columns["mean_19"]
    assert measured == pytest.approx(70)
    assert printed
    assert (printed.low, printed.high) == pytest.approx((68.82, 73.60), abs=0.005)


def test_rows_of_other_weights_are_left_out(store, put) -> None:
    """HTA's table says "no AugReg" for LoRA, and prints ARC with and without."""
    measure(put)
    assert "hta" not in {source.source for source in found(store)[1].sources}
    measure(put, ORIGINAL)
    original = {source.source for source in claims(leaderboards(store)[1], load()).sources}
    assert "hta" in original
    assert "hta-vit-l" not in original


@pytest.mark.parametrize(
    ("backbone", "suite", "reason"),
    [
        (BackboneRef(name="vit_tiny_patch16_224.augreg_in21k", sha256="00" * 32), "vtab1k", "was made with vit_tiny"),
        (AUGREG, "own", "papers print no numbers for own"),
    ],
)
def test_where_nothing_belongs_the_reason_is_given(store, put, backbone, suite, reason) -> None:
    put("cifar", "lora", 0, 0.5, suite=suite, backbone=backbone)
    _, said = found(store)
    assert not said.lines
    assert reason in said.reason


def test_boards_beside_which_nothing_is_printed_are_counted_in_one_line(store, put, capsys) -> None:
    measure(put)
    put("cifar", "lora", 0, 0.5)
    put("cifar", "lora", 0, 0.5, suite="another")
    assert main(["report", "--results", str(store.root), "--with-published"]) == 0
    said = capsys.readouterr().out
    assert said.count("Claimed against measured") == 2
    assert "Claimed against measured: nothing to show for 2 boards; the page says why.\n" in said
    assert [path.parent.name[:6] for path in store.root.rglob("published.md")] == ["vtab1k"]


def test_the_table_comes_when_asked_for_changes_no_rank_and_goes_again(store, put, capsys) -> None:
    measure(put)
    verb = ["report", "--results", str(store.root)]
    assert main(verb) == 0
    (folder,) = (store.root / "boards").iterdir()
    tables = {name: (folder / name).read_bytes() for name in ("leaderboard.csv", "table.md", "table.tex")}
    assert "68.8 to 73.6" not in capsys.readouterr().out

    assert main([*verb, "--with-published"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("Claimed against measured") > shown.index("My LoRA")
    assert "68.8 to 73.6" in shown
    text = (folder / "published.md").read_text()
    assert "| LoRA | measured | 70.0 |" in text
    assert "They rank nothing" in text
    assert tables == {name: (folder / name).read_bytes() for name in tables}

    assert main(verb) == 0
    assert not (folder / "published.md").exists()
