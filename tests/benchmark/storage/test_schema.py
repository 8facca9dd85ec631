"""What the writer accepts the reader reads; other files are refused by file, field and reason, and never block."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.storage import commit
from vtab_peft.benchmark.storage.json_io import StoreError, unwritable
from vtab_peft.benchmark.storage.predictions import PredictionsDamaged, read_predictions
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.reading import InvalidFile
from vtab_peft.datasets.schema import Invalid, from_json
from vtab_peft.methods.base import METHODS, Method, method
from vtab_peft.methods.plugin import PluginError, load_plugin

PLUGIN = """
from vtab_peft.methods.base import Method, method

@method("odd_facts")
class Odd(Method):
    {fact}
"""


def test_bytes_that_are_not_utf8_are_stored_readably(store: Store, fake: Any) -> None:
    argv = ["run", "--data", os.fsdecode(b"caf\xff"), "ä", "\\udcff", "😀"]
    record = fake.record(0.5) | {"provenance": {"device": "cpu", "argv": argv}}
    path = store.save(fake.spec(), record, np.zeros(3, int))
    assert store.load(path).argv == ("run", "--data", "caf\\udcff", "ä", "\\udcff", "😀")
    assert store.load_failure_at(store.save_failure(fake.spec(seed=1), "\udcff", "")).reason == "\\udcff"


@pytest.mark.parametrize(
    ("part", "changes", "field"),
    [
        ("facts", {"title": 5}, "facts.title"),
        ("facts", {"classes": 0}, "facts.classes"),
        ("result", {"loss_curve": "x"}, "result.loss_curve"),
        ("result", {"peak_bytes": 10**23}, "result.peak_bytes"),
    ],
)
def test_nothing_is_written_that_no_reader_accepts(
    part: str, changes: dict[str, Any], field: str, store: Store, fake: Any
) -> None:
    record = fake.record(0.5)
    record[part] |= changes
    with pytest.raises(Invalid) as caught:
        store.save(fake.spec(), record, np.zeros(3, int))
    assert caught.value.field == field
    strange = replace(fake.spec(), method=replace(fake.spec().method, version=-5))
    with pytest.raises(Invalid):
        store.save(strange, fake.record(), np.zeros(3, int))
    assert not store.root.exists()


@pytest.mark.parametrize("predictions", [[65536], [-1], [[1]]])
def test_classes_that_16_bits_cannot_hold_are_refused(predictions: list[Any], store: Store, fake: Any) -> None:
    with pytest.raises(ValueError):
        store.save(fake.spec(), fake.record(), np.array(predictions))
    assert not store.root.exists()


@pytest.mark.parametrize(
    "fact",
    ["title = 5", 'title = "\\ud800"', 'version = "1"', "version = -5", "version = 10**23", 'lr = "x"', "lr = -1"],
)
def test_facts_of_a_plugin_are_checked_when_it_is_loaded(fact: str, tmp_path: Path) -> None:
    path = tmp_path / "plug.py"
    path.write_text(PLUGIN.format(fact=fact))
    with pytest.raises(PluginError) as caught:
        load_plugin(path)
    assert str(path) in str(caught.value)
    assert fact.partition(" ")[0] in str(caught.value)
    assert "odd_facts" not in METHODS


def test_a_subclass_of_text_is_no_title() -> None:
    class Text(str):
        __slots__ = ()

    with pytest.raises(ValueError):
        method("odd_title")(type("Odd", (Method,), {"title": Text("x")}))
    assert "odd_title" not in METHODS


def test_a_disk_that_fills_up_before_the_record_leaves_nothing(
    store: Store, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: bytes) -> bool:
        raise unwritable(path, OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(commit, "create_new", full)
    with pytest.raises(StoreError):
        store.save(fake.spec(), fake.record(), np.zeros(3, int), adapter=b"adapter")
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_commands_open_only_regular_files(
    kind: str, store: Store, put: Any, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = put("flowers", "lora", 0, 0.5), put("flowers", "lora", 1, 0.5)
    paths = [
        store.path(bad),
        store.path(good).with_suffix(".npz"),
        store.path(good).with_suffix(".safetensors"),
        store.root / "failed" / f"{'a' * 16}.json",
        store.root / "claims" / f"{'b' * 16}.json",
    ]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    results = ["--results", str(store.root)]
    assert main(["verify", *results]) == 1
    said = capsys.readouterr().out
    assert all(path.stem in said for path in paths)
    assert main(["status", *results]) == 1
    assert main(["export", str(store.path(good)), "--as", "adapter", "--output", "out", *results]) == 1
    assert not os.path.lexists(paths[0])
    assert os.path.lexists(store.root / "damaged" / paths[0].relative_to(store.root / "runs"))


def test_predictions_larger_than_their_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, predictions=np.zeros(3, "<u2"), correct=np.zeros(3, bool))
    assert len(read_predictions(path)["predictions"]) == 3
    wrong = {"predictions": np.zeros(3)}, {"predictions": np.zeros((3, 1), "<u2")}, {"correct": np.zeros(3, bool)}
    for arrays in wrong:
        np.savez_compressed(path, **arrays)
        with pytest.raises(PredictionsDamaged):
            read_predictions(path)


@pytest.mark.parametrize(
    "text", ["[" * 33 + "]" * 33, '{"a": ' * 40 + "1" + "}" * 40, "1" * 5000, "1e400", "NaN", "\xff"]
)
def test_values_have_limits(text: str) -> None:
    with pytest.raises(Invalid):
        from_json(text.encode("latin-1"), Any)


def test_brackets_in_text_are_no_nesting() -> None:
    assert from_json('["' + "[" * 100 + '\\"{"]', list[str]) == ["[" * 100 + '"{']


def test_a_damaged_record_names_file_and_field(store: Store, put: Any) -> None:
    path = store.path(put("flowers", "lora", 0, 0.5))
    path.write_text(path.read_text().replace('"classes": 10', '"classes": "10"'))
    with pytest.raises(InvalidFile) as caught:
        store.load(path)
    assert (caught.value.path, caught.value.field) == (path, "facts.classes")
