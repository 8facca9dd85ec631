"""Save a measurement with its provenance."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from vtab_peft.benchmark.engine.numerics import Numerics
from vtab_peft.benchmark.engine.timing import device_name, provenance
from vtab_peft.benchmark.storage.json_io import write_atomically

RESULTS = Path(__file__).parent / "results"


def save(
    name: str, found: dict[str, Any], device: torch.device, numerics: Numerics | None = None, more: bool = False
) -> None:
    """Write perf/results/<name>.json with device, versions and commit, and print its path.

    numerics: None if the measurement uses no engine, or several; the threads of this process are recorded.
    more: True for an intermediate result of a longer measurement; nothing is printed.
    """
    record = {"device_name": device_name(device), "instructions": instructions(), **found}
    record |= provenance(device, [Path(sys.argv[0]).name], numerics or Numerics(torch.get_num_threads()))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
    if not more:
        print(path)


def instructions() -> list[str]:
    """Return the vector and matrix instruction sets of the processor; with an old torch the one it uses."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return [torch.backends.cpu.get_cpu_capability().lower()]
    known = torch.cpu.get_capabilities()
    return sorted(name for name, has in known.items() if has is True and name.startswith(("amx", "avx", "sve", "neon")))
