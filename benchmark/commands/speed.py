"""The verb `speed`: how fast the engine is in the steady state, and how much of the device's arithmetic that uses.

The share of the limit is the arithmetic that a step needs (counted by torch's flop counter, forward and backward) over
the best matrix product that the same device managed in the same process.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace

import torch
from tabulate import tabulate

from ...methods import Method, parse
from ..engine.backbone import Backbone, BackboneError, load
from ..engine.errors import is_oom, one_line_message
from ..engine.numerics import Numerics
from ..engine.timing import device_name, provenance
from ..engine.trainer import LiveModel
from ..recipes import UNIFORM
from ..storage.json_io import write_atomically
from .throughput import Speed, matrix_flops, measure, noise, training_flops

IMAGES = {"cuda": 4096, "cpu": 80}
"""In an epoch, so that one takes a second or more (ours)."""


def speed(options: argparse.Namespace) -> int:
    """`vtab-peft speed`: measure, print a table, and store it with `--json`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(options.threads)
    methods = [parse(spec) for spec in options.methods]
    try:
        backbone = load(options.backbone, options.weights)
    except BackboneError as error:
        raise ValueError(str(error)) from None
    limit = matrix_flops(device, options.precision)
    print(
        f"{options.backbone} on {device_name(device)}, {options.precision}; limit {limit / 1e12:.3g} TFLOP/s",
        file=sys.stderr,
    )
    found: list[Speed] = []
    for row in _rows(options, methods, backbone, device, limit):
        found.append(row)
        print(_line(row), file=sys.stderr, flush=True)
        if options.json:  # after each row: what is measured stays, whatever ends the command
            record = {
                "backbone": options.backbone,
                "precision": options.precision,
                "limit_flops": limit,
                "rows": [asdict(row) for row in found],
                **provenance(device, sys.argv, Numerics(options.threads)),
            }
            write_atomically(options.json, (json.dumps(record, indent=1) + "\n").encode())
    print(table(found))
    return 0


def _rows(
    options: argparse.Namespace, methods: list[Method], backbone: Backbone, device: torch.device, limit: float
) -> Iterator[Speed]:
    flops = {method: training_flops(method, backbone, UNIFORM) for method in methods}
    images = max(options.images or IMAGES[device.type], *options.batch)
    with noise({"train": images, "val": 1, "test": max(images, 128)}, backbone.image_size) as data:
        for batch in options.batch:
            recipe = replace(UNIFORM, batch_size=batch, precision=options.precision)
            for engine in options.engine:
                live = LiveModel(device, Numerics(options.threads, engine))
                for method in methods:
                    try:
                        yield measure(method, backbone, recipe, data, live, flops[method], limit)
                    except Exception as error:
                        if not is_oom(error):
                            raise
                        raise ValueError(
                            f"--batch {batch} does not fit into memory: {one_line_message(error)}"
                        ) from None


def table(rows: list[Speed]) -> str:
    cells = [
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
    return tabulate(cells, header, tablefmt="simple", disable_numparse=True, colalign=("left", "left", *["right"] * 7))


def _line(row: Speed) -> str:
    return f"{row.method} · {row.engine} · batch {row.batch}: {row.train_images_per_second:,.0f} images/s"
