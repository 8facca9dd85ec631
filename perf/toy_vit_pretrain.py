"""Pretrain the weights of `toy_vit`: python perf/toy_vit_pretrain.py --out FOLDER

Linear layers predict all targets from the class token.  Supervised targets are the labels of `toy_vit_images.py`:
fractal, glyphs, background, symmetry and palette.  Self-supervised targets are small maps of colour, salience, and
edge energy and direction of the clean image, while the model sees a noisy one (histograms of gradients as in Wei et
al., "MaskFeat", arXiv:2112.09133).
"""

import argparse
import math
import os
import time
from dataclasses import fields
from pathlib import Path
from typing import TextIO

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from timm.layers.config import set_fused_attn
from torch import Tensor, nn
from toy_vit_images import FRACTALS, GLYPHS, GROUNDS, PALETTES, SYMMETRIES, Pictures, World
from vtab_peft.benchmark.toy_vit import MEAN, STD, WEIGHTS, build

CHOICES = {
    "fractal": FRACTALS,
    "glyphs": GLYPHS,
    "ground": len(GROUNDS),
    "symmetry": len(SYMMETRIES),
    "palette": PALETTES,
}


def gradients(grey: Tensor) -> Tensor:
    """Compute edge energy and direction, as cosine and sine of the double and fourfold angle.  [b, 5, h, w]"""
    dx = F.pad(grey[..., 2:] - grey[..., :-2], (1, 1, 0, 0))
    dy = F.pad(grey[..., 2:, :] - grey[..., :-2, :], (0, 0, 1, 1))
    energy = (dx * dx + dy * dy + 1e-6).sqrt()
    cos, sin = (dx * dx - dy * dy) / energy**2, 2 * dx * dy / energy**2
    return torch.cat([energy, energy * cos, energy * sin, energy * (cos * cos - sin * sin), energy * 2 * cos * sin], 1)


def layout(pixels: Tensor) -> list[Tensor]:
    """Describe images [b, 3, SIDE, SIDE] at low resolution, as groups of targets [b, numbers]."""
    odd = (pixels - pixels.mean((2, 3), keepdim=True)).norm(dim=1, keepdim=True)
    salience = F.avg_pool2d(odd, 4)
    salience = (salience - salience.mean((2, 3), keepdim=True)) / (salience.std((2, 3), keepdim=True) + 0.02)
    groups = [F.avg_pool2d(pixels, 8), salience]
    for scale in (1, 4):
        edges = gradients(F.avg_pool2d(pixels.mean(1, keepdim=True), scale))
        regions = F.adaptive_avg_pool2d(edges, 4)
        whole = regions.mean((2, 3))
        groups += [regions, whole, whole[:, 1:] / (whole[:, :1] + 0.01), (whole[:, :1] + 0.01).log()]
    return [group.flatten(1) for group in groups]


class Readout(nn.Module):
    """The linear layers on the class token, used only in pretraining, and their losses."""

    def __init__(self, width: int, groups: list[int]) -> None:
        super().__init__()
        self.choices = nn.ModuleDict({name: nn.Linear(width, k) for name, k in CHOICES.items()})
        self.layout = nn.Linear(width, sum(groups))
        each = [torch.full((n,), 1 / n) for n in groups]
        self.register_buffer("weight", torch.cat(each) / len(groups))  # groups have equal weight

    def forward(self, token: Tensor, batch: Pictures, layout: Tensor) -> dict[str, Tensor]:
        losses = {}
        for name, layer in self.choices.items():
            if name != "glyphs":
                losses[name] = F.cross_entropy(layer(token), getattr(batch, name), ignore_index=-1)
        known = batch.glyphs[:, 0] >= 0
        present = self.choices["glyphs"](token)[known]
        losses["glyphs"] = 10 * F.binary_cross_entropy_with_logits(present, batch.glyphs[known].float())
        losses["layout"] = 4 * ((self.layout(token) - layout) ** 2 @ self.weight).mean()
        return losses


def pool(world: World, size: int, seed: int, block: int = 500) -> tuple[Pictures, Tensor, list[int]]:
    """Return `size` images, their standardised layouts [size, numbers] in half precision, and the group lengths."""

    def block_of(index: int) -> tuple[Pictures, list[Tensor]]:
        pictures = world.pictures(block, torch.Generator().manual_seed(seed * 10**6 + index))
        return pictures, layout(normalised(pictures.pixels))

    sample = block_of(0)[1]
    mean, std = torch.cat(sample, 1).mean(0), torch.cat(sample, 1).std(0) + 1e-4
    parts, layouts = [], []
    for index in range(size // block):
        pictures, groups = block_of(index)
        parts.append(pictures)
        layouts.append(((torch.cat(groups, 1) - mean) / std).clamp(-6, 6).half())
    return joined(parts), torch.cat(layouts), [group.shape[1] for group in sample]


def joined(parts: list[Pictures]) -> Pictures:
    return Pictures(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Pictures)))


def normalised(pixels: Tensor) -> Tensor:
    return (pixels.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def noisy(images: Tensor, g: torch.Generator) -> Tensor:
    """Add noise of a random strength to each image, up to an eighth of the range."""
    return images + torch.randn(images.shape, generator=g) * 0.25 * torch.rand(len(images), 1, 1, 1, generator=g)


def write_weights(vit: nn.Module, path: Path) -> None:
    """Write fp16 weights as safetensors, atomically."""
    data = save({name: tensor.detach().half().contiguous() for name, tensor in vit.state_dict().items()})
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Return the rate of a linear warm-up and a cosine to zero."""
    return peak * min(step / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))


class Log:
    """Writes the mean losses of every 100 steps as a line of CSV."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.start = file, time.monotonic()
        self.names = [*CHOICES, "layout"]
        self.sums = dict.fromkeys(self.names, 0.0)
        print("step", "seconds", "lr", *self.names, sep=",", file=file)

    def add(self, step: int, lr: float, losses: dict[str, Tensor]) -> None:
        self.sums = {name: self.sums[name] + losses[name].item() / 100 for name in self.names}
        if step % 100 == 0:
            numbers = [f"{self.sums[name]:.4f}" for name in self.names]
            print(
                step, f"{time.monotonic() - self.start:.0f}", f"{lr:.2e}", *numbers, sep=",", file=self.file, flush=True
            )
            self.sums = dict.fromkeys(self.names, 0.0)


def train(pictures: Pictures, layouts: Tensor, groups: list[int], args: argparse.Namespace, log: Log) -> None:
    g = torch.Generator().manual_seed(args.seed + 2)
    set_fused_attn(False)  # plain attention takes half the time in bf16 on a CPU with 17 tokens
    vit = build()
    if args.init:
        vit.load_state_dict({name: tensor.float() for name, tensor in load_file(args.init).items()})
    readout = Readout(vit.embed_dim, groups)
    optimizer = torch.optim.AdamW([*vit.parameters(), *readout.parameters()], lr=args.lr, weight_decay=0.05, fused=True)
    for step in range(1, args.steps + 1):
        rows = torch.randint(len(layouts), (args.batch,), generator=g)
        batch = Pictures(*(getattr(pictures, field.name)[rows] for field in fields(Pictures)))
        lr = optimizer.param_groups[0]["lr"] = learning_rate(step, args.steps, args.lr)
        with torch.autocast("cpu", torch.bfloat16):
            token = vit(noisy(normalised(batch.pixels), g))
        losses = readout(token.float(), batch, layouts[rows].float())
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(vit.parameters(), 1.0)
        optimizer.step()
        log.add(step, lr, losses)
        if step % 500 == 0 or step == args.steps:
            write_weights(vit, args.out / WEIGHTS.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights and the log")
    parser.add_argument("--init", type=Path, help="initial weights; the linear layers are new")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=150_000, help="150,000 take 11 GB of memory")
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "pretrain_log.csv").open("w") as file:
        log = Log(file)
        train(*pool(World(args.seed), args.pictures, args.seed + 1), args, log)


if __name__ == "__main__":
    main()
