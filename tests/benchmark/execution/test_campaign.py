"""kill -9, and nodes that vanish: every cell is there once, bit for bit what an undisturbed local sweep computes."""

import re
from pathlib import Path
from typing import Any

import psutil
import pytest
from campaign import EXECUTORS, campaign, is_worker, what_is_wrong
from short_cells import Work, said_of, stored, wait_for
from vtab_peft.benchmark.execution.ray_pool import QUIET

pytestmark = pytest.mark.slow


def test_ten_kills_lose_double_and_change_nothing(tmp_path: Path) -> None:
    kills = dict(zip(EXECUTORS, (3, 3, 4), strict=True))
    for row in campaign(kills, seeds=2, seed=0, folder=tmp_path):
        assert row["kills"] >= kills[row["executor"]]
        assert row["wrong"] == []
        assert row["tracebacks"] == 0


@pytest.mark.parametrize("executor", EXECUTORS)
def test_sigterm_leaves_whole_cells_and_the_same_command_goes_on(executor: str, tmp_path: Path) -> None:
    work = Work(tmp_path / "work", seeds=2)
    calm, results = work.undisturbed(), tmp_path / "results"
    run = work.start(results, *EXECUTORS[executor])
    wait_for(run, results, 2)
    workers = run.children(recursive=True)
    run.terminate()
    assert run.wait(60) == 143, said_of(results).read_text()
    assert psutil.wait_procs(workers, 60)[1] == []
    assert 2 <= stored(results) < work.cells
    assert not list((results / "claims").glob("*"))
    assert work.start(results, *EXECUTORS[executor]).wait(300) == 0
    assert what_is_wrong(work, calm, results) == []


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_node_removed_in_the_middle_of_a_sweep_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    work = Work(tmp_path / "work", seeds=2)
    calm, results = work.undisturbed(), tmp_path / "results"
    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(**node) for _ in range(2)]
        cluster.wait_for_nodes()
        run = work.start(results, "--executor", "ray", "--ray-address", cluster.address, "--cpus-per-cell", "1")
        wait_for(run, results, 2)
        cluster.remove_node(next(node for node in nodes if is_at_work(node)), allow_graceful=False)
        assert stored(results) < work.cells, "the node went in the middle"
        assert run.wait(300) == 0, said_of(results).read_text()
    finally:
        cluster.shutdown()
    assert what_is_wrong(work, calm, results) == []
    assert re.search("it is run again|its worker was lost right after that", said_of(results).read_text())


def is_at_work(node: Any) -> bool:
    """Whether a worker of ours is on a node of the cluster."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return any(is_worker(process) for process in raylet.children(recursive=True))
