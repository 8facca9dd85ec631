"""The suite `toy`: six small procedural tasks that need no download, no weights and no data.

Two are natural (texture, colour and shape), one is specialized (density of cells), and three are structured (count,
position, orientation).  All have nuisances: background, colours, size, clutter, shading, noise.  They test the pipeline
and catch regressions, but say nothing about real images.  Their pixels are identical on every machine (see `scene.py`);
a change of the pixels increases `version`.
"""

from collections.abc import Callable

import numpy as np

from .scene import (
    SIDE,
    Scene,
    any_of,
    bar,
    cross,
    disc,
    ellipse,
    hsv,
    inside,
    ring,
    scattered,
    square,
    triangle,
    turned,
    wave,
)
from .task import SPLITS, Split, SplitName, Task

SIZES: dict[SplitName, int] = {"train": 800, "val": 200, "test": 500}
"""VTAB-1k's 1000 labelled images; a small test set keeps `smoke` short."""
BLOCK = 20
"""Pictures that are painted at a time; the intermediate arrays fit into the processor's cache."""

TEXTURES = ("stripes", "waves", "zigzag", "checks", "grid", "dots", "rings", "bricks", "clouds", "speckle")


def texture(scene: Scene, labels: np.ndarray) -> None:
    """Fill the picture with one pattern, at any scale, angle, phase and pair of colours."""
    period = scene.uniform(7, 15)
    u, v = (axis / period for axis in turned(scene.uniform(0, SIDE), scene.uniform(0, SIDE), scene.uniform(0, 1)))
    bend = wave(v * 0.6)
    fine = scene.rng.integers(0, 256, u.shape, dtype=np.uint8).astype(np.float32) / 128 - 1
    shifted = u / 2 + 0.5 * np.mod(np.floor(v), 2)
    patterns = [
        wave(u),
        wave(u + 0.5 * bend * (2 - np.abs(bend))),
        wave(u + 0.9 * np.abs(wave(v))),
        4 * wave(u / 2) * wave(v / 2),
        2 * np.maximum(wave(u), wave(v)) - 1,
        2 * np.minimum(wave(u), wave(v)) + 0.6,
        wave(np.sqrt(u * u + v * v)),
        3 * np.maximum(wave(shifted) - 0.5, wave(v) - 0.2),
        3 * scene.smooth_noise(9),
        3 * fine * np.abs(fine),
    ]
    sharp = np.clip(0.5 + scene.uniform(0.4, 2) * any_of(patterns, labels), 0, 1)
    scene.paint(sharp * scene.uniform(0.4, 0.9), scene.contrasting())


def colour_shape(scene: Scene, labels: np.ndarray) -> None:
    """Paint one object of 4 shapes x 3 colours among small grey decoys; class = 3 * shape + colour."""
    for x, y in scattered(scene, 4, 12) if not scene.clean else []:
        u, v = turned(x, y, scene.uniform(0, 1))
        grey = hsv(scene.uniform(0, 1), scene.uniform(0, 0.15), scene.uniform(0.1, 0.9))
        scene.paint(any_of([disc(u, v, scene.uniform(2, 5)), square(u, v, scene.uniform(2, 5))], scene.choice(2)), grey)
    radius = scene.uniform(9, 15)
    u, v = turned(scene.uniform(15, SIDE - 15), scene.uniform(15, SIDE - 15), scene.uniform(0, 1))
    shapes = [square(u, v, radius), triangle(u, v, radius), cross(u, v, radius), ring(u, v, radius)]
    hue = np.mod(np.mod(labels, 3) / 3 + scene.uniform(-0.1, 0.1), 1)
    scene.paint(any_of(shapes, labels // 3), hsv(hue, scene.uniform(0.5, 1), scene.uniform(0.45, 1)))


def cells(scene: Scene, labels: np.ndarray) -> None:
    """Paint a stained slide; class = density of the cells, independent of size, stain and shape."""
    stain, size, strength = scene.uniform(0.7, 0.95), scene.uniform(2.2, 4.2), scene.uniform(0.35, 1)
    number = np.floor(3 + 6 * labels + scene.uniform(0, 4))  # 3-6, 9-12, 15-18, 21-24, 27-30
    glass = hsv(np.mod(stain + 0.08, 1), scene.uniform(0.1, 0.35), scene.uniform(0.75, 0.95))
    bodies, nuclei = np.zeros((2, scene.n, SIDE, SIDE), np.float32)
    for index in range(30):
        u, v = turned(scene.uniform(2, SIDE - 2), scene.uniform(2, SIDE - 2), scene.uniform(0, 1))
        radius, aspect = size * scene.uniform(0.8, 1.25), scene.uniform(1, 1.6)
        depth = scene.uniform(0.6, 1) * (index < number)
        far = np.sqrt(u * u + (v * aspect) ** 2)
        np.maximum(bodies, depth * inside(far - radius), out=bodies)
        np.maximum(nuclei, depth * inside(far - 0.5 * radius), out=nuclei)
    scene.paint(np.full_like(bodies, 0.7), glass)
    scene.paint(0.6 * strength * bodies, hsv(stain, scene.uniform(0.3, 0.6), scene.uniform(0.6, 0.8)))
    scene.paint(strength * nuclei, hsv(stain, scene.uniform(0.5, 0.8), scene.uniform(0.2, 0.45)))


def count(scene: Scene, labels: np.ndarray) -> None:
    """Paint one to six separate objects of mixed shapes, sizes and colours; class = their number - 1."""
    for index, (x, y) in enumerate(scattered(scene, 6, 13)):
        u, v = turned(x, y, scene.uniform(0, 1))
        radius = scene.uniform(3, 4.8)  # a corner reaches 1.2 radii, so that neighbours never touch
        shape = any_of([disc(u, v, radius), square(u, v, radius), triangle(u, v, radius)], scene.choice(3))
        scene.paint(shape * (index <= labels), scene.contrasting())


def position(scene: Scene, labels: np.ndarray) -> None:
    """Paint one object; class = the eighth of the width that holds its centre, between margins of 8 pixels."""
    x = 8 + (SIDE - 16) / 8 * (labels + scene.uniform(0.08, 0.92))
    u, v = turned(x.astype(np.float32), scene.uniform(8, SIDE - 8), scene.uniform(0, 1))
    radius = scene.uniform(4, 7)
    shape = any_of([disc(u, v, radius), square(u, v, radius), cross(u, v, radius)], scene.choice(3))
    scene.paint(shape, scene.contrasting())


def orientation(scene: Scene, labels: np.ndarray) -> None:
    """Paint one long object; class = the eighth of a half turn that its axis points to, y downwards."""
    turn = (labels + scene.uniform(0.1, 0.9)) / 16
    u, v = turned(scene.uniform(16, SIDE - 16), scene.uniform(16, SIDE - 16), turn.astype(np.float32))
    radius, aspect = scene.uniform(9, 16), scene.uniform(2.2, 5)
    shape = any_of([bar(u, v, radius, aspect), ellipse(u, v, radius, aspect)], scene.choice(2))
    scene.paint(shape, scene.contrasting())


Painter = Callable[[Scene, np.ndarray], None]
PAINTERS: dict[str, Painter] = {
    painter.__name__: painter for painter in (texture, colour_shape, cells, count, position, orientation)
}


def draw(name: str, labels: np.ndarray, rng: np.random.Generator, clean: bool = False) -> np.ndarray:
    """Paint pictures of the task `name` with the given labels [n].  [n, SIDE, SIDE, 3] uint8"""
    blocks = []
    for start in range(0, len(labels), BLOCK):
        part = labels[start : start + BLOCK].astype(np.float32)[:, None, None]
        scene = Scene(rng, len(part), clean)
        scene.clutter()
        PAINTERS[name](scene, part)
        blocks.append(scene.finish())
    return np.concatenate(blocks)


def load(task: Task) -> dict[SplitName, Split]:
    """Return the three splits, each from its own random generator and with balanced classes."""
    splits: dict[SplitName, Split] = {}
    for number, split in enumerate(SPLITS):
        rng = np.random.Generator(np.random.PCG64([task.version, number, *task.name.encode()]))
        labels = np.arange(SIZES[split]) % task.classes
        labels = labels[np.argsort(rng.random(len(labels)), kind="stable")]
        splits[split] = Split(labels=labels.astype(np.int64), images=list(draw(task.name, labels, rng)))
    return splits


def _row(name: str, group: str, class_names: tuple[str, ...]) -> Task:
    return Task(
        suite="toy",
        name=name,
        group=group,
        classes=len(class_names),
        sizes={split: (size,) for split, size in SIZES.items()},
        load=load,
        source="procedural, this file",
        licence="Apache-2.0",
        citation="this project",
        class_names=class_names,
        provenance="lossless",
    )


COLOURED = tuple(f"{c} {s}" for s in ("square", "triangle", "cross", "ring") for c in ("red", "green", "blue"))
TOY: dict[str, Task] = {
    task.name: task
    for task in (
        _row("texture", "natural", TEXTURES),
        _row("colour_shape", "natural", COLOURED),
        _row("cells", "specialized", ("sparse", "loose", "medium", "close", "dense")),
        _row("count", "structured", ("one", "two", "three", "four", "five", "six")),
        _row("position", "structured", tuple(f"column {i}" for i in range(8))),
        _row("orientation", "structured", tuple(f"{22.5 * i:g} to {22.5 * (i + 1):g} degrees" for i in range(8))),
    )
}
