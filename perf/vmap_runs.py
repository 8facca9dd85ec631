"""Compare K runs of one method trained in one pass with K separate passes.

    python perf/vmap_runs.py [--runs 8] [--batch 8] [--methods lora aoft_lora]        ViT-Tiny, random weights

Together: `torch.func.functional_call` under `vmap` over the stacked trainable tensors, with one copy of the frozen
weights and different images for each run.  In turn: the same K forward and backward passes one after the other.  Both
are measured eagerly and, on a GPU, as CUDA graphs of compiled code, which also saves kernel launches.

Writes perf/results/vmap_runs_<device>.json: images per second, the gain of the best variant together over the best in
turn, and the relative distance of the gradients.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import torch
from measured import save
from torch import Tensor, nn
from torch.func import functional_call, vmap
from vtab_peft.benchmark.engine.backbone import Backbone, load
from vtab_peft.benchmark.engine.fast_path import make_fast
from vtab_peft.benchmark.engine.injection import inject
from vtab_peft.benchmark.engine.live_model import COMPILE
from vtab_peft.benchmark.engine.numerics import ENGINES, Engine
from vtab_peft.benchmark.engine.timing import now
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.methods import parse
from vtab_peft.methods.anatomy import VisionModel

ROUNDS = 7
"""Rounds in which all variants alternate; the median counts, without the first round."""

Tensors = dict[str, Tensor]


def runs_of(spec: str, backbone: Backbone, runs: int, device: torch.device) -> list[VisionModel]:
    """Return `runs` models that differ in their seed."""
    made = [inject(backbone.vit, parse(spec), RECIPES["uniform_3ep"], seed).vit for seed in range(runs)]
    for vit in made:
        make_fast(vit, "bf16", device.type)
    return [vit.to(device).train() for vit in made]


def in_turn(models: Sequence[nn.Module], images: Tensor, engine: Engine) -> Callable[[], list[Tensors]]:
    """Return a function that computes the gradients of each run for images [runs, b, 3, h, w].

    All runs share one compiled model, as in the engine.
    """
    serving = [(vit, vit) for vit in models] if engine == "eager" else [(models[0], _compiled(models[0], engine))]

    def step() -> list[Tensors]:
        found = []
        for own, (vit, forward) in zip(images, cycle(serving), strict=False):
            vit.zero_grad()
            forward(own).float().square().mean().backward()
            found.append({name: p.grad for name, p in vit.named_parameters() if p.grad is not None})
        return found

    return step


def together(models: Sequence[nn.Module], images: Tensor, engine: Engine) -> Callable[[], Tensors]:
    """Return a function that computes the stacked gradients for images [runs, b, 3, h, w]."""
    vit = models[0]
    learning = [name for name, p in vit.named_parameters() if p.requires_grad]
    stacked = {
        name: torch.stack([model.get_parameter(name).detach() for model in models]).requires_grad_()
        for name in learning
    }

    def features(own: Tensors, images: Tensor) -> Tensor:
        return functional_call(vit, own, (images,))

    def all_features(stacked: Tensors, images: Tensor) -> Tensor:
        return vmap(features, randomness="different")(stacked, images)

    forward = all_features if engine == "eager" else _compiled(all_features, engine)

    def step() -> Tensors:
        for tensor in stacked.values():
            tensor.grad = None
        forward(stacked, images).float().square().mean(dim=(1, 2)).sum().backward()
        return {name: tensor.grad for name, tensor in stacked.items() if tensor.grad is not None}

    return step


def _compiled(work: Callable[..., Tensor], engine: Engine) -> Callable[..., Tensor]:
    made = torch.compile(work, dynamic=False, **COMPILE[engine])

    def call(*inputs: Any) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return made(*inputs)

    return call


def measure(
    spec: str, backbone: Backbone, runs: int, batch: int, engines: Sequence[Engine], device: torch.device
) -> dict[str, Any]:
    models = runs_of(spec, backbone, runs, device)
    images = torch.randn(runs, batch, 3, backbone.image_size, backbone.image_size, device=device)
    images = images.bfloat16()  # autocast ignores convolutions under vmap
    torch.compiler.reset()
    ways: dict[str, Callable[[], Any]] = {}
    for engine in engines:
        ways[f"in turn, {engine}"] = in_turn(models, images, engine)
        ways[f"together, {engine}"] = together(models, images, engine)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with torch.autocast(device.type, torch.bfloat16):
        for _ in range(ROUNDS):
            for way, work in ways.items():
                started = now(device)
                work()
                seconds[way].append(now(device) - started)
        apart = distance(in_turn(models, images, "eager")(), together(models, images, "eager")())
    rates = {way: runs * batch / statistics.median(found[1:]) for way, found in seconds.items()}
    best = {kind: max(rate for way, rate in rates.items() if way.startswith(kind)) for kind in ("together", "in turn")}
    return {
        "method": spec,
        "runs": runs,
        "batch": batch,
        "images_per_second": rates,
        "gain": best["together"] / best["in turn"],
        "gradients_apart": apart,
    }


def distance(alone: list[Tensors], stacked: Tensors) -> float:
    """Return the largest relative distance, over runs, between the gradients together and alone."""
    found = []
    for run, gradients in enumerate(alone):
        own = torch.cat([g.flatten() for g in gradients.values()])
        other = torch.cat([stacked[name][run].flatten() for name in gradients])
        found.append(float((own - other).norm() / own.norm()))
    return max(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=["lora", "aoft_lora"])
    parser.add_argument("--backbone", default="vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--batch", nargs="+", type=int, default=[8, 64])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, help="default: eager, on a GPU compiled_graphs too")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    engines = options.engines or ["eager", *(["compiled_graphs"] if device.type == "cuda" else [])]
    backbone = load(options.backbone, "random")
    rows = []
    for spec in options.methods:
        for batch in options.batch:
            row = measure(spec, backbone, options.runs, batch, engines, device)
            rows.append(row)
            rates = ", ".join(f"{way} {rate:,.0f}" for way, rate in row["images_per_second"].items())
            print(f"{spec}, {options.runs} runs of batch {batch}: images/s {rates}; gain {row['gain']:.2f}", flush=True)
            more = len(rows) < len(options.methods) * len(options.batch)
            save(f"vmap_runs_{device.type}", {"backbone": options.backbone, "rows": rows}, device, more=more)


if __name__ == "__main__":
    main()
