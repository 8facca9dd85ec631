"""Pretraining images of `toy_vit`: compositions of random fractals, glyphs, leaves and noise.

A `World` holds a vocabulary generated from a seed: iterated function systems (Kataoka et al., "Pre-training without
natural images", arXiv:2101.08515), glyphs (random closed outlines or strokes), noise with random spectra, and
palettes. `World.pictures` composes them: a background (plain, noise, or dead leaves as in Baradad et al.,
arXiv:2106.05963), on it a fractal or some glyphs, and sometimes a symmetry.  No shape or label of the suite `toy` is
used.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 64
FRACTALS, GLYPHS, PALETTES = 400, 64, 24
"""Our choice: so many that the model separates only a part of them after an hour on one core."""
GROUNDS = ("plain", "noise", "leaves")
SYMMETRIES = ("none", "mirror", "half turn", "kaleidoscope", "tiles")
TEMPLATE = 48
"""Side of a glyph's image in pixels."""


@dataclass(frozen=True)
class Pictures:
    """A batch of images and its labels; -1 where a label does not apply."""

    pixels: Tensor
    """[b, 3, SIDE, SIDE] uint8"""
    fractal: Tensor
    """[b] index of the fractal, or -1"""
    glyphs: Tensor
    """[b, GLYPHS] 1 if the glyph is present, else 0; -1 in images without glyphs"""
    ground: Tensor
    symmetry: Tensor
    palette: Tensor
    """[b] each"""


class World:
    """The vocabulary generated from one seed."""

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.attractors = attractors(g)  # [FRACTALS, points, 2]
        closed, open_ = outlines(GLYPHS // 2, g), strokes(GLYPHS // 2, g)
        self.templates = torch.cat([closed, open_])  # [GLYPHS, 1, TEMPLATE, TEMPLATE]
        self.noise = spectra(512, g)  # [512, SIDE, SIDE] in [0, 1]
        self.palettes = torch.rand(PALETTES, 4, 3, generator=g)  # colours 0, 1 of the ground, 2, 3 of what lies on it

    def pictures(self, b: int, g: torch.Generator) -> Pictures:
        """Compose `b` images with their labels."""
        palette = torch.randint(PALETTES, (b,), generator=g)
        colours = (self.palettes[palette] + 0.12 * torch.randn(b, 4, 3, generator=g)).clamp(0, 1)
        ground, symmetry = (torch.randint(k, (b,), generator=g) for k in (len(GROUNDS), 2 * len(SYMMETRIES)))
        symmetry = torch.where(symmetry < len(SYMMETRIES), symmetry, 0)  # more than half of the images have none
        subject = torch.randint(5, (b,), generator=g)  # 0: nothing, 1 and 2: a fractal, 3 and 4: glyphs
        image = self.grounds(ground, colours, g)
        fractal, there = torch.full((b,), -1), torch.full((b, GLYPHS), -1)
        with_fractal, with_glyphs = ((subject + 1) // 2 == kind for kind in (1, 2))
        image[with_fractal], fractal[with_fractal] = self.add_fractal(image[with_fractal], colours[with_fractal], g)
        image[with_glyphs], there[with_glyphs] = self.add_glyphs(image[with_glyphs], colours[with_glyphs], g)
        fractal[symmetry > 0], there[symmetry > 0] = -1, -1  # a symmetry may hide them
        pixels = (fold(image, symmetry, g).clamp(0, 1) * 255).round().to(torch.uint8)
        return Pictures(pixels, fractal, there, ground, symmetry, palette)

    def grounds(self, kind: Tensor, colours: Tensor, g: torch.Generator) -> Tensor:
        """Draw the backgrounds [b, 3, SIDE, SIDE]."""
        b = len(kind)
        across, down = torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE)[:, None]
        slope = torch.randn(b, 2, 1, 1, generator=g) * 0.3
        level = (0.5 + slope[:, :1] * across + slope[:, 1:] * down) * torch.rand(b, 1, 1, 1, generator=g)
        level = torch.where((kind == 1)[:, None, None, None], self.some_noise(b, g), level)
        image = mix(colours[:, 0], colours[:, 1], level)
        leafy = (kind == 2).nonzero()[:, 0]
        for _ in range(14):
            part = colours[leafy, torch.randint(4, (len(leafy),), generator=g)]
            part = (part + 0.2 * torch.randn(len(leafy), 3, generator=g)).clamp(0, 1)
            shade = (part + 0.3 * torch.randn(len(leafy), 3, generator=g)).clamp(0, 1)
            cover = self.placed(torch.randint(GLYPHS // 2, (len(leafy),), generator=g), 0.25, 0.9, 1.9, g)
            image[leafy] = image[leafy].lerp(mix(part, shade, self.some_noise(len(leafy), g)), cover)
        return image

    def some_noise(self, b: int, g: torch.Generator) -> Tensor:
        return self.noise[torch.randint(len(self.noise), (b,), generator=g)][:, None]

    def placed(self, which: Tensor, low: float, high: float, reach: float, g: torch.Generator) -> Tensor:
        """Rotate, mirror, resize and place glyphs; return their coverage [b, 1, SIDE, SIDE].

        Sizes are `low` to `high` of half the side.  A `reach` of 1 keeps glyphs inside the image.
        """
        b = len(which)
        linear, size = turns(b, low, high, g)
        centre = (2 * torch.rand(b, 2, generator=g) - 1) * (reach - size).clamp(min=0.1)
        inverse = torch.linalg.inv(linear)
        theta = torch.cat([inverse, -(inverse @ centre[:, :, None])], 2)
        grid = F.affine_grid(theta, [b, 1, SIDE, SIDE], align_corners=False)
        return F.grid_sample(self.templates[which], grid, align_corners=False)

    def add_fractal(self, image: Tensor, colours: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one fractal on each image; return the images and the indices of the fractals."""
        b = len(image)
        which = torch.randint(FRACTALS, (b,), generator=g)
        chosen = torch.randint(self.attractors.shape[1], (b, 2000), generator=g)
        points = self.attractors[which].gather(1, chosen[..., None].expand(-1, -1, 2))
        linear, size = turns(b, 0.35, 0.9, g)
        centre = (2 * torch.rand(b, 1, 2, generator=g) - 1) * (1.3 - size[:, None])
        cells = ((points @ linear.mT + centre + 1) * (SIDE / 2)).floor().long()
        seen = ((cells >= 0) & (cells < SIDE)).all(2)
        flat = torch.where(seen, cells[..., 1] * SIDE + cells[..., 0], 0)
        hits = torch.zeros(b, SIDE * SIDE).scatter_add_(1, flat, seen.float()).view(b, 1, SIDE, SIDE)
        cover = (hits * (0.3 + 0.7 * torch.rand(b, 1, 1, 1, generator=g))).clamp(max=1)
        return image.lerp(mix(colours[:, 2], colours[:, 3], self.some_noise(b, g)), cover), which

    def add_glyphs(self, image: Tensor, colours: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one to eight glyphs, smaller if there are many; half of the images repeat one glyph."""
        b = len(image)
        there = torch.zeros(b, GLYPHS, dtype=torch.long)
        first, same = torch.randint(GLYPHS, (b,), generator=g), torch.rand(b, generator=g) < 0.5
        most = torch.randint(1, 9, (b,), generator=g)
        for index in range(8):
            rows = (most > index).nonzero()[:, 0]
            which = torch.where(same, first, torch.randint(GLYPHS, (b,), generator=g))[rows]
            there[rows, which] = 1
            large = 0.5 if index < 2 else 0.3
            cover = self.placed(which, 0.14, large, 1.0, g)
            colour = colours[rows, torch.randint(2, 4, (len(rows),), generator=g)]
            colour = (colour + 0.15 * torch.randn(len(rows), 3, generator=g)).clamp(0, 1)
            image[rows] = image[rows].lerp(colour[:, :, None, None], cover)
        return image, there


def mix(first: Tensor, second: Tensor, level: Tensor) -> Tensor:
    """Interpolate between two colours [b, 3] by `level` [b, 1, SIDE, SIDE]."""
    return first[:, :, None, None].lerp(second[:, :, None, None], level)


def turns(b: int, low: float, high: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw random rotations, reflections, stretches and sizes: matrices [b, 2, 2] and sizes [b, 1]."""
    angle = 2 * torch.pi * torch.rand(b, generator=g)
    size = low + (high - low) * torch.rand(b, 1, generator=g)
    flip = 2.0 * torch.randint(2, (b,), generator=g) - 1
    stretch = 0.8 + 0.2 * torch.rand(b, generator=g)
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack([torch.stack([cos, -sin * flip], 1), torch.stack([sin, cos * flip], 1)], 1)
    return rows * torch.stack([torch.ones(b), stretch], 1)[:, None] * size[:, :, None], size


def fold(image: Tensor, symmetry: Tensor, g: torch.Generator) -> Tensor:
    """Apply one of `SYMMETRIES` to each image."""
    mirrored = torch.cat([image[..., : SIDE // 2], image[..., : SIDE // 2].flip(-1)], -1)
    turned = torch.cat([image[..., : SIDE // 2], image[..., : SIDE // 2].flip(-1, -2)], -1)
    kaleidoscope = torch.cat([mirrored[..., : SIDE // 2, :], mirrored[..., : SIDE // 2, :].flip(-2)], -2)
    tiles = F.avg_pool2d(image, 2).repeat(1, 1, 2, 2)
    kinds = torch.stack([image, mirrored, turned, kaleidoscope, tiles])
    folded = kinds[symmetry, torch.arange(len(image))]
    upright = torch.rand(len(image), 1, 1, 1, generator=g) < 0.5
    return torch.where(upright, folded, folded.mT)


def attractors(g: torch.Generator, points: int = 4096) -> Tensor:
    """Draw iterated function systems; return points of attractors that are neither sparse nor solid, of radius 1."""
    kept: list[Tensor] = []
    while len(kept) < FRACTALS:
        n, maps = 400, 4
        angles = torch.rand(2, n, maps, generator=g) * 2 * torch.pi
        scales = 0.2 + 0.65 * torch.rand(n, maps, 2, generator=g)
        left, right = (torch.stack([a.cos(), -a.sin(), a.sin(), a.cos()], -1).view(n, maps, 2, 2) for a in angles)
        matrices = left @ torch.diag_embed(scales) @ right
        shifts = 2 * torch.rand(n, maps, 2, generator=g) - 1
        used = torch.randint(2, maps + 1, (n, 1), generator=g)  # two to four maps
        place = torch.zeros(n, points, 2)
        rows = torch.arange(n)[:, None]
        for _ in range(40):
            step = (torch.rand(n, points, generator=g) * used).long()
            place = (matrices[rows, step] @ place[..., None])[..., 0] + shifts[rows, step]
        place -= place.mean(1, keepdim=True)
        place /= place.norm(dim=2).quantile(0.95, dim=1)[:, None, None]
        cells = ((place + 1) * 12).floor().long().clamp(0, 23)
        filled = torch.zeros(n, 24 * 24).scatter_(1, cells[..., 0] * 24 + cells[..., 1], 1.0).mean(1)
        kept += [p for p, f in zip(place, filled, strict=True) if 0.1 < f < 0.5]
    return torch.stack(kept[:FRACTALS])


def outlines(n: int, g: torch.Generator) -> Tensor:
    """Draw filled random closed curves r(angle), every third one hollow.  [n, 1, TEMPLATE, TEMPLATE] in [0, 1]"""
    y, x = torch.meshgrid(*(2 * [torch.linspace(-1.15, 1.15, TEMPLATE)]), indexing="ij")
    angle, radius = torch.atan2(y, x), (x * x + y * y).sqrt()
    waves = torch.arange(1, 7)[:, None, None]
    size = 0.35 * torch.randn(n, 6, 1, 1, generator=g) / waves**0.5
    curve = 1 + (size * (waves * angle + 2 * torch.pi * torch.rand(n, 6, 1, 1, generator=g)).cos()).sum(1)
    curve = curve.clamp(min=0.15) / curve.amax((1, 2), keepdim=True)
    body = ((curve - radius) * 20).clamp(0, 1)
    hole = ((0.55 * curve - radius) * 20).clamp(0, 1) * (torch.arange(n) % 3 == 0)[:, None, None]
    return (body - hole)[:, None]


def strokes(n: int, g: torch.Generator) -> Tensor:
    """Draw random open lines of four thick segments.  [n, 1, TEMPLATE, TEMPLATE] in [0, 1]"""
    y, x = torch.meshgrid(*(2 * [torch.linspace(-1.15, 1.15, TEMPLATE)]), indexing="ij")
    here = torch.stack([x, y], -1)[None]
    corners = 1.7 * torch.rand(n, 5, 1, 1, 2, generator=g) - 0.85
    near = torch.full((n, TEMPLATE, TEMPLATE), 9.0)
    for start, end in zip(corners.unbind(1)[:-1], corners.unbind(1)[1:], strict=True):
        along = end - start
        part = ((here - start) * along).sum(-1) / (along * along).sum(-1)
        near = torch.minimum(near, (here - start - part.clamp(0, 1)[..., None] * along).norm(dim=-1))
    return ((0.16 - near) * 16).clamp(0, 1)[:, None]


def spectra(n: int, g: torch.Generator) -> Tensor:
    """Draw noise with a random power-law spectrum, stretched in a random direction.  [n, SIDE, SIDE] in [0, 1]"""
    fy, fx = torch.meshgrid(torch.fft.fftfreq(SIDE), torch.fft.rfftfreq(SIDE), indexing="ij")
    angle = torch.pi * torch.rand(n, 1, 1, generator=g)
    stretch = 6 ** torch.rand(n, 1, 1, generator=g)
    frequency = (
        (fx * angle.cos() + fy * angle.sin()) ** 2 + (stretch * (fy * angle.cos() - fx * angle.sin())) ** 2
    ).sqrt()
    power = 0.5 + 2 * torch.rand(n, 1, 1, generator=g)
    peak = torch.rand(n, 1, 1, generator=g) * 0.2
    weight = 1 / ((frequency - peak).abs() + 0.03) ** power
    weight[:, 0, 0] = 0
    field = torch.fft.irfft2(torch.fft.rfft2(torch.randn(n, SIDE, SIDE, generator=g)) * weight, s=(SIDE, SIDE))
    field = field / field.std((1, 2), keepdim=True)
    return (0.5 + (0.3 + torch.rand(n, 1, 1, generator=g)) * field).clamp(0, 1)
