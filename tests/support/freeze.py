"""What must never change, as JSON: `python tests/support/freeze.py` writes the data in tests/frozen anew.

Names of the package stand at the top of this file and of freeze_commands.py, and nowhere else among the frozen tests.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from freeze_commands import commands
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from vtab_peft.benchmark.analysis.angles import null
from vtab_peft.benchmark.analysis.bounds import rademacher
from vtab_peft.benchmark.canonical import canonical_json, fingerprint
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.engine.backbone import load as load_backbone
from vtab_peft.benchmark.engine.random_streams import Stream, derive_seed
from vtab_peft.benchmark.engine.trainer import make_head as head
from vtab_peft.benchmark.engine.transforms import random_crop, random_flip
from vtab_peft.benchmark.method_checks.tiny_models import backbones_for, inject_copy, tiny
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.benchmark.reporting.leaderboard_id import by_leaderboard
from vtab_peft.benchmark.reporting.leaderboards import leaderboard
from vtab_peft.benchmark.reporting.tables import to_csv
from vtab_peft.benchmark.spec import PROTOCOL, RunSpec
from vtab_peft.benchmark.storage.schema import COLUMNS, SCHEMA
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.identity import data_hash
from vtab_peft.datasets.pixels import probe
from vtab_peft.datasets.raw.source import tfds_order
from vtab_peft.datasets.toy import TOY
from vtab_peft.methods import METHODS, parse

ROOT = Path(__file__).parents[2]
FROZEN = ROOT / "tests" / "frozen"
RESULTS = ROOT / "results"

VARIANTS = (
    *("lora(rank=4)", "lora(sites='qkvo')", "lora(sites='qkvo,fc1,fc2')", "lora_fused(rank=1)"),
    *("aoft_lora(scale='none')", "aoft_lora(rank=1)", "aoft_lora(sites='qv,fc1,fc2')", "aoft_adapter(scale='none')"),
    *("adaptformer(bottleneck=4)", "vpt_deep(tokens=5)", "vpt_shallow(tokens=5)", "repadapter(where='attn')"),
    *("arc(where='attn')", "hta(sites='qv')", "fact_tt(rank=4)", "fact_tk(rank=8)", "apla(rank=16)"),
    *("glora(a='lora', c='lora')", "bi_adaptformer(bottleneck=8)", "randlora(rank=8)"),
)
"""Beside every method at its defaults."""

SIGN_IS_FREE = ("pissa",)
"""Start from singular vectors, whose signs are the linear-algebra library's."""

SEEDS = (0, 1, 2, 7)
USES = ("initial values", "head", "crops", "flips", "dropout", "permutations")
"""What the engine asks `derive_seed` for."""
HEADS = ("trunc_normal", "normal", "zeros", "uniform", "kaiming")
TASKS = ("cifar", "clevr_count", "dsprites_loc", "kitti", "texture", "cub")
"""Recipes are frozen as they are resolved for these."""


def stored_runs() -> dict[str, str]:
    """Path of each stored record, from `results/runs`, and the key that its spec derives to today."""
    runs = RESULTS / "runs"
    return {
        str(path.relative_to(runs)): RunSpec.from_json(json.loads(path.read_text())["spec"]).run_id()
        for path in sorted(runs.rglob("*.json"))
    }


def place_of(path: str) -> str:
    """Folder of a stored record, from `results/runs`, as its spec has it."""
    spec = RunSpec.from_json(json.loads((RESULTS / "runs" / path).read_text())["spec"])
    return str(Store(RESULTS).folder(spec).relative_to(RESULTS / "runs"))


def repeat(key: str, results: Path) -> None:
    """Run a stored result of a results folder once more, as people do."""
    main(["rerun", key, "--results", str(results), "--threads", "1"])


def specs() -> list[str]:
    return [*sorted(METHODS), *VARIANTS]


def method(name: str) -> dict[str, Any]:
    """What a spec and its hash are made of."""
    cls, default = METHODS[name], parse(name)
    return {
        "version": cls.version,
        "fields": list(default.hashed_args()),
        "spec": default.spec(),
        "args": json.loads(canonical_json(default.hashed_args())),
        "lr": cls.lr,
        "frozen_features": cls.frozen_features,
        "search": json.loads(canonical_json(cls.search)),
        "variants": [variant.spec() for variant in default.variants()],
        "backbones": sorted(cls.backbones),
        "needs": cls.needs,
    }


def homes(spec: str) -> list[str]:
    """The tiny backbones on which a method is frozen."""
    return [name for name in ("plain", "Swin") if name in backbones_for(parse(spec))]


def adapter(spec: str, backbone: str) -> dict[str, list[Any]]:
    """Of each tensor: shape, dtype, sum, and sum of absolute values, as put in with seed 7."""
    tensors = inject_copy(pretrained(backbone), parse(spec), seed=7).adapter()
    return {name: described(tensor) for name, tensor in sorted(tensors.items())}


@lru_cache
def pretrained(backbone: str) -> VisionTransformer:
    """A tiny one; its weights come from the global stream, so that is seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny(backbone)


def described(tensor: Tensor) -> list[Any]:
    values = tensor.double()
    return [list(tensor.shape), str(tensor.dtype), float(values.sum()), float(values.abs().sum())]


def streams() -> dict[str, dict[str, int]]:
    return {use: {str(seed): derive_seed(seed, Stream(use)) for seed in SEEDS} for use in USES}


def uses_in_the_code() -> set[str]:
    """What any file of the package asks `derive_seed` for."""
    folders = (ROOT / name for name in ("benchmark", "methods", "datasets", "src", "vtab_peft"))
    texts = [path.read_text() for folder in folders for path in sorted(folder.rglob("*.py"))]
    names = {name for text in texts for name in re.findall(r"\bderive_seed\([\w.]+, Stream\.(\w+)\)", text)}
    return {Stream[name].value for name in names}


def draws() -> dict[str, Any]:
    """Small draws of every other random source: heads, crops, flips, untrained backbones, fixed seeds."""
    recipe = next(iter(RECIPES.values()))
    ramp = torch.arange(4 * 3 * 12 * 12).reshape(4, 3, 12, 12)
    crops, flips = (torch.Generator().manual_seed(derive_seed(7, Stream(use))) for use in ("crops", "flips"))
    x = np.random.Generator(np.random.PCG64(3)).standard_normal((6, 4))
    chance = null(((4, 8), (3, 8)))
    return {
        "head": {kind: described(head(32, 5, _changed(recipe, kind), 7).weight.detach()) for kind in HEADS},
        "crops": random_crop(ramp, 8, crops)[:, 0, 0, 0].tolist(),
        "flips": random_flip(ramp, flips)[:, 0, 0, 0].tolist(),
        "backbone": {
            str(seed): sum(described(p)[3] for p in load_backbone("toy_vit", f"random:{seed}").vit.parameters())
            for seed in (0, 7)
        },
        "bound": rademacher("x", 1.0, x).expectation,
        "null": [chance.draws, *chance.spread, *chance.distance],
        "tfds_order": tfds_order([f"key_{i}" for i in range(24)], "train"),
    }


def _changed(recipe: Any, kind: str) -> Any:
    return type(recipe)(**{f.name: getattr(recipe, f.name) for f in fields(recipe)} | {"head_init": kind})


def toy_data(name: str) -> str:
    """The hash that stored specs hold for a task of the toy suite."""
    task = TOY[name]
    splits = dict(task.load(task))
    return data_hash(task, splits, {split: [probe(image) for image in splits[split].images] for split in splits})


def toy_data_in_records() -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for record in records():
        task = record["spec"]["task"]
        if task["suite"] == "toy":
            found.setdefault(task["name"], set()).add(task["data"])
    return {name: " ".join(sorted(hashes)) for name, hashes in sorted(found.items())}


def records() -> Iterator[dict[str, Any]]:
    for path in sorted((RESULTS / "runs").rglob("*.json")):
        yield json.loads(path.read_text())


def tables() -> dict[str, bytes]:
    """Path from `results/boards` of each leaderboard.csv, and its bytes as the stored runs give them today."""
    made = (leaderboard(board, runs) for board, runs in by_leaderboard(Store(RESULTS).load_runs()[0]))
    return {f"{entry.id.slug}/leaderboard.csv": to_csv(entry).encode() for entry in made}


def committed_tables() -> dict[str, bytes]:
    folder = RESULTS / "boards"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("leaderboard.csv"))}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical() -> dict[str, str]:
    """Values with what is easy to write in another way, and their one text."""
    values = {
        "nested": {"b": [1, 2.0, None, True], "a": {"z": {}, "y": []}},
        "floats": [0.1, 1e-05, 1e16, 1e22, -0.0, 1.0, 5e-324, 123456789.123],
        "text": {"é": 'ü\n\t"\\', "10": 1, "9": 2, "": "", "😀": "/"},
        "tuple": (1, (2, 3)),
    }
    return {name: canonical_json(value) for name, value in values.items()}


def recipes() -> dict[str, dict[str, Any]]:
    return {
        name: {
            "canonical": sha256(recipe.canonical.encode()),
            "base": recipe.base,
            "tuned": recipe.tuned,
            "probe": sha256(recipe.for_probe().canonical.encode()),
            "tasks": {task: _for_task(recipe, task) for task in TASKS},
        }
        for name, recipe in sorted(RECIPES.items())
    }


def _for_task(recipe: Any, task: str) -> str | None:
    """None: the recipe has no numbers for the task."""
    try:
        return sha256(recipe.for_task(task).canonical.encode())
    except ValueError:
        return None


def record_fields() -> dict[str, list[str]]:
    """Nested names in stored records: those that all have, and those that some have; arguments of methods left out."""
    found = [paths(record) for record in records()]
    always = set.intersection(*found)
    return {"always": sorted(always), "sometimes": sorted(set.union(*found) - always)}


def paths(value: Any, at: str = "") -> set[str]:
    if not isinstance(value, dict) or at in ("spec.method.args", "spec.recipe.tasks", "spec.recipe.search"):
        return {at}
    return {path for name, below in value.items() for path in paths(below, f"{at}.{name}".lstrip("."))}


def formats() -> dict[str, Any]:
    return {
        "protocol": PROTOCOL,
        "schema": SCHEMA,
        "canonical": canonical(),
        "fingerprint": fingerprint({"a": 1}),
        "frame": list(COLUMNS),
        "tables": {name: text.split(b"\n")[0].decode() for name, text in committed_tables().items()},
        "record": record_fields(),
        "toy data": toy_data_in_records(),
    }


def frozen(name: str) -> Any:
    return json.loads((FROZEN / f"{name}.json").read_text(encoding="utf-8"))


def record() -> None:
    """Write every file of data anew; only for what has come to be, never to silence a test."""
    torch.set_num_threads(1)
    (FROZEN / "runs.txt").write_text("".join(f"{path}\n" for path in sorted(stored_runs())), encoding="utf-8")
    made = {
        "methods": {name: method(name) for name in sorted(METHODS)},
        "adapters": {f"{spec} on {home}": adapter(spec, home) for spec in specs() for home in homes(spec)},
        "streams": streams() | {"draws": draws()},
        "tables": {name: sha256(data) for name, data in committed_tables().items()},
        "commands": commands(),
        "recipes": recipes(),
        "formats": formats(),
    }
    for name, value in made.items():
        lines = [f"{json.dumps(key)}: {json.dumps(part)}" for key, part in value.items()]
        (FROZEN / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    record()
