"""Profile a training step by kind of operation.

    python perf/profile_step.py --weights FILE --backbone vit_tiny_patch16_224.augreg_in21k_ft_in1k     a CPU, batch 8
    python perf/profile_step.py --batch 64 --engine compiled_graphs                                a GPU, ViT-B/16

torch's profiler records the engine's training loop from the second epoch on, with images of noise.  On a CPU it
measures operations, on a GPU kernels.  The rest of the wall time is the host's: Python, autograd, kernel launches,
and the profiler itself.  A fused kernel of Inductor counts for the first kind that its name contains.  Writes
perf/results/profile_<device>.json, on a GPU with the slowest kernels.
"""

import argparse
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from measured import save
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from vtab_peft.benchmark.commands.throughput import noise, spec_of
from vtab_peft.benchmark.engine.backbone import Backbone, load
from vtab_peft.benchmark.engine.live_model import LiveModel
from vtab_peft.benchmark.engine.numerics import ENGINES, Numerics
from vtab_peft.benchmark.engine.timing import now
from vtab_peft.benchmark.engine.trainer import train
from vtab_peft.benchmark.recipes import UNIFORM
from vtab_peft.benchmark.reporting.text_table import text_table
from vtab_peft.methods import parse

STEPS = {"cuda": 20, "cpu": 10}
KERNELS = 40
"""Number of kernels listed by name (our choice)."""
KINDS = {
    "attention, fused kernel": r"scaled_dot_product|flash|efficient_attention|fmha|dot_do_o|convert_dq",
    "softmax": r"softmax",
    "GELU": r"gelu",
    "LayerNorm": r"layer_norm",
    "optimiser": r"adam|sgd|foreach|_norm\b",
    "matrix products": r"mm\b|gemm|conv|cutlass|nvjet|wgrad|dgrad|sm\d+_x",
    "casts, copies, concatenation": r"copy|cat\b|Cat|clone|contiguous|Memcpy|index|gather",
}
"""Kinds and patterns of the profiler's names; the first match counts, and the rest are sums, products and fills."""
NO_KERNELS = ("Command Buffer Full",)
"""Names that the profiler lists as kernels, although the host waits for the GPU."""
OTHERS = "sums, products, fills"
HOST = "host, and the profiler"


class Window:
    """A progress function that profiles from the end of the first epoch to the end of the last."""

    def __init__(self, device: torch.device) -> None:
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        self.device, self.profiler, self.seconds = device, profile(activities=activities), 0.0

    def __call__(self, phase: str, done: int, of: int, *_: object) -> None:
        if phase == "train" and done == 1:
            self.profiler.start()
            self.seconds = -now(self.device)
        if phase == "train" and done == of:
            self.seconds += now(self.device)
            self.profiler.stop()

    def by_name(self) -> dict[str, tuple[float, int]]:
        """Return seconds and calls of each operation, or on a GPU of each kernel."""
        events = self.profiler.key_averages()
        if self.device.type == "cpu":
            return {event.key: (event.self_cpu_time_total / 1e6, event.count) for event in events}
        kernels = [e for e in events if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
        return {e.key: (e.self_device_time_total / 1e6, e.count) for e in kernels if e.key not in NO_KERNELS}

    def by_kind(self, names: dict[str, tuple[float, int]]) -> dict[str, float]:
        """Return the seconds of each kind, from the result of `by_name`."""
        found: Counter[str] = Counter()
        for name, (seconds, _) in names.items():
            found[kind_of(name)] += seconds
        found[HOST] = max(self.seconds - sum(found.values()), 0.0)
        return dict(found)


def kind_of(name: str) -> str:
    """Return the kind of an operation or a kernel."""
    if not name.startswith("aten::") and re.match(r"autograd::|Optimizer|ProfilerStep|torch::", name):
        return HOST
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), OTHERS)


def shares(spec: str, backbone: Backbone, batch: int, live: LiveModel) -> dict[str, Any]:
    """Return the wall time of a method's training step in milliseconds, and the share of each kind."""
    steps, window, method = STEPS[live.device.type], Window(live.device), parse(spec)
    recipe = replace(UNIFORM, batch_size=batch, epochs=2, warmup_epochs=0)
    with noise({"train": steps * batch, "val": 1, "test": 1}, backbone.image_size) as data:
        train(spec_of(method, backbone, data, recipe), method, backbone, data, live, window)
    names = window.by_name()
    found = window.by_kind(names)
    total = sum(found.values())
    longest = sorted(names.items(), key=lambda item: -item[1][0])[:KERNELS]
    return {
        "method": spec,
        "engine": live.numerics.engine,
        "batch": batch,
        "ms_per_step": 1000 * window.seconds / steps,
        "shares": {kind: seconds / total for kind, seconds in sorted(found.items(), key=lambda item: -item[1])},
        "longest": [
            {"name": name, "ms_per_step": 1000 * seconds / steps, "calls_per_step": calls / steps}
            for name, (seconds, calls) in longest
        ],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table with one column for each method, engine and batch size."""
    kinds = sorted({kind for row in rows for kind in row["shares"]}, key=lambda kind: -rows[0]["shares"].get(kind, 0))
    body = [(kind, *(f"{100 * row['shares'].get(kind, 0):.0f} %" for row in rows)) for kind in kinds]
    body.append(("ms a step", *(f"{row['ms_per_step']:.0f}" for row in rows)))
    header = ("", *(f"{row['method']}, {row['engine']}, batch {row['batch']}" for row in rows))
    return text_table(header, body, "l" + "r" * len(rows), "github")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="vit_base_patch16_224.augreg_in21k")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--methods", nargs="+", default=["lora", "aoft_lora", "full"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--engine", nargs="+", default=["eager"], choices=ENGINES)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = load(options.backbone, options.weights)
    rows: list[dict[str, Any]] = []
    for engine in options.engine:
        live = LiveModel(device, Numerics(options.threads, engine))
        for spec in options.methods:
            rows.append(shares(spec, backbone, options.batch, live))
            more = len(rows) < len(options.engine) * len(options.methods)
            save(f"profile_{device.type}", {"backbone": options.backbone, "rows": rows}, device, more=more)
    print(table(rows))


if __name__ == "__main__":
    main()
