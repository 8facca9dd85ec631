"""Runs decoded by an older Pillow or made beside plug-in files are named by `verify` and by the tables."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.reporting.leaderboard_id import by_leaderboard
from vtab_peft.benchmark.reporting.leaderboards import Leaderboard, leaderboard
from vtab_peft.benchmark.reporting.markup import to_latex, to_markdown
from vtab_peft.benchmark.reporting.origins import older_decoders
from vtab_peft.benchmark.reporting.tables import to_terminal
from vtab_peft.benchmark.storage.store import Store

PLUGINS = [{"file": "mine.py", "sha256": "ab" * 32}]
Save = Callable[..., str]


@pytest.fixture
def save(store: Store, fake, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Return a function that stores a run with a version of Pillow and plug-in files, and returns its run ID."""
    monkeypatch.setattr("os.fsync", lambda _: None)

    def save(task: str, method: str, pillow: str | None, plugins: list[Any] | None = None, **facts: Any) -> str:
        record = fake.record(0.5)
        record["provenance"] |= {"versions": {"pillow": pillow}} if pillow else {}
        record["provenance"] |= {"plugins": plugins} if plugins else {}
        spec = fake.spec(task, method, 0, **facts)
        store.save(spec, record, np.zeros(10, dtype=np.int64))
        return spec.run_id()

    return save


def only_leaderboard(store: Store) -> Leaderboard:
    ((identity, runs),) = by_leaderboard(store.load_runs()[0])
    return leaderboard(identity, runs)


def test_runs_of_an_older_pillow_are_named(
    store: Store, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = save("flowers", "lora", "9.5.0")
    newer = [save("flowers", "ssf", "12.3.0"), save("pets", "lora", "12.3.0"), save("pets", "ssf", None)]
    (found,) = older_decoders(store.load_runs()[0])
    assert (found.task, found.older, found.newest) == ("flowers", "9.5.0", "12.3.0")
    assert [run.run_id for run in found.runs] == [older]
    main(["verify", "--results", str(store.root)])
    (note,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("note: "))
    assert older in note
    entry = only_leaderboard(store)
    for text in (to_terminal(entry), to_markdown(entry), to_latex(entry)):
        assert "9.5.0" in text
        assert older in re.sub(r"\s", "", text)
        assert not any(run_id in text for run_id in newer)


def test_other_images_or_preprocessing_may_have_another_pillow(store: Store, save: Save) -> None:
    save("flowers", "lora", "12.3.0")
    save("pets", "lora", "13.0.0")
    save("flowers", "ssf", "13.0.0", data="d1" * 32)
    assert older_decoders(store.load_runs()[0]) == []
    assert only_leaderboard(store).origins == ()


def test_tasks_with_the_same_data_are_named(store: Store, save: Save) -> None:
    """A renamed or imported folder has the data of the first; its accuracy counts twice in the means."""
    for task in ("pets", "animals", "flowers"):
        save(task, "lora", None, data=("d2" if task == "flowers" else "d1") * 8)
    save("flowers", "lora", None, data="d2" * 8, version=2)
    entry = only_leaderboard(store)
    first, second = entry.origins
    assert first.startswith("tasks animals and pets have the same images")
    assert second.startswith("tasks flowers@d2d2d2.v1 and flowers@d2d2d2.v2 have the same images")
    for text in (to_terminal(entry), to_markdown(entry), to_latex(entry)):
        assert "animals and pets have the same" in re.sub(r"\s+", " ", text.replace("\n%", ""))


def test_the_index_tells_leaderboards_with_an_older_pillow(store: Store, save: Save) -> None:
    save("flowers", "lora", "12.3.0", recipe="uniform")
    save("flowers", "lora", "13.0.0")
    assert main(["report", "--results", str(store.root)]) == 0
    sections = (store.root / "README.md").read_text().split("\n## ")[1:]
    assert sorted("Pillow 12.3.0" in section for section in sections) == [False, True]
    assert all("Pillow" not in path.read_text() for path in (store.root / "boards").rglob("table.md"))


def test_plugins_are_named_beside_other_methods(store: Store, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    beside, alone = save("flowers", "lora", "13.0.0", PLUGINS), save("flowers", "ssf", "13.0.0")
    own = save("flowers", "mine", "13.0.0", PLUGINS, plugin=PLUGINS[0]["sha256"])
    main(["verify", "--results", str(store.root)])
    (note,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("note: "))
    assert [run_id in note for run_id in (beside, alone, own)] == [True, False, False]
    entry = only_leaderboard(store)
    for text in (to_terminal(entry), to_markdown(entry), to_latex(entry)):
        assert beside in re.sub(r"\s", "", text)
        assert "mine.py(abababababab)" in re.sub(r"\s", "", text)
    (line,) = (line for line in to_latex(entry).splitlines() if beside in line)
    assert line.startswith("% ")
    capsys.readouterr()
    assert main(["report", "--results", str(store.root)]) == 0
    assert beside in (store.root / "index.html").read_text()


def test_versions_of_a_plugin_have_its_hash_in_their_labels(store: Store, save: Save) -> None:
    for digit in "ab":
        save("flowers", "mine", "13.0.0", [{"file": "mine.py", "sha256": 64 * digit}], plugin=64 * digit)
    entry = only_leaderboard(store)
    assert {row["label"] for row in entry.rows} == {"mine #aaaaaa", "mine #bbbbbb"}
    assert entry.origins == ()


def test_the_plug_in_of_the_backbone_is_not_called_another(store: Store, save: Save) -> None:
    """The hash of the weights, and so the run ID, covers the file."""
    backbone = {"file": "vit.py", "sha256": "cd" * 32, "backbone": True}
    save("flowers", "lora", "13.0.0", [backbone])
    save("flowers", "mine", "13.0.0", [*PLUGINS, backbone], plugin=PLUGINS[0]["sha256"])
    assert only_leaderboard(store).origins == ()
    beside = save("flowers", "ssf", "13.0.0", [*PLUGINS, backbone])
    (note,) = only_leaderboard(store).origins
    assert beside in note
    assert "vit.py" not in note
