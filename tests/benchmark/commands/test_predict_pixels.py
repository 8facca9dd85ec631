"""`predict` computes the logits of its run, bit for bit: one path from image files to classes."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import LOCAL_BACKEND, InProcessBackend
from PIL import Image
from vtab_peft.benchmark.checkpoints import restore
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.engine import evaluate
from vtab_peft.benchmark.engine.transforms import resize

SIZES = {
    "several": [(300, 225), (500, 333), (60, 95), (225, 300), (31, 97), (64, 64)],
    "portraits": [(90, 30)],
}
"""(height, width); the portraits are small and of one size, so that the run resizes them on the device."""
TESTS = 37
"""Test images.  The last batch of the run has five of them, for which torch rounds differently than for 32."""
Logits = dict[bytes, torch.Tensor]
"""Pixels that the model receives -> logits."""


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(LOCAL_BACKEND, InProcessBackend)
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Logits:
    """Return a dictionary that receives the logits of every image evaluated."""
    found: Logits = {}
    compute = evaluate.compute_logits

    def record(live, head, images: np.ndarray) -> torch.Tensor:
        logits = compute(live, head, images)
        pixels = resize(torch.from_numpy(np.array(images)), 64, "bicubic").numpy()
        found.update(zip((image.tobytes() for image in pixels), logits, strict=True))
        return logits

    for module in (evaluate, restore):
        monkeypatch.setattr(module, "compute_logits", record)
    return found


def photos(folder: Path, sizes: list[tuple[int, int]]) -> list[str]:
    """Write a task of PNG and JPEG files; return the test files in the order of the list, which is not sorted."""
    rng = np.random.default_rng(0)
    listed: list[str] = []
    for split, n in (("train800", 16), ("val200", 8), ("test", TESTS)):
        names = [f"{split}_{i}.{'jpg' if i % 3 else 'PNG'}" for i in range(n)]
        for i, name in enumerate(names):
            pixels = rng.integers(0, 156, (*sizes[i % len(sizes)], 3)) + 99 * (np.arange(3) == i % 3)
            (folder / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name)
        listed = [f"{split}/{names[i]}" for i in rng.permutation(n)]
        (folder / f"{split}.txt").write_text("".join(f"{file} {int(file[-5].isdigit())}\n" for file in listed))
    return listed


SLOW = pytest.mark.slow
CASES = [("several", "smoke"), pytest.param("several", "uniform_3ep", marks=SLOW)]
CASES += [pytest.param("portraits", "smoke", marks=SLOW), ("portraits", "uniform_3ep")]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "recipe"), CASES)  # the recipes compute in fp32 and bf16
def test_logits_of_predict_equal_those_of_the_run(
    kind: str, recipe: str, tmp_path: Path, evaluated: Logits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    task, results = tmp_path / "task", tmp_path / "results"
    files = photos(task, SIZES[kind])
    run = ["run", "--backbone", "toy_vit", "--weights", "random", "--recipe", recipe, "--seeds", "0", "--threads", "1"]
    run += ["--tasks", str(task), "--methods", "lora", "--results", str(results), "--keep-adapters"]
    assert main(run) == 0
    by_run = dict(evaluated)
    evaluated.clear()
    (adapter,) = (results / "runs").rglob("*.safetensors")
    (task / "test" / "damaged.png").write_bytes(b"no image")  # one fewer in its batch
    out = tmp_path / "out.csv"
    predict = ["predict", str(task / "test"), "--adapter", str(adapter), "--weights", "random", "--output", str(out)]
    assert main(predict) == 1
    with out.open() as file:
        classes = {f"test/{row['file']}": int(row["class"]) for row in csv.DictReader(file)}
    stored = np.load(adapter.with_suffix(".npz"))["predictions"].tolist()
    assert [classes[file] for file in files] == stored
    assert len(by_run) == TESTS
    assert by_run.keys() == evaluated.keys()
    assert all(torch.equal(by_run[image], logits) for image, logits in evaluated.items())
