"""Published numbers beside measured ones: same suite and weights, and never in a ranking."""

from collections.abc import Callable

import pytest
from leaderboards import leaderboards, only
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.reporting.leaderboards import Leaderboard
from vtab_peft.benchmark.reporting.published import load
from vtab_peft.benchmark.reporting.published_vs_measured import (
    HEADING,
    PublishedComparison,
    compare_with_published,
)
from vtab_peft.benchmark.spec import BackboneRef
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import suite_tasks

AUGREG = BackboneRef(name="vit_base_patch16_224.augreg_in21k", sha256="ab" * 32)
ORIGINAL = BackboneRef(name="vit_base_patch16_224.orig_in21k", sha256="cd" * 32)


def measure(put: Callable, backbone: BackboneRef = AUGREG, **facts) -> None:
    """Store LoRA (70 % on each of 19 tasks), a plug-in with the same name, and Mona."""
    for task in suite_tasks("vtab1k").values():
        common = {"suite": "vtab1k", "group": task.group, "provenance": "lossless", "backbone": backbone} | facts
        put(task.name, "lora", 0, 0.70, title="LoRA", **common)
        put(task.name, "lora", 0, 0.60, title="My LoRA", plugin="ee" * 32, **common)
        put(task.name, "mona", 0, 0.50, title="Mona", **common)


def found(store: Store) -> tuple[Leaderboard, PublishedComparison]:
    entry = only(store)
    return entry, compare_with_published(entry, load())


def test_published_range_beside_measured_mean(store, put) -> None:
    measure(put)
    _, comparison = found(store)
    (row,) = comparison.rows  # no paper prints Mona on VTAB-1k; plug-ins are not compared
    assert row.label == "LoRA"
    measured, printed = row.columns["mean_19"]
    assert measured == pytest.approx(70)
    assert printed
    assert (printed.low, printed.high) == pytest.approx((68.82, 73.60), abs=0.005)


def test_other_weights_are_excluded(store, put) -> None:
    """HTA's table says "no AugReg" for LoRA, and prints ARC with and without."""
    measure(put)
    assert "hta" not in {source.source for source in found(store)[1].sources}
    measure(put, ORIGINAL)
    original = {source.source for source in compare_with_published(leaderboards(store)[1], load()).sources}
    assert "hta" in original
    assert "hta-vit-l" not in original


@pytest.mark.parametrize(
    ("backbone", "suite", "named"),
    [
        (
            BackboneRef(name="vit_tiny_patch16_224.augreg_in21k", sha256="00" * 32),
            "vtab1k",
            "vit_tiny_patch16_224.augreg_in21k",
        ),
        (AUGREG, "own", "own"),
    ],
)
def test_reason_for_no_comparison(store, put, backbone, suite, named) -> None:
    put("cifar", "lora", 0, 0.5, suite=suite, backbone=backbone)
    _, comparison = found(store)
    assert comparison.rows == ()
    assert named in comparison.reason


def test_leaderboards_without_published_numbers_are_counted(store, put, capsys) -> None:
    measure(put)
    put("cifar", "lora", 0, 0.5)
    put("cifar", "lora", 0, 0.5, suite="another")
    assert main(["report", "--results", str(store.root), "--with-published"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(HEADING)]
    assert len(lines) == 2
    assert "2" in lines[1]
    assert [path.parent.name[:6] for path in store.root.rglob("published.md")] == ["vtab1k"]


@pytest.mark.slow
def test_with_published_adds_one_file_and_removes_it_again(store, put, capsys) -> None:
    measure(put)
    command = ["report", "--results", str(store.root)]
    assert main(command) == 0
    (folder,) = (store.root / "boards").iterdir()
    tables = {name: (folder / name).read_bytes() for name in ("leaderboard.csv", "table.md", "table.tex")}
    assert "68.8 to 73.6" not in capsys.readouterr().out

    assert main([*command, "--with-published"]) == 0
    shown = capsys.readouterr().out
    assert shown.index(HEADING) > shown.index("My LoRA")
    assert "68.8 to 73.6" in shown
    text = (folder / "published.md").read_text()
    assert "| LoRA | measured | 70.0 |" in text
    assert tables == {name: (folder / name).read_bytes() for name in tables}

    assert main(command) == 0
    assert not (folder / "published.md").exists()
