"""Clock, memory, and the provenance of a result."""

import os
import platform
import resource
import subprocess
import time
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from .numerics import Numerics

_SOURCES = ("benchmark", "methods", "datasets", "run_benchmark.py", "pyproject.toml")


def now(device: torch.device) -> float:
    """Return the time in seconds, after all work queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def reset_peak_memory(device: torch.device) -> None:
    """Restart the measurement of `peak_memory`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (clear := Path("/proc/self/clear_refs")).exists():
        clear.write_text("5")  # Linux: restarts the high-water mark of the resident set


def peak_memory(device: torch.device) -> int:
    """Return the peak bytes since the reset: allocated GPU memory, or on a CPU the resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if (status := Path("/proc/self/status")).exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def provenance(device: torch.device, argv: list[str], numerics: Numerics = Numerics()) -> dict[str, Any]:  # noqa: B008
    """Return when, where and with which versions a result was computed; run IDs do not depend on it."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **git_state(),
        "versions": {"python": platform.python_version(), **package_versions()},
        "device": device_name(device),
        "numerics": {**asdict(numerics), "threads": torch.get_num_threads(), "cpu": cpu_name()},
        "argv": argv,
    }


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or the processor."""
    if device.type == "mps":
        return f"GPU of {cpu_name()}"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


@cache
def cpu_name() -> str:
    """Return the processor's model name."""
    if (info := Path("/proc/cpuinfo")).exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on."""
    found = {"vtab-peft": __version__}
    for name in ("torch", "torchvision", "timm", "peft", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def git_state() -> dict[str, Any]:
    """Return the commit of the checkout and True if its sources have changed since; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, env=environment, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    sha = git("rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = git("status", "--porcelain", "--", *_SOURCES) if sha else None
    return {"git_sha": sha, "git_dirty": bool(changed) if sha else None}
