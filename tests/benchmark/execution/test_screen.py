"""The screen is not the work: a lost standard output or error changes neither what runs nor the exit status."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from vtab_peft.benchmark.execution.screen import keep_working_without_screen

MAIN = "import sys; from vtab_peft.benchmark.cli import main; sys.exit(main())"
MANY_LINES = """
import os, sys
from vtab_peft.benchmark.execution.screen import keep_working_without_screen

with keep_working_without_screen() as screens:
    for number in range(20_000):
        print("line", number)
        print("line", number, file=sys.stderr)
open(sys.argv[1], "w").write(str([screens[name].lost and screens[name].lost.errno for name in ("stdout", "stderr")]))
"""


def execute(code: str, *arguments: str, shell: str) -> int:
    """Execute Python code with its streams as `shell` connects them; return the exit status."""
    command = subprocess.list2cmdline([sys.executable, "-c", '"$CODE"', *arguments]).replace('\\"', '"')
    script = f"{command} {shell}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(["bash", "-c", script], env={**os.environ, "CODE": code}, timeout=300).returncode


@pytest.mark.parametrize(
    ("shell", "errors"),
    [
        ("2>&1 | head -1 >/dev/null", "[32, 32]"),
        (">/dev/full 2>/dev/null", "[28, None]"),
        (">/dev/null 2>/dev/full", "[None, 28]"),
        (">&- 2>&- <&-", "[None, None]"),
    ],
    ids=["reader ended", "disk full", "no room for errors", "closed"],
)
def test_printing_goes_on_without_a_screen(shell: str, errors: str, tmp_path: Path) -> None:
    """Errors are EPIPE (32) and ENOSPC (28)."""
    assert execute(MANY_LINES, str(tmp_path / "out"), shell=shell) == 0
    assert (tmp_path / "out").read_text() == errors


def test_a_descriptor_that_is_not_ready_is_waited_for() -> None:
    """Another process that shares a pipe may have made it non-blocking."""
    code = MANY_LINES.replace("with keep", "os.set_blocking(1, False)\nwith keep")
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" /dev/null 2>/dev/null | (sleep 2; wc -l)', sys.executable, code],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert int(done.stdout) == 20_000


def test_a_replaced_stream_stays(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with keep_working_without_screen() as screens:
        assert sys.stdout is before
        print("\N{GREEK SMALL LETTER ALPHA}\udc80")
    assert not screens
    assert "\\udc80" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shell", "status"), [("| head -1 >/dev/null", 0), (">/dev/full", 1), (">&-", 0)], ids=["head", "full", "closed"]
)
def test_a_command_whose_output_is_its_purpose(shell: str, status: int, tmp_path: Path) -> None:
    """A reader that ends wanted no more; a full disk loses what the user wanted."""
    said = tmp_path / "stderr"
    assert execute(MAIN, "list", "recipes", shell=f"2>{said} {shell}") == status
    assert said.read_text().count("\n") == status


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_sweep_ends_without_a_screen(workers: str, make_task: Callable[..., Path], tmp_path: Path) -> None:
    """The method prints too, from its worker."""
    plugin = tmp_path / "talks.py"
    plugin.write_text(
        "from vtab_peft.methods import METHODS, method\n\n\n"
        '@method("talks")\nclass Talks(METHODS["bitfit"]):\n    title = "Talks"\n\n'
        '    def inject(self, vit):\n        print("x" * 100_000, flush=True)\n        super().inject(vit)\n'
    )
    base = ["run", "--backbone", "toy_vit", "--weights", "random", "--recipe", "smoke", "--threads", "1"]
    where = ["--tasks", str(make_task()), "--results", str(tmp_path / "results"), "--plugin", str(plugin)]
    what = ["--methods", "linear", "talks", "--seeds", "0", "1", "--workers", workers]
    assert execute(MAIN, *base, *where, *what, shell="2>&1 | head -1 >/dev/null") == 0
    assert len(list((tmp_path / "results" / "runs").rglob("*.json"))) == 4
