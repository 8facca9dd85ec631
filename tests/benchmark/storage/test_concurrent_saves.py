"""Several processes that finish one run at the same time, on file systems with and without hard links."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

RACER = """
import sys, time
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from conftest import fake_record, fake_spec
from vtab_peft.benchmark.storage.store import Store

me, root = int(sys.argv[2]), Path(sys.argv[3])
store, predictions = Store(root), np.full(2000, me)
(root / f"ready{me}").touch()
while not (root / f"ready{1 - me}").exists():
    time.sleep(0.001)
for seed in range(40):
    (root / f"{me}-{seed}").touch()
    while not (root / f"{1 - me}-{seed}").exists():
        pass
    store.save(fake_spec(seed=seed), fake_record(me / 2), predictions, predictions == 0, b"adapter %d" % me, 1)
"""


def test_two_processes_storing_one_run_keep_one_result(store, fake):
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
        run = store.load(path)
        winner = int(2 * run.accuracy)
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


def test_repetition_that_was_stored_meanwhile_is_dropped(store, stored_files, put, fake):
    spec = put("flowers", "lora", 0, 0.5)
    before = stored_files(), store.path(spec).read_bytes()
    store.save(spec, fake.record(0.9), np.ones(10, dtype=int), repetition=1)
    assert (stored_files(), store.path(spec).read_bytes()) == before


def test_file_system_without_hard_links_works(store, stored_files, fake, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    path = store.save(fake.spec(), fake.record(0.5), np.zeros(3, dtype=int))
    store.save(fake.spec(), fake.record(0.9), np.zeros(3, dtype=int), repetition=1)
    assert store.load(path).accuracy == 0.5
    assert len(stored_files()) == 2


def test_hard_link_with_lost_nfs_answer_counts(store, fake, monkeypatch):
    """NFS: the server makes the link, its answer is lost, the client asks again and hears that the name is taken."""
    real = os.link

    def lost(source, target):
        real(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr("os.link", lost)
    path = store.save(fake.spec(), fake.record(0.5), np.array([3, 1]))
    assert store.load(path).accuracy == 0.5
