"""The live model: one injected backbone on the device that many cells train in turn, so that it is compiled once.

Every cell starts from a fresh injected copy.  Where that has the same tensors as the live model (names, shapes,
what is trained), its values are copied into the live one and whatever was compiled stays; otherwise it takes the
live model's place.  A cell is the same either way, bit for bit where the arithmetic is.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...datasets.cache import default_root
from .errors import OutOfMemory, free_memory
from .injection import Injected
from .numerics import EVAL_BATCH, Numerics
from .timing import now

COMPILE: dict[str, dict[str, Any]] = {
    "compiled": {"backend": "inductor"},
    "graphs": {"backend": "cudagraphs"},
    "compiled_graphs": {"backend": "inductor", "mode": "reduce-overhead"},
}
"""Arguments of `torch.compile` for each engine, which also captures the CUDA graphs, one for each batch shape."""


@dataclass
class LiveModel:
    """What a worker keeps on its device from cell to cell."""

    device: torch.device
    numerics: Numerics
    """As cells are computed now: as asked for, or in smaller parts since memory was short for this kind of cell."""
    _asked: Numerics = field(init=False)
    _vit: VisionTransformer | None = None
    _kind: str = ""
    _forward: Callable[[Tensor], Tensor] = field(default=lambda x: x)

    def __post_init__(self) -> None:
        self._asked = self.numerics

    def take(self, fresh: Injected, kind: str, entrance: nn.Module) -> tuple[Injected, bool]:
        """The live model with the values of `fresh`, and whether it had to be built anew, from `fresh` itself.

        kind: names everything but values that `fresh` was made from; models of different kinds share nothing.
        entrance: what images pass before the model, in the same compiled code; of one kind, one entrance.
        """
        if self._vit is not None and kind == self._kind and _alike(self._vit, fresh.vit):
            _copy(fresh.vit, self._vit)
            self._vit.zero_grad()
            return replace(fresh, vit=self._vit), False
        if kind != self._kind:
            self.numerics = self._asked
        vit = fresh.vit.to(self.device)
        vit.set_grad_checkpointing(self.numerics.checkpointing)
        whole = nn.Sequential(entrance.to(self.device), vit)
        self._vit, self._kind, self._forward = vit, kind, whole
        if self.compiles:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(default_root() / "compiled"))  # outlives the process
            torch.compiler.reset()  # the code of the model before is of no use any more
            self._forward = torch.compile(whole, dynamic=False, **COMPILE[self.numerics.engine])
        return fresh, True

    def halve(self, parts: Literal["micro_batch", "eval_batch"], size: int, reason: str) -> None:
        """Go on with half of the `size` images at a time that were too many, for all cells of this kind.

        Raises:
            OutOfMemory: it was one image already.
        """
        if size == 1:
            raise OutOfMemory(
                f"{reason}; even with one image at a time it does not fit. Take --checkpointing, a recipe in bf16, "
                "a smaller backbone, or a device with more memory, and see that no other process uses this one"
            )
        self.numerics = replace(self.numerics, **{parts: size // 2})
        if parts == "micro_batch":
            self._vit, self._forward = None, lambda x: x
        if self.compiles:  # what was compiled was for larger parts, takes memory, and its graphs may be half captured
            torch.compiler.reset()
        free_memory(self.device)

    @property
    def shortage(self) -> str:
        """What memory was too short for, in words; empty where it was not."""
        now, asked = self.numerics, self._asked
        trains = f"trained {now.micro_batch} images at a time" if now.micro_batch != asked.micro_batch else ""
        tests = f"evaluated {now.eval_batch} at a time" if now.eval_batch != asked.eval_batch else ""
        return ", ".join(text for text in (trains, tests) if text)

    @property
    def eval_batch(self) -> int:
        """Images in a forward pass of an evaluation."""
        return self.numerics.eval_batch or EVAL_BATCH[self.device.type]

    @property
    def compiles(self) -> bool:
        """Whether each new batch shape costs a compilation."""
        return self.numerics.engine != "eager"

    def features(self, images: Tensor) -> Tensor:
        """What the entrance takes, uint8 [b, 3, size, size] -> [b, d], in a tensor that stays"""
        if "graphs" not in self.numerics.engine:
            return self._forward(images)
        torch.compiler.cudagraph_mark_step_begin()
        return self._forward(images).clone()  # a graph writes its result to the same place each time

    def filled(self, features: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Features of a batch of an evaluation: filled up where another shape would be compiled for."""
        missing = self.eval_batch - len(images) if self.compiles else 0
        padded = torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images
        return features(padded)[: len(images)]

    def warm_up(self, features: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> float:
        """Train on a black batch, so that compiling ends before a cell's clock starts; seconds.

        features: as the cell computes them, of uint8 images [b, 3, h, w].
        """
        assert self._vit is not None
        started, vit = now(self.device), self._vit
        vit.train()
        if (found := features(torch.zeros(shape, dtype=torch.uint8, device=self.device))).requires_grad:
            found.sum().backward()
        vit.zero_grad()
        return now(self.device) - started


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer under every name it has, those that are not saved too."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _alike(live: nn.Module, fresh: nn.Module) -> bool:
    """Whether the two have the same tensors but for values."""

    def kinds(module: nn.Module) -> list[tuple[Any, ...]]:
        return [(name, t.shape, t.dtype, t.requires_grad) for name, t in _tensors(module)]

    return kinds(live) == kinds(fresh)


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module) -> None:
    for (_, new), (_, old) in zip(_tensors(source), _tensors(target), strict=True):
        old.copy_(new)
