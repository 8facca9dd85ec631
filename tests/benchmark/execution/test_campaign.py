"""kill -9 and lost Ray nodes: every run is stored once, bit-identical to an undisturbed local sweep."""

import re
from pathlib import Path
from typing import Any

import psutil
import pytest
from campaign import EXECUTORS, campaign, find_problems, is_worker
from short_runs import Work, output_of, stored, wait_for
from vtab_peft.benchmark.execution.ray_pool import QUIET

pytestmark = pytest.mark.slow


def test_ten_kills_change_no_result(tmp_path: Path) -> None:
    kills = dict(zip(EXECUTORS, (3, 3, 4), strict=True))
    for row in campaign(kills, seeds=2, seed=0, folder=tmp_path):
        assert row["kills"] >= kills[row["executor"]]
        assert row["wrong"] == []
        assert row["tracebacks"] == 0


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_same_command_continues_after_sigterm(executor: str, tmp_path: Path) -> None:
    work = Work(tmp_path / "work", seeds=2)
    undisturbed, results = work.undisturbed(), tmp_path / "results"
    run = work.start(results, *EXECUTORS[executor])
    wait_for(run, results, 2)
    workers = run.children(recursive=True)
    run.terminate()
    assert run.wait(60) == 143, output_of(results).read_text()
    assert psutil.wait_procs(workers, 60)[1] == []
    assert 2 <= stored(results) < work.runs
    assert not list((results / "claims").glob("*"))
    assert work.start(results, *EXECUTORS[executor]).wait(300) == 0
    assert find_problems(work, undisturbed, results) == []


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_removed_ray_node_loses_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    work = Work(tmp_path / "work", seeds=2)
    undisturbed, results = work.undisturbed(), tmp_path / "results"
    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(**node) for _ in range(2)]
        cluster.wait_for_nodes()
        run = work.start(results, "--executor", "ray", "--ray-address", cluster.address, "--cpus-per-run", "1")
        wait_for(run, results, 2)
        cluster.remove_node(next(node for node in nodes if has_worker(node)), allow_graceful=False)
        assert stored(results) < work.runs, "the node was removed too late"
        assert run.wait(300) == 0, output_of(results).read_text()
    finally:
        cluster.shutdown()
    assert find_problems(work, undisturbed, results) == []
    noticed = "tried again|its worker was lost right after that|the worker cannot be reached"  # in a run, after, before
    assert re.search(noticed, output_of(results).read_text())


def has_worker(node: Any) -> bool:
    """Return True if one of our workers runs on the node."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return any(is_worker(process) for process in raylet.children(recursive=True))
