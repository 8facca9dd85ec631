"""Write a set of cases with other sizes, computed by our own methods in float64.

    python tests/support/synthetic_cases.py FOLDER

The set shows only that the golden tests read every size from the case.  It is no evidence for any method, because the
same code computes and checks it.  Inputs, frozen and trained tensors are random; their shapes are those of the
project's own cases with other sizes.  The golden tests run once on them and record what they would compare.
"""

import inspect
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TESTS = Path(__file__).parents[1]

SIZES = {48: 40, 144: 120, 192: 120, 72: 60, 17: 10, 197: 10, 20: 13}
"""Size in the project's own cases -> size here.  The MLP is 3 times as wide as the model instead of 4 times."""

CASES: dict[str, dict[int, int]] = {
    "adapter_plus_block": {4: 3},
    "adaptformer_block": {4: 3},
    "aoft_lora_block": {8: 3, 47: 39, 191: 119},
    "apla_attn": {7: 3},
    "arc_block": {5: 3},
    "bi_lora_attn": {8: 3},
    "convpass_block": {8: 3},
    "difffit_block": {},
    "dora": {4: 3},
    "dtl": {2: 3, 16: 9, 32: 40, 64: 80, 96: 120},
    "fact_tk_mlp": {4: 3, 36: 30},
    "fact_tt_attn": {4: 3},
    "glora_lora_all": {4: 3},
    "kadaptation_q": {32: 8, 2: 5, 9: 10, 64: 40},
    "lora": {4: 3},
    "mona_module": {64: 3, 16: 9, 7: 9},
    "noah_lora_attn": {4: 3},
    "repadapter_block": {8: 6, 4: 3},
    "rlrr_block": {},
    "snell": {8: 6, 4: 3},
    "ssf_block": {},
    "vera": {7: 3},
    "vpt_deep": {16: 12},
}
"""Case -> sizes of this case alone, such as its rank."""

RANKS = ("r", "rank", "dim", "bottleneck", "hidden_dim", "adapter_dim", "partial_size", "q_dim", "phm_dim")
"""Hyper-parameters that are sizes."""


def write_inputs(folder: Path) -> None:
    """Write the manifest and the inputs of every case, with zeros for the gradients to record."""
    own = TESTS / "golden" / "methods"
    manifest, generator = json.loads((own / "manifest.json").read_text()), np.random.default_rng(0)
    entries: dict[str, dict[str, Any]] = {}
    for name, sizes in CASES.items():
        sizes, hyper = SIZES | sizes, manifest[name]["hyper"]
        hyper |= {key: sizes.get(hyper[key], hyper[key]) for key in RANKS if key in hyper}
        hyper |= {key: value for key, value in {"num_heads": 5, "hw": [3, 3]}.items() if key in hyper}
        entries[name] = {"hyper": hyper, "source_repo": "none: synthetic, from the code that it is compared with"}
        arrays = {}
        with np.load(own / f"{name}.npz") as official:
            for key in official.files:
                shape = [sizes.get(size, size) for size in official[key].shape]
                if key in ("x", "cotangent"):
                    shape[0] = 1
                if key.endswith("indices"):
                    arrays[key] = generator.permutation(shape[0])
                elif key in ("x", "cotangent") or key.startswith(("frozen.", "param.")):
                    arrays[key] = 0.5 * generator.standard_normal(shape, np.float32)
                elif key.startswith("grad."):
                    arrays[key] = np.zeros(shape)
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "manifest.json").write_text(json.dumps(entries, indent=1))


class Recorder:
    """A pytest plugin that stores results in the cases instead of comparing them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tests: list[str] = []
        """The tests that computed a case."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        from golden_cases import Case

        def store(case: Case, arrays: dict[str, Any]) -> None:
            case.arrays |= arrays
            np.savez(self.folder / f"{case.name}.npz", **{key: value.numpy() for key, value in case.items()})

        def check(case: Case, y: Any, x: Any, gradients: dict[str, Any], *tolerances: float, **more: float) -> None:
            zeros = case.part("grad.")
            found = {f"grad.{key}": g.reshape(zeros[key].shape) for key, g in gradients.items() if g is not None}
            store(case, {"y": y.detach(), "grad_x": x.grad, **found})

        Case.check = check
        Case.check_merged = lambda case, name, ours: store(case, {name: ours.detach()})
        items[:] = [item for item in items if re.search(r"(?<!\.)\bCase\(", inspect.getsource(item.function))]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.tests.append(report.nodeid)


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(folder)
    os.environ["VTAB_PEFT_GOLDEN"] = str(folder)
    os.chdir(TESTS.parent)
    recorder = Recorder(folder)
    files = sorted(map(str, (TESTS / "methods").glob("test_golden_*.py")))
    code = pytest.main(["-q", "-p", "no:cacheprovider", *files], plugins=[recorder])
    (folder / "tests.txt").write_text("\n".join(recorder.tests))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
