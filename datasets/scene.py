"""Paint many small pictures at once with numpy, for the suite `toy`: scenes, positions and shapes.

The pixels are identical on every machine: they depend only on +, -, *, /, sqrt, floor and comparisons, which IEEE 754
rounds exactly, and on cosines that are rounded to 14 bits.
"""

import numpy as np

SIDE = 64
"""Side of a picture in pixels; that of `toy_vit`'s images."""

Y, X = (axis[None] + np.float32(0.5) for axis in np.mgrid[:SIDE, :SIDE].astype(np.float32))  # each [1, SIDE, SIDE]


class Scene:
    """`n` pictures painted together; numbers that differ between pictures have the shape [n, 1, 1].

    A clean scene shows only what the label depends on: its background is flat, without clutter or noise.
    """

    def __init__(self, rng: np.random.Generator, n: int, clean: bool = False) -> None:
        self.rng, self.n, self.clean = rng, n, clean
        self.dark = self.uniform(0, 1) < 0.5
        value = np.where(self.dark, self.uniform(0.1, 0.4), self.uniform(0.65, 0.95))
        base = hsv(self.uniform(0, 1), self.uniform(0, 0.5), value)
        self.pixels = base + np.zeros((n, SIDE, SIDE, 1), np.float32)
        if not clean:
            self.pixels += self.smooth_noise(5)[..., None] * self.uniform(0, 0.15)[..., None]

    def uniform(self, low: float, high: float) -> np.ndarray:
        return low + (high - low) * self.rng.random((self.n, 1, 1), dtype=np.float32)

    def choice(self, k: int) -> np.ndarray:
        return np.floor(self.uniform(0, k))

    def smooth_noise(self, knots: int) -> np.ndarray:
        """Return noise, uniform in [-1, 1] at `knots` x `knots` points and bilinear between.  [n, SIDE, SIDE]"""
        coarse = 2 * self.rng.random((self.n, knots, knots), dtype=np.float32) - 1
        place = X[0, 0] / SIDE * (knots - 1)
        low = np.floor(place).astype(int)
        part = place - low
        rows = coarse[:, low] * (1 - part)[:, None] + coarse[:, low + 1] * part[:, None]
        return rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part

    def contrasting(self) -> np.ndarray:
        """Return a bright colour for dark backgrounds and a dark one for bright backgrounds.  [n, 1, 1, 3]"""
        value = np.where(self.dark, self.uniform(0.7, 1), self.uniform(0.05, 0.4))
        return hsv(self.uniform(0, 1), self.uniform(0.2, 0.9), value)

    def paint(self, coverage: np.ndarray, colour: np.ndarray) -> None:
        """Blend `colour` [n, 1, 1, 3] over the pictures with opacity `coverage` [n, SIDE, SIDE]."""
        self.pixels += coverage[..., None] * (colour - self.pixels)

    def clutter(self) -> None:
        """Paint thin strokes across the picture, and specks much smaller than any object."""
        if self.clean:
            return
        for _ in range(2):
            u, _ = turned(self.uniform(0, SIDE), self.uniform(0, SIDE), self.uniform(0, 1))
            self.paint(self.uniform(0, 0.6) * inside(np.abs(u) - 0.4), self.contrasting())
        for _ in range(4):
            u, v = turned(self.uniform(0, SIDE), self.uniform(0, SIDE), self.uniform(0, 1))
            self.paint(self.uniform(0, 0.9) * disc(u, v, self.uniform(0.5, 1.3)), self.contrasting())

    def finish(self) -> np.ndarray:
        """Add sensor noise and round.  [n, SIDE, SIDE, 3] uint8"""
        if not self.clean:
            steps = self.rng.integers(0, 256, (2, *self.pixels.shape), dtype=np.uint8).astype(np.float32)
            self.pixels += (steps[0] - steps[1]) / 255 * self.uniform(0.02, 0.15)[..., None]
        return np.floor(np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Convert hue, saturation and value, each [n, 1, 1] in [0, 1), to RGB [n, 1, 1, 3] float32."""
    sector = np.mod(np.array([5, 3, 1], np.float32) + 6 * hue[..., None], 6)
    ramp = np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return (value[..., None] * (1 - saturation[..., None] * ramp)).astype(np.float32)


def turned(x: np.ndarray, y: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates (u, v) of all pixels around (x, y); the u axis is `turn` full turns from x towards y."""
    angle = 2 * np.pi * turn.astype(np.float64)
    cos, sin = (np.round(f(angle) * 2**14).astype(np.float32) / 2**14 for f in (np.cos, np.sin))
    return cos * (X - x) + sin * (Y - y), cos * (Y - y) - sin * (X - x)


def inside(distance: np.ndarray) -> np.ndarray:
    """Return the coverage of a pixel whose centre is `distance` pixels outside the outline."""
    return np.clip(0.5 - distance, 0, 1)


def disc(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the coverage of a disc, in [0, 1]."""
    return inside(np.sqrt(u * u + v * v) - radius)


def square(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the coverage of a square, in [0, 1]."""
    return inside(np.maximum(np.abs(u), np.abs(v)) - 0.85 * radius)


def triangle(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the coverage of an equilateral triangle, in [0, 1]."""
    return inside(np.maximum(v, 0.866 * np.abs(u) - 0.5 * v) - 0.6 * radius)


def cross(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the coverage of a cross, in [0, 1]."""
    near, far = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
    return inside(np.maximum(near - 0.3 * radius, far - 1.05 * radius))


def ring(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the coverage of a ring, in [0, 1]."""
    return inside(np.abs(np.sqrt(u * u + v * v) - 0.8 * radius) - 0.25 * radius)


def ellipse(u: np.ndarray, v: np.ndarray, radius: np.ndarray, aspect: np.ndarray) -> np.ndarray:
    """Return the coverage of an ellipse whose axes differ by the factor `aspect`, in [0, 1]."""
    return inside((np.sqrt(u * u + (v * aspect) ** 2) - radius) / aspect)


def bar(u: np.ndarray, v: np.ndarray, radius: np.ndarray, aspect: np.ndarray) -> np.ndarray:
    """Return the coverage of a rectangle whose sides differ by the factor `aspect`, in [0, 1]."""
    return inside(np.maximum(np.abs(u) - radius, np.abs(v) - radius / aspect))


def any_of(shapes: list[np.ndarray], which: np.ndarray) -> np.ndarray:
    """Select a shape per picture by the index `which` [n, 1, 1]."""
    return np.choose(which.astype(int), shapes)


def wave(t: np.ndarray) -> np.ndarray:
    """Return a triangle wave of period 1 in [-1, 1]."""
    return 4 * np.abs(t - np.floor(t) - 0.5) - 1


def scattered(scene: Scene, most: int, gap: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw `most` positions at least `gap` pixels apart in each picture, by rejection sampling.

    A free position always remains for `most` up to 6 and `gap` up to 13: five discs cover a square only if their radius
    is 0.326 of its side (Erich Friedman's "Circles covering squares"), here 16.6 pixels.
    """
    x, y = np.full((2, scene.n, 1, most), -1e3, np.float32)
    placed = np.zeros(scene.n, int)
    while (todo := placed < most).any():
        new_x, new_y = (gap / 2 + (1 - gap / SIDE) * scene.uniform(0, SIDE) for _ in range(2))
        free = ((x - new_x) ** 2 + (y - new_y) ** 2 > gap**2).all(axis=(1, 2)) & todo
        x[free, 0, placed[free]], y[free, 0, placed[free]] = new_x[free, 0, 0], new_y[free, 0, 0]
        placed += free
    return [(x[..., i : i + 1], y[..., i : i + 1]) for i in range(most)]
