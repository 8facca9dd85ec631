"""A Ray that the command starts: it listens on the loopback address only, and asks for a token."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from vtab_peft.benchmark.execution.ray_pool import LOOPBACK

pytestmark = pytest.mark.slow

LISTENERS = """
import json, sys
from pathlib import Path
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.execution.messages import ResolveRequest, WorkerConfig
from vtab_peft.benchmark.execution.ray_pool import RayBackend

backend = RayBackend(None, 1.0, 0.0, WorkerConfig(Path(sys.argv[1]), Numerics(threads=1)))
worker = backend.spawn(1)
worker.resolve(ResolveRequest("toy_vit", "random", None, "fp32", ["linear"])).result()

import psutil, ray

ours = {process.pid for process in psutil.Process().children(recursive=True)} | {psutil.Process().pid}
found = [c.laddr.ip for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN and c.pid in ours]
print(json.dumps({"listening": found, "address": ray.get_runtime_context().gcs_address}), flush=True)
sys.stdin.read()
backend.close()
"""

JOIN = "import ray, sys; ray.init(sys.argv[1]); print('joined')"


def test_ray_started_here_is_closed_to_others(tmp_path: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", LISTENERS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    found = json.loads(driver.stdout.readline())
    assert len(found["listening"]) >= 3
    assert {address.removeprefix("::ffff:") for address in found["listening"]} == {"127.0.0.1"}
    stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | LOOPBACK
    joined = subprocess.run(
        [sys.executable, "-c", JOIN, found["address"]],
        env=stranger | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert joined.returncode != 0
    assert "joined" not in joined.stdout
    driver.communicate(timeout=120)
    assert driver.returncode == 0
    assert not (tmp_path / ".ray").exists(), "the token is in the environment only"
