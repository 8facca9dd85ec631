"""The Python API in a real Jupyter kernel: workers are spawned, and progress arrives in the output of the cell."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

CELL = """
import vtab_peft
runs = vtab_peft.run(methods=["linear", "lora(rank=2)"], tasks={task!r}, backbone="toy_vit", weights="random",
                     recipe="smoke", seeds=[0, 1], workers=2, threads=1, results="results")
print("found", len(runs), sorted(runs["method"].unique()))
"""
EXECUTE = """
import nbclient, nbformat
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(open("cell.py").read())])
nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
nbformat.write(book, "done.ipynb")
"""


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("nbclient") and find_spec("ipykernel")), reason="pip install nbclient ipykernel")
def test_run_works_in_a_notebook(make_task: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "cell.py").write_text(CELL.format(task=str(make_task())))
    command = [sys.executable, "-c", EXECUTE]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads((tmp_path / "done.ipynb").read_text())["cells"]
    said = dict.fromkeys(("stdout", "stderr"), "")
    for output in cell["outputs"]:
        said[output["name"]] += "".join(output["text"])
    assert "found 4 ['linear', 'lora']" in said["stdout"]
    assert "[4/4]" in said["stderr"]
