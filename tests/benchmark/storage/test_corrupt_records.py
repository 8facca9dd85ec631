"""Files that cannot be trusted: set aside, named, and nothing else is lost with them."""

import json

import pytest
from vtab_peft.benchmark.storage.store import Store


def rewrite(path, change) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def no_text(path):
    path.write_bytes(b"\xff\xfe\x00")


def other_seed(path):
    rewrite(path, lambda record: record["spec"].update(seed=99))


def impossible_accuracy(path):
    rewrite(path, lambda record: record["result"].update(accuracy=75.0))


def too_large(path):
    rewrite(path, lambda record: record["result"].update(peak_bytes=10**400))


def no_facts(path):
    rewrite(path, lambda record: record.pop("facts"))


def unknown_field(path):
    rewrite(path, lambda record: record["spec"].update(surprise=1))


def a_list(path):
    path.write_text("[1, 2]")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, ""),
        (no_text, ""),
        (a_list, ""),
        (other_seed, "run ID"),
        (impossible_accuracy, "accuracy"),
        (too_large, "peak_bytes"),
        (no_facts, "facts"),
        (unknown_field, "surprise"),
    ],
)
def test_damaged_record_is_quarantined_and_others_are_read(store, put, damage, reason):
    put("flowers", "lora", 1, 0.6)
    path = store.path(put("flowers", "lora", 0, 0.5))
    damage(path)
    before = path.read_bytes()
    runs, (complaint,) = store.load_runs()
    assert [run.spec.seed for run in runs] == [1]
    assert str(path) in complaint
    assert reason in complaint
    aside = store.root / "damaged" / path.relative_to(store.root / "runs")
    assert str(aside) in complaint
    assert aside.read_bytes() == before
    assert not path.exists()
    assert store.load_runs()[1] == []


def test_damaged_repetition_falls_back_to_the_one_before(store, put):
    for accuracy in (0.5, 0.6):
        spec = put("flowers", "lora", 0, accuracy)
    cut(store.path(spec, 2))
    run, problems = store.latest(spec)
    assert run.accuracy == 0.5
    assert str(store.root / "damaged") in problems[0]
    assert [path.name for path in store.repetitions(spec)] == [f"{spec.run_id()}.json"]


def test_run_without_valid_record_is_missing(store, put):
    spec = put("flowers", "lora", 0, 0.5)
    cut(store.path(spec))
    run, problems = store.latest(spec)
    assert run is None
    assert len(problems) == 1
    assert not store.has(spec)
    assert store.finished([spec]) == set()
    assert store.latest(spec) == (None, [])


def test_two_commands_can_quarantine_the_same_file(store, put, monkeypatch):
    """The other moves it in the instant between reading and moving."""
    path = store.path(put("flowers", "lora", 0, 0.5))
    cut(path)
    real = Store.load

    def load(self, path):
        try:
            return real(self, path)
        finally:
            path.unlink()

    monkeypatch.setattr(Store, "load", load)
    runs, problems = store.load_runs()
    assert runs == []
    assert len(problems) == 1


def test_record_under_another_name_is_quarantined(store, put):
    path = store.path(put("flowers", "lora", 0, 0.5))
    path.rename(path.with_name("0123456789abcdef.json"))
    runs, problems = store.load_runs()
    assert runs == []
    assert "run ID" in problems[0]


def test_quarantine_keeps_earlier_files(store, put):
    texts = [b"first", b"second"]
    for text in texts:
        store.path(put("flowers", "lora", 0, 0.5)).write_bytes(text)
        store.load_runs()
    kept = [path.read_bytes() for path in sorted((store.root / "damaged").rglob("*")) if path.is_file()]
    assert kept == texts


@pytest.mark.parametrize("version", ["schema", "protocol"])
def test_newer_record_is_refused_and_unchanged(store, put, version):
    path = store.path(put("flowers", "lora", 0, 0.5))
    rewrite(path, lambda record: record.update({version: record[version] + 1}))
    before = path.read_bytes()
    runs, (problem,) = store.load_runs()
    assert runs == []
    assert str(path) in problem
    assert path.read_bytes() == before


def test_folder_name_does_not_matter_for_version_check(tmp_path, put):
    store = Store(tmp_path / "newer")
    store.path(put("flowers", "lora", 0, 0.5, into=store)).write_text("{")
    _, problems = store.load_runs()
    assert str(store.root / "damaged") in problems[0]
