"""Fault campaign: run 60 plug-ins that misbehave, and check how each command ends.

    python perf/hostile_plugins.py              all of them
    python perf/hostile_plugins.py --only fork  those whose name contains a text

Each plug-in is a correct method with one fault, at import, when names are resolved, or in training.  `vtab-peft run`
must end within the time limit with the documented exit status, and `verify` must accept the folder that it leaves.  No
traceback of the suite, no control character and no process may be left.  Writes perf/results/hostile_plugins.json; with
`--only` it keeps the rows of the others.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from textwrap import indent
from typing import Any

import psutil
import torch
from measured import RESULTS, save
from short_runs import Work
from vtab_peft.benchmark.cli import main as main_command

LIMIT_S = 240.0
"""Seconds within which a command must end (our choice; a run takes five on an idle machine)."""
AT_ONCE = 3
"""Commands that run at the same time."""
PLUGIN = '''
import os, sys, signal, subprocess, threading, warnings
import torch
from torch import Tensor, nn
from vtab_peft.methods import LinearUpdateMethod, method
from vtab_peft.methods.updates import Update

class Other(BaseException): pass
class Mute(Exception):
    def __str__(self): raise KeyError("no text")
    __repr__ = __str__
SLEEP = [sys.executable, "-c", "import time; time.sleep(900)"]

class Scaled(Update):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(2, weight.shape[1]) / 10)
        self.up = nn.Parameter(torch.zeros(weight.shape[0], 2))
    def forward(self, x: Tensor) -> Tensor:
{forward}
        return x @ self.down.T @ self.up.T
    def delta(self) -> Tensor:
        return self.up @ self.down

{imported}

@method({name})
class Mine(LinearUpdateMethod):
    """Adds a low-rank product to fc2."""
    title = {title}
    version = {version}
    sites = "fc2"
    {field}
    def make_update(self, weight: Tensor, bias: Tensor | None) -> Update:
{injected}
        return Scaled(weight)
    def update_params(self, inputs: int, outputs: int) -> int:
{resolved}
        return 2 * (inputs + outputs)
    def after_step(self, vit: nn.Module, step: int, steps: int) -> None:
{stepped}
        pass

{last}
'''
USUAL = {"name": '"mine"', "title": '"Mine"', "version": "1", "field": "lr = 1e-3"}
PLACES = ("imported", "resolved", "injected", "forward", "stepped", "last")
RAISED = {
    "ValueError": 'raise ValueError("of the plug-in")',
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "SystemExit 0": "raise SystemExit(0)",
    "GeneratorExit": "raise GeneratorExit",
    "BrokenPipeError": 'raise BrokenPipeError("of the plug-in")',
    "another BaseException": 'raise Other("x")',
    "an exception without text": "raise Mute",
    "a long text with control characters": r'raise ValueError("\x1b]0;title\x07\x1b[31m" * 100000)',
    "half a surrogate pair": r'raise ValueError("\udc80")',
    "RecursionError": "f = lambda: f()\nf()",
}
FORK = "if os.fork() == 0:\n    import time\n    time.sleep(900)"


@dataclass(frozen=True)
class Case:
    """A plug-in with one fault."""

    name: str
    allowed: tuple[int, ...]
    """Exit statuses that docs/operations.md allows."""
    parts: dict[str, str]
    """Parts of `PLUGIN` that differ from the correct method."""

    @property
    def method(self) -> str:
        """The name that a user would ask for."""
        return str(eval(self.parts.get("name", USUAL["name"]))) or "mine"  # an expression of this file

    @property
    def code(self) -> str:
        """The file's text."""
        parts = {**USUAL, **dict.fromkeys(PLACES, ""), **self.parts}
        inner = {place: indent(parts[place], " " * 8) for place in ("resolved", "injected", "forward", "stepped")}
        return PLUGIN.format(**parts | inner)


def cases() -> list[Case]:
    """Return the 60 plug-ins."""
    found = [Case(f"import raises {name}", (2,), {"imported": code}) for name, code in RAISED.items()]
    found += [Case(f"training raises {name}", (1,), {"stepped": code}) for name, code in RAISED.items()]
    wrong = {
        **{f"title {value}": {"title": value} for value in ("5", '""', r'"\x1b[2J\x07 red"', '"=1+1"')},
        **{f"version {value}": {"version": value} for value in ('"1"', "-5", "None", "10**30")},
        **{f"name {value}": {"name": value} for value in ("5", '""', r'"\x1b[2J"', '"lora"', '"a" * 5000')},
        **{f"lr {value}": {"field": f"lr = {value}"} for value in ('"x"', 'float("nan")', "10**400")},
        **{f"backbones {value}": {"field": f"backbones = {value}"} for value in ('("cnn",)',)},
    }
    found += [Case(f"wrong {name}", (0, 1, 2), parts) for name, parts in wrong.items()]
    found += [
        Case("import calls os._exit(0)", (1, 2), {"imported": "os._exit(0)"}),
        Case("import kills itself", (1, 2), {"imported": "os.kill(os.getpid(), signal.SIGKILL)"}),
        Case("import does not compile", (2,), {"imported": "def ("}),
        Case("import forks and stays", (0,), {"imported": FORK}),
        Case("import starts a process", (0,), {"imported": "subprocess.Popen(SLEEP)"}),
        Case("import closes the screen", (0,), {"imported": "sys.stdout.close(); sys.stderr.close()"}),
        Case("import closes descriptors 1 and 2", (0,), {"imported": "os.close(1); os.close(2)"}),
        Case("import prints control characters", (0,), {"imported": r'print("\x1b[31m\x1b]0;x\x07\x9b2J" * 50)'}),
        Case("import patches cross_entropy", (0, 1), {"imported": "torch.nn.functional.cross_entropy = max"}),
        Case("import replaces print and open", (0, 1, 2), {"imported": "import builtins; builtins.open = None"}),
        Case("training calls os._exit(0)", (1,), {"stepped": "os._exit(0)"}),
        Case("training crashes", (1,), {"stepped": "import ctypes; ctypes.string_at(0)"}),
        Case("training aborts", (1,), {"stepped": "os.abort()"}),
        Case("training forks at each step", (0,), {"stepped": FORK}),
        Case("training starts sessions", (0,), {"stepped": "subprocess.Popen(SLEEP, start_new_session=True)"}),
        Case("training gives NaN", (1,), {"forward": 'return x * float("nan")'}),
        Case("training allocates memory", (1,), {"stepped": "kept = torch.empty(2**45)"}),
        Case("training returns another shape", (1, 2), {"forward": "return x[:, :1]"}),
        Case("injection raises", (1, 2), {"injected": 'raise ValueError("of the plug-in")'}),
        Case("injection returns None", (1, 2), {"injected": "return None"}),
        Case("counting raises SystemExit", (1, 2), {"resolved": "raise SystemExit(0)"}),
        Case("counting returns text", (1, 2), {"resolved": 'return "many"'}),
        Case("it registers nothing", (2,), {"last": 'from vtab_peft.methods import METHODS\ndel METHODS["mine"]'}),
    ]
    return found


def survivors(mark: str) -> list[int]:
    """Return processes that a command has left, and end them."""
    left = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if environment.get("HOSTILE_CASE") == mark:
            left.append(process.pid)
            process.kill()
    return left


def verified(results: Path) -> str:
    """Return what `verify` finds wrong in a results folder."""
    with redirect_stdout(io.StringIO()) as said:
        return said.getvalue() if main_command(["verify", "--results", str(results)]) else ""


def attack(case: Case, task: Path, folder: Path) -> dict[str, Any]:
    """Run one plug-in; return its exit status, seconds and problems."""
    folder.mkdir()
    plugin, results = folder / "plugin.py", folder / "results"
    plugin.write_text(case.code)
    line = ["run", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1"]
    line += ["--tasks", str(task), "--methods", case.method, "--plugin", str(plugin), "--results", str(results)]
    line += ["--seeds", "0"]
    code = "import sys; from vtab_peft.benchmark.cli import main; sys.exit(main())"
    own = {"HOSTILE_CASE": folder.name, "OMP_NUM_THREADS": "1"}
    environment, began, problems = {**os.environ, **own}, time.monotonic(), []
    with (folder / "output.txt").open("wb") as output:
        command = [sys.executable, "-c", code, *line]
        run = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            status = run.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            run.kill()
            status = run.wait()
            problems.append(f"did not end within {LIMIT_S:g} s")
    seconds = round(time.monotonic() - began, 1)
    said = (folder / "output.txt").read_bytes()
    if status not in case.allowed:
        problems.append(f"exit status {status}, expected {case.allowed}")
    if b"Traceback" in said:
        problems.append("a traceback was printed")
    if any(byte in said for byte in (b"\x1b", b"\x07", b"\xc2\x9b")):
        problems.append("control characters were printed")
    time.sleep(0.5)
    if left := survivors(folder.name):
        problems.append(f"{len(left)} processes were left")
    row = {"plugin": case.name, "exit": status, "seconds": seconds, "problems": problems}
    if problems:
        row["said"] = said.decode(errors="backslashreplace")[-1500:]
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="run only plug-ins whose name contains this text")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        os.environ["VTAB_PEFT_CACHE"] = f"{place}/cache"
        work = Work(Path(place) / "work", seeds=1)
        chosen = [case for case in cases() if options.only in case.name]
        folders = [Path(place) / f"case{number}" for number in range(len(chosen))]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for folder, row in zip(
                folders, pool.map(attack, chosen, repeat(work.folder / "bright"), folders), strict=True
            ):
                results = folder / "results"
                if results.exists() and (wrong := verified(results)):  # `main` sets signals: not in a thread
                    row["problems"].append(f"verify: {wrong[-500:]}")
                rows.append(row)
                print(row, flush=True)
    path = RESULTS / "hostile_plugins.json"
    before = json.loads(path.read_text())["rows"] if options.only and path.exists() else []
    by_name = {row["plugin"]: row for row in before} | {row["plugin"]: row for row in rows}
    rows = [{key: value for key, value in row.items() if key != "said"} for row in by_name.values()]
    found = {
        "plugins": len(rows),
        "by_exit_status": dict(sorted(Counter(str(row["exit"]) for row in rows).items())),
        "with_problems": sum(bool(row["problems"]) for row in rows),
        "rows": rows,
    }
    save("hostile_plugins", found, torch.device("cpu"))
    return int(found["with_problems"] > 0)


if __name__ == "__main__":
    sys.exit(main())
