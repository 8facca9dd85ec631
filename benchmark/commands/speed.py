"""The command `speed`: measure images per second, and the share of the device's peak FLOP/s that training reaches.

The share is the FLOPs of a training step (counted by torch's FLOP counter, forward and backward), divided by the FLOP/s
of the fastest large matrix product on the same device in the same process.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace

import torch

from ...methods import Method, parse
from ..engine.backbone import Backbone, BackboneError, load
from ..engine.device import choose_device, precision_notes, use_device, use_threads
from ..engine.errors import is_oom, one_line_message
from ..engine.live_model import LiveModel
from ..engine.numerics import Numerics
from ..engine.timing import device_name, provenance
from ..recipes import choose_recipe, parse_settings
from ..reporting.text_table import text_table
from ..spec import Recipe
from ..storage.json_io import check_writable, write_atomically
from .messages import say_all
from .throughput import IMAGES, Speed, check_methods, matrix_flops, measure, noise, step_flops

CLIPPING = ("clip_norm", "clip_value")
SETTINGS = ("image_size", "augmentation", "optimizer", "drop_path", "branch_dropout", "mlp_dropout", *CLIPPING)
"""Fields of the recipe that can be set here.  --batch and --precision are options; the others do not change speed."""


def speed(options: argparse.Namespace) -> int:
    """Run `vtab-peft speed`: measure, print a table, and store it if `--output` is given."""
    if options.json:
        check_writable(options.json)
    use_device(device := choose_device(options.device))
    use_threads(options.threads)
    recipe = choose_recipe("uniform", options.settings)
    if other := [name for name in parse_settings(options.settings) if name not in SETTINGS]:
        raise ValueError(f"speed has no use for {other[0]}; --set takes {', '.join(SETTINGS)} here")
    methods = [parse(spec) for spec in options.methods]
    try:
        backbone = load(options.backbone, options.weights, recipe.image_size)
    except BackboneError as error:
        raise ValueError(str(error)) from None
    check_methods(methods, backbone)
    say_all(precision_notes(device, options.precision, "use --precision fp32"))
    limit = matrix_flops(device, options.precision)
    where = f"{options.backbone} on {device_name(device)}, {options.precision}"
    print(f"{where}; limit {limit / 1e12:.3g} TFLOP/s", file=sys.stderr)
    found: list[Speed] = []
    for row in _measure_all(options, recipe, methods, backbone, device, limit):
        found.append(row)
        rate = f"{row.train_images_per_second:,.0f}"
        print(f"{row.method} · {row.engine} · batch {row.batch}: {rate} images/s", file=sys.stderr, flush=True)
        if options.json:  # after each row, so that an interrupted command keeps what is measured
            record = {
                "backbone": options.backbone,
                "precision": options.precision,
                "recipe": recipe.name,
                "limit_flops": limit,
                "rows": [asdict(row) for row in found],
                **provenance(device, sys.argv, Numerics(options.threads)),
            }
            write_atomically(options.json, (json.dumps(record, indent=1) + "\n").encode())
    print(table(found))
    return 0


def _measure_all(
    options: argparse.Namespace,
    base: Recipe,
    methods: list[Method],
    backbone: Backbone,
    device: torch.device,
    limit: float,
) -> Iterator[Speed]:
    """Measure every method with every engine and batch size."""
    images = max(options.images or IMAGES[device.type], *options.batch)
    with noise({"train": images, "val": 1, "test": max(images, 128)}, backbone.image_size) as data:
        for batch in options.batch:
            recipe = replace(base, batch_size=batch, precision=options.precision)
            flops = {method: step_flops(method, backbone, base, batch) / batch for method in methods}
            for engine in options.engine:
                live = LiveModel(device, Numerics(options.threads, engine))
                for method in methods:
                    try:
                        yield measure(method, backbone, recipe, data, live, flops[method], limit)
                    except Exception as error:
                        if not is_oom(error):
                            raise
                        reason = one_line_message(error)
                        raise ValueError(f"--batch {batch} does not fit into memory: {reason}") from None


def table(rows: list[Speed]) -> str:
    """Return the printed table."""
    lines = [
        (
            row.method,
            row.engine,
            row.batch,
            f"{row.train_images_per_second:,.0f}",
            f"{row.evaluation_images_per_second:,.0f}",
            f"{row.gflop:.1f}",
            f"{100 * row.share_of_limit:.0f} %",
            f"{row.compile_seconds:.0f}",
            f"{row.peak_bytes / 1e9:.2f}",
        )
        for row in rows
    ]
    header = ("method", "engine", "batch", "train img/s", "test img/s", "GFLOP/img", "of limit", "compile s", "peak GB")
    return text_table(header, lines, "ll" + "r" * 7)
