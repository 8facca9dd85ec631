"""Ablation of two parts of the fast path: time a training step with and without each.

    python perf/ablation.py --methods lora aoft_lora full

A step is the forward and the backward pass of the backbone in bf16, eager.  Variants alternate, so that other load on a
shared machine affects all of them alike.  The result is the median ratio, over rounds, of a variant's time to the full
fast path's.  Writes perf/results/ablation_<device>.json.
"""

import argparse
import copy
import statistics
from typing import Any

import torch
from measured import save
from tabulate import tabulate
from torch import Tensor
from vtab_peft.benchmark.engine.backbone import Backbone, load
from vtab_peft.benchmark.engine.fast_path import make_fast, prepare_for_bf16
from vtab_peft.benchmark.engine.injection import inject
from vtab_peft.benchmark.engine.timing import now
from vtab_peft.benchmark.recipes import UNIFORM
from vtab_peft.methods import parse, updates

VARIANTS = {
    "as it is": (True, True),
    "each low-rank update by itself": (False, True),
    "all tokens through the last block": (True, False),
    "neither": (False, False),
}
"""Variant -> (updates of one linear map are computed together, the last block computes only the class token)."""


def measure(spec: str, backbone: Backbone, batch: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Time the variants of a training step of one method."""
    whole = inject(backbone.vit, parse(spec), UNIFORM, 0).vit
    short = copy.deepcopy(whole)
    make_fast(short, "bf16", device.type)
    prepare_for_bf16(whole, device.type)
    images = torch.randn(batch, 3, backbone.image_size, backbone.image_size, device=device)
    models = {True: short.to(device).train(), False: whole.to(device).train()}
    together = updates._is_two_products
    seconds: dict[str, list[float]] = {way: [] for way in VARIANTS}
    for _ in range(rounds + 1):
        for way, (joined, pruned) in VARIANTS.items():
            updates._is_two_products = together if joined else lambda _: False
            seconds[way].append(step(models[pruned], images))
    updates._is_two_products = together
    found = {way: each[1:] for way, each in seconds.items()}  # the first round includes set-up
    own = found["as it is"]
    return {
        "method": spec,
        "batch": batch,
        "ms_per_step": {way: 1e3 * statistics.median(each) for way, each in found.items()},
        "ratio": {way: statistics.median(b / a for a, b in zip(own, each, strict=True)) for way, each in found.items()},
    }


def step(vit: torch.nn.Module, images: Tensor) -> float:
    """Return the seconds of one forward and backward pass."""
    started = now(images.device)
    with torch.autocast(images.device.type, torch.bfloat16):
        features = vit(images)
    features.float().square().sum().backward()
    vit.zero_grad()
    return now(images.device) - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=["lora", "aoft_lora", "full"])
    parser.add_argument("--backbone", default="vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device, backbone = torch.device("cuda" if torch.cuda.is_available() else "cpu"), load(options.backbone, "random")
    rows = []
    for spec in options.methods:
        rows.append(measure(spec, backbone, options.batch, options.rounds, device))
        found = {"backbone": options.backbone, "rounds": options.rounds, "rows": rows}
        save(f"ablation_{device.type}", found, device, more=spec != options.methods[-1])
    cells = [(way, *(f"{row['ms_per_step'][way]:.1f} ms, {row['ratio'][way]:.3f}" for row in rows)) for way in VARIANTS]
    print(tabulate(cells, ("", *options.methods), tablefmt="simple", colalign=("left", *["right"] * len(rows))))


if __name__ == "__main__":
    main()
