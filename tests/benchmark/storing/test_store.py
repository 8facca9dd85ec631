"""The store keeps what was measured, gives it back unchanged, and trusts no file that contradicts itself."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vtab_peft.benchmark.planning.recipes import UNIFORM
from vtab_peft.benchmark.planning.spec import PROTOCOL, BackboneRef, MethodRef, RunSpec, TaskRef
from vtab_peft.benchmark.running.agenda import Agenda
from vtab_peft.benchmark.running.progress import Progress
from vtab_peft.benchmark.storing import store as store_module
from vtab_peft.benchmark.storing.store import COLUMNS, Store, StoreError, to_text

ROOT = Path(__file__).parents[3]


def stored_files(store: Store) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


def rewrite(path, change) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


# Round trips


def test_a_run_comes_back_as_it_was_put(store, fake):
    spec = fake.spec(args={"rank": 4, "sites": "[q,  v]", "scales": [0.1, 1.0]})
    record = fake.record(0.75) | {"curve": [0.5, 0.25], "note": 'two  spaces [1,  2] and "quotes"'}
    path = store.put(spec, record, np.array([3, 1, 2]))
    loaded = store.load(path)
    assert {name: loaded[name] for name in record} == record
    assert RunSpec.from_json(loaded["spec"]) == spec
    assert loaded["key"] == spec.key() == path.stem
    assert store.has(spec)
    assert store.get(spec) == loaded


def test_predictions_are_kept_with_their_hash(store, fake):
    path = store.put(fake.spec(), fake.record(), np.array([3, 1, 65535]))
    with np.load(path.with_suffix(".npz")) as archive:
        predictions = archive["predictions"]
    assert predictions.tolist() == [3, 1, 65535]
    expected = hashlib.sha256(np.array([3, 1, 65535], dtype="<u2").tobytes()).hexdigest()
    assert store.load(path)["predictions_sha256"] == expected


def test_the_frame_has_one_row_per_run_sorted_by_key(store, put):
    specs = [put("flowers", "lora", seed, 0.5 + seed / 10) for seed in range(3)]
    frame = store.frame(complaints := [])
    assert complaints == []
    assert list(frame.columns) == list(COLUMNS)
    assert frame["key"].tolist() == sorted(spec.key() for spec in specs)
    by_seed = frame.set_index("seed")["accuracy"].to_dict()
    assert by_seed == {0: 0.5, 1: 0.6, 2: 0.7}


def test_the_frame_of_an_empty_folder_is_empty_with_all_columns(store):
    assert list(store.frame([]).columns) == list(COLUMNS)


names = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**40), 2**40)
values = st.recursive(
    names | numbers | st.booleans() | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
specs = st.builds(
    RunSpec,
    backbone=st.builds(BackboneRef, name=names, sha256=names),
    task=st.builds(TaskRef, suite=names, name=names, version=st.integers(1, 9), data=names, provenance=names),
    method=st.builds(
        MethodRef,
        name=names,
        args=st.dictionaries(names, values, max_size=4),
        version=st.integers(1, 9),
        plugin=st.none() | names,
        spec=names,
    ),
    recipe=st.builds(lambda lr, name: replace(UNIFORM, lr=lr, name=name), st.floats(0, 1), names),
    recipe_base=names,
    split=st.sampled_from(["val", "test"]),
    seed=st.integers(0, 2**31),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(0, 1)] * 3),
    interpolation=names,
)


@settings(deadline=None, max_examples=60)
@given(specs)
def test_any_spec_survives_the_text_of_a_record(spec):
    read = RunSpec.from_json(json.loads(to_text({"spec": spec.to_json()}))["spec"])
    assert read == spec
    assert read.key() == spec.key()


@settings(deadline=None, max_examples=30)
@given(specs, st.randoms(use_true_random=False))
def test_a_key_does_not_depend_on_the_order_of_arguments(spec, random):
    arguments = list(spec.method.args.items())
    random.shuffle(arguments)
    assert replace(spec, method=replace(spec.method, args=dict(arguments))).key() == spec.key()


STORED = ROOT / "results/runs/toy_vit/toy/cells/lora"
"""Runs from before any field came later."""


def test_a_run_of_before_a_recipe_field_came_keeps_its_key_and_means_the_neutral_value():
    paths = sorted(STORED.glob("*.json"))
    assert paths
    for path in paths:
        stored = json.loads(path.read_text())["spec"]
        assert "framing" not in stored["recipe"]
        spec = RunSpec.from_json(stored)
        assert spec.recipe.framing == "squash"
        assert spec.key() == path.stem.partition(".")[0]


def test_a_recipe_field_that_came_later_names_another_run_where_it_differs(fake):
    before = fake.spec()
    cropped = replace(before, recipe=replace(before.recipe, framing="square_crop"))
    assert cropped.key() != before.key()
    assert cropped.recipe.base != before.recipe.base
    assert RunSpec.from_json(cropped.to_json()) == cropped


def other(value):
    """A value of the same kind that is not this one."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case tuple():
            return (value[0] + 1, *value[1:])
        case dict():
            return value | {"new": 1}
        case None:
            return 1
    raise AssertionError(value)


LABELS = {("method", "spec"), ("recipe", "source"), ("recipe", "tuned")}
"""What says the same in other words and cannot change a number."""


def changed_specs(spec):
    """Every field of a spec and its parts, with the spec that differs only there."""
    for field in fields(spec):
        part = getattr(spec, field.name)
        if field.name not in ("backbone", "task", "method", "recipe"):
            yield (field.name,), replace(spec, **{field.name: other(part)})
            continue
        for inner in fields(part):
            value = getattr(part, inner.name)
            fraction = inner.name in ("drop_path", "branch_dropout", "mlp_dropout", "label_smoothing")
            changed = replace(part, **{inner.name: 0.25 if fraction else other(value)})
            yield (field.name, inner.name), replace(spec, **{field.name: changed})


def test_a_key_changes_with_every_field_that_can_change_the_number_and_no_other(fake):
    spec = fake.spec()
    spec = replace(spec, recipe=replace(spec.recipe, drop_path=0.0))  # it excludes branch_dropout
    keys = {field: changed.key() for field, changed in changed_specs(spec)}
    assert {field for field, key in keys.items() if key == spec.key()} == LABELS
    assert len({key for field, key in keys.items() if field not in LABELS}) == len(keys) - len(LABELS) > 35


def test_a_key_changes_with_the_protocol(fake, monkeypatch):
    before = fake.spec().key()
    monkeypatch.setattr("vtab_peft.benchmark.planning.spec.PROTOCOL", PROTOCOL + 1)
    assert fake.spec().key() != before


# Files that cannot be trusted


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def no_text(path):
    path.write_bytes(b"\xff\xfe\x00")


def other_seed(path):
    rewrite(path, lambda record: record["spec"].update(seed=99))


def impossible_accuracy(path):
    rewrite(path, lambda record: record["result"].update(accuracy=75.0))


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


# Repetitions and failures


def test_a_repetition_never_overwrites_and_the_latest_counts(store, put):
    spec = put("flowers", "lora", 0, 0.5)
    first = store.path(spec)
    before = first.read_bytes(), first.with_suffix(".npz").read_bytes()
    for accuracy in (0.6, 0.7):
        put("flowers", "lora", 0, accuracy)
    key = spec.key()
    assert [path.name for path in store.repetitions(spec)] == [f"{key}.json", f"{key}.2.json", f"{key}.3.json"]
    assert (first.read_bytes(), first.with_suffix(".npz").read_bytes()) == before
    assert store.path(spec, 2).with_suffix(".npz").exists()
    frame = store.frame([])
    assert frame["accuracy"].tolist() == [0.7]
    assert frame["repetition"].tolist() == [3]
    latest = store.get(spec)
    assert latest is not None
    assert latest["result"]["accuracy"] == 0.7


def test_the_tenth_repetition_is_later_than_the_ninth(store, put):
    for repetition in range(1, 12):
        put("flowers", "lora", 0, repetition / 100)
    assert store.frame([])["accuracy"].tolist() == [0.11]


def test_a_run_exists_only_once_its_json_does(store, fake, monkeypatch):
    spec = fake.spec()

    def killed_before_the_json(path, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "create", killed_before_the_json)
    with pytest.raises(KeyboardInterrupt):
        store.put(spec, fake.record(), np.zeros(3, dtype=int))
    assert not store.has(spec)
    assert store.get(spec) is None
    assert len(store.frame([])) == 0
    monkeypatch.undo()
    store.put(spec, fake.record(), np.ones(3, dtype=int))
    assert [path.name for path in store.repetitions(spec)] == [f"{spec.key()}.json"]
    with np.load(store.path(spec).with_suffix(".npz")) as archive:
        assert archive["predictions"].tolist() == [1, 1, 1]


def test_success_removes_the_record_of_the_failure(store, fake):
    spec = fake.spec()
    failed = store.put_failure(spec, "ran out of memory", "Traceback ...")
    assert json.loads(failed.read_text())["reason"] == "ran out of memory"
    assert len(store.frame([])) == 0
    store.put(spec, fake.record(), np.zeros(3, dtype=int))
    assert not failed.exists()


# The disk


def test_a_death_at_the_commit_point_leaves_no_failure_beside_a_result(store, fake, monkeypatch):
    def die(path, data):
        raise KeyboardInterrupt

    spec = fake.spec()
    store.put_failure(spec, "out of memory", "")
    monkeypatch.setattr(store_module, "create", die)
    with pytest.raises(KeyboardInterrupt):
        store.put(spec, fake.record(), np.zeros(3, dtype=int))
    assert not store.has(spec)
    assert not store.failure(spec).exists()


def test_what_a_killed_process_was_writing_is_removed_and_what_a_living_one_writes_is_not(store, put):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = store.folder(put("flowers", "lora", 0, 0.5))
    names = [f".tmp-{os.uname().nodename}-{process}-ab" for process in (dead.pid, os.getpid())]
    for name in (*names, ".tmp-of-somebody"):
        (folder / name).write_bytes(b"half")
    (store.root / names[0]).write_bytes(b"half")
    store.tidy()
    assert {path.name for path in store.root.rglob(".tmp-*")} == {names[1], ".tmp-of-somebody"}
    assert len(list(folder.iterdir())) == 4


def test_a_failing_disk_is_named_and_leaves_nothing_behind(store, fake, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        StoreError, match=r"cannot write .*No space left on device; free space or give another --results"
    ):
        store.put(fake.spec(), fake.record(), np.zeros(3, dtype=int))
    assert stored_files(store) == []


def test_a_folder_that_is_a_file_is_named(tmp_path, fake):
    (tmp_path / "results").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        Store(tmp_path / "results").put(fake.spec(), fake.record(), np.zeros(3, dtype=int))


def test_a_file_that_the_system_cuts_short_leaves_the_old_one_whole(tmp_path):
    """RLIMIT_FSIZE is a disk that is full after 100 bytes, for a process of its own."""
    target = tmp_path / "record.json"
    target.write_text("old")
    code = (
        "import signal, sys; from pathlib import Path\n"
        "from vtab_peft.benchmark.storing.store import StoreError, write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try: write_atomically(Path(sys.argv[1]), b'x' * 10_000_000)\n"
        "except StoreError as error: print(error)\n"
    )
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, target], preexec_fn=limit, capture_output=True, text=True, check=True
    )
    assert f"cannot write {target}: File too large" in done.stdout
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("name", ["..", "../../escape", "/etc", "a/b", "", "null\0byte", "line\nbreak"])
def test_no_name_leads_out_of_the_results_folder(store, fake, name):
    path = store.put(fake.spec(name, suite=name, method=name), fake.record(), np.zeros(3, dtype=int))
    assert path.resolve().is_relative_to(store.root.resolve() / "runs")
    assert len(store.frame([])) == 1


# Several processes

RACER = """
import sys, time
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from conftest import fake_record, fake_spec
from vtab_peft.benchmark.storing.store import Store

me, root = int(sys.argv[2]), Path(sys.argv[3])
store, predictions = Store(root), np.full(2000, me)
(root / f"ready{me}").touch()
while not (root / f"ready{1 - me}").exists():
    time.sleep(0.001)
for seed in range(40):
    (root / f"{me}-{seed}").touch()
    while not (root / f"{1 - me}-{seed}").exists():
        pass
    store.put(fake_spec(seed=seed), fake_record(me / 2), predictions, predictions == 0, b"adapter %d" % me, 1)
"""


def test_of_two_processes_that_finish_one_cell_at_the_same_instant_one_is_kept_whole(store, fake):
    store.root.mkdir()
    here = Path(__file__).parents[1]
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, here, str(me), store.root], stderr=subprocess.PIPE)
        for me in (0, 1)
    ]
    for racer in racers:
        _, err = racer.communicate(timeout=120)
        assert racer.returncode == 0, err.decode()
    for seed in range(40):
        spec = fake.spec(seed=seed)
        (path,) = store.repetitions(spec)
        record = store.load(path)
        winner = int(2 * record["result"]["accuracy"])
        for suffix, content in ((".npz", None), (".safetensors", b"adapter %d" % winner)):
            beside = path.with_suffix(suffix)
            if not beside.exists():
                continue  # nothing at all is better than what is another's
            if content:
                assert beside.read_bytes() == content
            else:
                with np.load(beside) as archive:
                    assert set(archive["predictions"].tolist()) == {winner}
    assert not list(store.root.rglob(".tmp-*"))
    assert not list(store.root.rglob("*.2.json"))


def test_a_run_that_was_stored_meanwhile_is_dropped(store, put, fake):
    spec = put("flowers", "lora", 0, 0.5)
    before = stored_files(store), store.path(spec).read_bytes()
    store.put(spec, fake.record(0.9), np.ones(10, dtype=int), repetition=1)
    assert (stored_files(store), store.path(spec).read_bytes()) == before


def test_a_file_system_without_hard_links_will_do(store, fake, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    path = store.put(fake.spec(), fake.record(0.5), np.zeros(3, dtype=int))
    store.put(fake.spec(), fake.record(0.9), np.zeros(3, dtype=int), repetition=1)
    assert store.load(path)["result"]["accuracy"] == 0.5
    assert len(stored_files(store)) == 2


def test_a_link_whose_answer_was_lost_was_made_all_the_same(store, fake, monkeypatch):
    """NFS: the server makes the link, its answer is lost, the client asks again and hears that the name is taken."""
    real = os.link

    def lost(source, target):
        real(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr("os.link", lost)
    path = store.put(fake.spec(), fake.record(0.5), np.array([3, 1]))
    assert store.load(path)["result"]["accuracy"] == 0.5
    assert path.with_suffix(".npz").exists()


def test_finished_runs_are_found_as_one_by_one(store, put, fake):
    there = [put(task, method, seed, 0.5) for task in ("flowers", "pets") for method in "ab" for seed in (0, 1)]
    absent = [fake.spec("flowers", "a", seed=2), fake.spec("birds", "a"), fake.spec("pets", "c")]
    assert store.finished([*absent, *there]) == {spec.key() for spec in there}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"reason": 7}', "\udcff", "[" * 100_000])
def test_a_damaged_failure_is_named_and_not_taken_for_an_outcome(store, fake, text):
    path = store.put_failure(fake.spec(), "Diverged: the loss", "")
    assert store.diverged(fake.spec())
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError, match=f"{path} cannot be read .*delete it"):
        store.diverged(fake.spec())


def test_the_record_is_named_last_when_all_beside_it_is_on_the_disk(store, fake, monkeypatch):
    events = []
    real_sync, real_link, real_replace = os.fsync, os.link, Path.replace

    def sync(number):
        events.append("sync " + Path(f"/proc/self/fd/{number}").readlink().name)
        real_sync(number)

    def name(real):
        def named(source, target):
            events.append("name " + Path(target).suffix)
            return real(source, target)

        return named

    spec = fake.spec()
    store.folder(spec).mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "link", name(real_link))
    monkeypatch.setattr(Path, "replace", name(real_replace))
    store.put(spec, fake.record(), np.zeros(3, dtype=int), adapter=b"adapter")
    steps = [event.split(".tmp")[0] for event in events]
    one = lambda suffix: ["sync ", f"name {suffix}", f"sync {store.folder(spec).name}"]  # noqa: E731
    assert steps == [*one(".npz"), *one(".safetensors"), *one(".json")]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody can write")
def test_a_place_where_nobody_can_write_is_named_before_a_cell_is_run(fake):
    cells = [SimpleNamespace(spec=fake.spec(), seconds=1.0)]
    with pytest.raises(StoreError, match=r"cannot write /proc/results/claims.*give another --results folder"):
        Agenda(cells, Store(Path("/proc/results")), Progress(cells)).take()
