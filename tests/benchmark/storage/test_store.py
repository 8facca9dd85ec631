"""The store keeps what was measured, gives it back unchanged, and trusts no file that contradicts itself."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from vtab_peft.benchmark.execution.progress import Progress
from vtab_peft.benchmark.execution.scheduler import Scheduler
from vtab_peft.benchmark.storage import commit
from vtab_peft.benchmark.storage.json_io import StoreError
from vtab_peft.benchmark.storage.schema import COLUMNS, to_frame
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.atomic_io import host
from vtab_peft.datasets.reading import InvalidFile

ROOT = Path(__file__).parents[3]


# Round trips


def test_run_round_trip(store, fake):
    spec = fake.spec(args={"rank": 4, "sites": "[q,  v]", "scales": [0.1, 1.0]})
    record = fake.record(0.75) | {"curve": [0.5, 0.25], "note": 'two  spaces [1,  2] and "quotes"'}
    path = store.save(spec, record, np.array([3, 1, 2]))
    loaded, stored = store.load(path), json.loads(path.read_text())
    assert {name: stored[name] for name in record} == record
    assert loaded.spec == spec
    assert loaded.run_id == spec.run_id() == path.stem
    assert (loaded.accuracy, loaded.title, loaded.provenance) == (0.75, "LoRA", record["provenance"])
    assert store.has(spec)
    assert store.latest(spec) == (loaded, [])


def test_a_method_without_a_title_is_called_by_its_name(store, fake):
    path = store.save(fake.spec(), fake.record(title=""), np.array([3, 1, 2]))
    assert store.load(path).title == "lora"


def test_predictions_are_stored_with_their_hash(store, fake):
    path = store.save(fake.spec(), fake.record(), np.array([3, 1, 65535]))
    with np.load(path.with_suffix(".npz")) as archive:
        predictions = archive["predictions"]
    assert predictions.tolist() == [3, 1, 65535]
    expected = hashlib.sha256(np.array([3, 1, 65535], dtype="<u2").tobytes()).hexdigest()
    assert store.load(path).predictions_sha256 == expected


def test_table_has_one_row_per_run_sorted_by_run_id(store, put):
    specs = [put("flowers", "lora", seed, 0.5 + seed / 10) for seed in range(3)]
    runs, problems = store.load_runs()
    assert problems == []
    frame = to_frame(runs)
    assert list(frame.columns) == list(COLUMNS)
    assert frame["key"].tolist() == sorted(spec.run_id() for spec in specs)
    by_seed = frame.set_index("seed")["accuracy"].to_dict()
    assert by_seed == {0: 0.5, 1: 0.6, 2: 0.7}


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("run --workers 3 --threads 1", "H200, shared by 3"),
        ("run --workers=1", "H200"),
        ("run --executor ray --gpus-per-cell 0.25", "H200, shared by 4"),
        ("run --executor ray --gpus-per-cell 1.0", "H200"),
        ("run", "H200"),
    ],
)
def test_shared_device_has_another_name(store, fake, typed, told):
    record = fake.record(0.7) | {"provenance": {"device": "H200", "argv": typed.split()}}
    store.save(fake.spec("svhn", "lora", 0), record, np.zeros(10, dtype=int))
    assert [run.device for run in store.load_runs()[0]] == [told]


def test_table_of_an_empty_folder_has_all_columns(store):
    assert list(to_frame(store.load_runs()[0]).columns) == list(COLUMNS)


# Repetitions and failures


def test_repetition_never_overwrites_and_the_latest_counts(store, put):
    spec = put("flowers", "lora", 0, 0.5)
    first = store.path(spec)
    before = first.read_bytes(), first.with_suffix(".npz").read_bytes()
    for accuracy in (0.6, 0.7):
        put("flowers", "lora", 0, accuracy)
    key = spec.run_id()
    assert [path.name for path in store.repetitions(spec)] == [f"{key}.json", f"{key}.2.json", f"{key}.3.json"]
    assert (first.read_bytes(), first.with_suffix(".npz").read_bytes()) == before
    assert store.path(spec, 2).with_suffix(".npz").exists()
    assert [(run.accuracy, run.repetition) for run in store.load_runs()[0]] == [(0.7, 3)]
    latest, _ = store.latest(spec)
    assert latest is not None
    assert latest.accuracy == 0.7


def test_tenth_repetition_follows_the_ninth(store, put):
    for repetition in range(1, 12):
        put("flowers", "lora", 0, repetition / 100)
    assert [run.accuracy for run in store.load_runs()[0]] == [0.11]


def test_last_repetition_counts_after_deletions(store, put):
    for accuracy in (0.5, 0.6):
        spec = put("flowers", "lora", 0, accuracy)
    store.path(spec).unlink()
    assert store.has(spec)
    assert store.finished([spec]) == {spec.run_id()}
    assert [run.accuracy for run in store.load_runs()[0]] == [0.6]
    put("flowers", "lora", 0, 0.7)
    assert [path.name for path in store.repetitions(spec)] == [f"{spec.run_id()}.2.json", f"{spec.run_id()}.3.json"]
    assert [run.accuracy for run in store.load_runs()[0]] == [0.7]


def test_run_whose_files_were_deleted_starts_again(store, put):
    for accuracy in (0.5, 0.6):
        spec = put("flowers", "lora", 0, accuracy)
    for path in store.repetitions(spec):
        path.unlink()
    assert not store.has(spec)
    assert store.finished([spec]) == set()
    put("flowers", "lora", 0, 0.7)
    assert [path.name for path in store.repetitions(spec)] == [f"{spec.run_id()}.json"]


def test_run_exists_if_its_json_does(store, fake, monkeypatch):
    spec = fake.spec()

    def killed_before_the_json(path, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(commit, "create_new", killed_before_the_json)
    with pytest.raises(KeyboardInterrupt):
        store.save(spec, fake.record(), np.zeros(3, dtype=int))
    assert not store.has(spec)
    assert store.latest(spec) == (None, [])
    assert store.load_runs() == ([], [])
    monkeypatch.undo()
    store.save(spec, fake.record(), np.ones(3, dtype=int))
    assert [path.name for path in store.repetitions(spec)] == [f"{spec.run_id()}.json"]
    with np.load(store.path(spec).with_suffix(".npz")) as archive:
        assert archive["predictions"].tolist() == [1, 1, 1]


def test_success_removes_the_failure_record(store, fake):
    spec = fake.spec()
    failed = store.save_failure(spec, "ran out of memory", "Traceback ...")
    assert json.loads(failed.read_text())["reason"] == "ran out of memory"
    assert store.load_runs() == ([], [])
    store.save(spec, fake.record(), np.zeros(3, dtype=int))
    assert not failed.exists()


# The disk


def test_crash_at_commit_leaves_no_failure_beside_a_result(store, fake, monkeypatch):
    def die(path, data):
        raise KeyboardInterrupt

    spec = fake.spec()
    store.save_failure(spec, "out of memory", "")
    monkeypatch.setattr(commit, "create_new", die)
    with pytest.raises(KeyboardInterrupt):
        store.save(spec, fake.record(), np.zeros(3, dtype=int))
    assert not store.has(spec)
    assert not store.failure_path(spec).exists()


def test_temp_files_of_dead_processes_only_are_removed(store, put):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = store.folder(put("flowers", "lora", 0, 0.5))
    names = [f".tmp-{host()}-{process}-ab" for process in (dead.pid, os.getpid())]
    for name in (*names, ".tmp-of-somebody"):
        (folder / name).write_bytes(b"half")
    (store.root / names[0]).write_bytes(b"half")
    store.remove_temp_files()
    assert {path.name for path in store.root.rglob(".tmp-*")} == {names[1], ".tmp-of-somebody"}
    assert len(list(folder.iterdir())) == 4


def test_full_disk_is_reported_and_leaves_nothing_behind(store, stored_files, fake, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*No space left on device; free space or give another folder"):
        store.save(fake.spec(), fake.record(), np.zeros(3, dtype=int))
    assert stored_files() == []


def test_results_folder_that_is_a_file_is_reported(tmp_path, fake):
    (tmp_path / "results").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        Store(tmp_path / "results").save(fake.spec(), fake.record(), np.zeros(3, dtype=int))


def test_truncated_write_leaves_the_old_file(tmp_path):
    """RLIMIT_FSIZE is a disk that is full after 100 bytes, for a process of its own."""
    target = tmp_path / "record.json"
    target.write_text("old")
    code = (
        "import signal, sys; from pathlib import Path\n"
        "from vtab_peft.benchmark.storage.store import StoreError, write_atomically\n"
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
def test_no_name_escapes_the_results_folder(store, fake, name):
    path = store.save(fake.spec(name, suite=name, method=name), fake.record(), np.zeros(3, dtype=int))
    assert path.resolve().is_relative_to(store.root.resolve() / "runs")
    assert len(store.load_runs()[0]) == 1

    assert path.with_suffix(".npz").exists()


def test_finished_agrees_with_has(store, put, fake):
    there = [put(task, method, seed, 0.5) for task in ("flowers", "pets") for method in "ab" for seed in (0, 1)]
    absent = [fake.spec("flowers", "a", seed=2), fake.spec("birds", "a"), fake.spec("pets", "c")]
    assert store.finished([*absent, *there]) == {spec.run_id() for spec in there}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"reason": 7}', "\udcff", "[" * 100_000])
def test_damaged_failure_record_is_reported(store, fake, text):
    path = store.save_failure(fake.spec(), "Diverged: the loss", "")
    assert store.diverged(fake.spec())
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidFile) as caught:
        store.load_failure(fake.spec())
    assert caught.value.path == path
    found, (problem,) = store.load_failures()
    assert found == []
    assert str(path) in problem
    assert not store.diverged(fake.spec())


def test_record_is_written_after_its_attachments(store, fake, monkeypatch):
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
    store.save(spec, fake.record(), np.zeros(3, dtype=int), adapter=b"adapter")
    steps = [event.split(".tmp")[0] for event in events]
    one = lambda suffix: ["sync ", f"name {suffix}", f"sync {store.folder(spec).name}"]  # noqa: E731
    assert steps == [*one(".npz"), *one(".safetensors"), *one(".json")]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody can write")
def test_unwritable_folder_is_reported_before_any_run(fake):
    runs = [SimpleNamespace(spec=fake.spec(), seconds=1.0)]
    with pytest.raises(StoreError, match=r"cannot write /proc/results/claims.*give another folder"):
        Scheduler(runs, Store(Path("/proc/results")), Progress(runs)).next_run()
