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
        (cut, "damaged"),
        (no_text, "damaged"),
        (a_list, "damaged"),
        (other_seed, "its key does not match"),
        (impossible_accuracy, "accuracy is not in [0, 1]"),
        (too_large, "peak_bytes is 1000"),
        (no_facts, "no field 'facts'"),
        (unknown_field, "surprise"),
    ],
)
def test_a_damaged_record_is_set_aside_and_named_and_the_others_are_read(store, put, damage, reason):
    put("flowers", "lora", 1, 0.6)
    path = store.path(put("flowers", "lora", 0, 0.5))
    damage(path)
    before = path.read_bytes()
    frame = store.frame(complaints := [])
    assert frame["seed"].tolist() == [1]
    (complaint,) = complaints
    assert str(path) in complaint
    assert reason in complaint
    aside = store.root / "damaged" / path.relative_to(store.root / "runs")
    assert str(aside) in complaint
    assert aside.read_bytes() == before
    assert not path.exists()
    store.frame(complaints := [])
    assert complaints == []


def test_of_a_damaged_repetition_the_sound_one_before_it_is_got(store, put):
    for accuracy in (0.5, 0.6):
        spec = put("flowers", "lora", 0, accuracy)
    cut(store.path(spec, 2))
    record = store.get(spec, complaints := [])
    assert record["result"]["accuracy"] == 0.5
    assert "set aside as" in complaints[0]
    assert [path.name for path in store.repetitions(spec)] == [f"{spec.run_id()}.json"]


def test_a_run_of_which_nothing_sound_is_left_is_missing(store, put):
    spec = put("flowers", "lora", 0, 0.5)
    cut(store.path(spec))
    assert store.get(spec, complaints := []) is None
    assert len(complaints) == 1
    assert not store.has(spec)
    assert store.finished([spec]) == set()
    assert store.get(spec, complaints) is None
    assert len(complaints) == 1


def test_of_two_commands_that_find_the_same_damaged_file_neither_stops(store, put, monkeypatch):
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
    assert store.frame(complaints := []).empty
    assert len(complaints) == 1


def test_a_record_under_another_name_is_set_aside(store, put):
    path = store.path(put("flowers", "lora", 0, 0.5))
    path.rename(path.with_name("0123456789abcdef.json"))
    assert len(store.frame(complaints := [])) == 0
    assert "its key does not match its spec and name" in complaints[0]


def test_a_second_damaged_file_of_the_same_name_does_not_replace_the_first(store, put):
    texts = [b"first", b"second"]
    for text in texts:
        store.path(put("flowers", "lora", 0, 0.5)).write_bytes(text)
        store.frame([])
    kept = [path.read_bytes() for path in sorted((store.root / "damaged").rglob("*")) if path.is_file()]
    assert kept == texts


@pytest.mark.parametrize("version", ["schema", "protocol"])
def test_a_newer_record_is_refused_and_left_where_it_is(store, put, version):
    path = store.path(put("flowers", "lora", 0, 0.5))
    rewrite(path, lambda record: record.update({version: record[version] + 1}))
    before = path.read_bytes()
    assert len(store.frame(complaints := [])) == 0
    assert "newer vtab-peft" in complaints[0]
    assert "left where it is" in complaints[0]
    assert path.read_bytes() == before


def test_the_name_of_the_folder_does_not_decide_what_is_newer(tmp_path, put):
    store = Store(tmp_path / "newer")
    store.path(put("flowers", "lora", 0, 0.5, into=store)).write_text("{")
    store.frame(complaints := [])
    assert "set aside" in complaints[0]
