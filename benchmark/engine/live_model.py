"""The model on the device.  Successive runs reuse a compiled one, so that it is compiled once.

Each run starts from a fresh injected copy of the backbone.  If it is compiled, and the loaded model has the same
tensors (names, shapes, trainability), only the values are copied into it and the compiled code stays.  Otherwise the
copy replaces the model.  Both ways give the same result, bit for bit where the arithmetic is deterministic.
"""

import os
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...datasets.cache import default_root
from ...methods.anatomy import VisionModel
from ..canonical import canonical_json
from ..spec import RunSpec
from .errors import OutOfMemory, free_memory
from .injection import Injected
from .numerics import EVAL_BATCH, Numerics
from .timing import now
from .transforms import Normalize, crop_and_resize

COMPILE: dict[str, dict[str, Any]] = {
    "compiled": {"backend": "inductor"},
    "graphs": {"backend": "cudagraphs"},
    "compiled_graphs": {"backend": "inductor", "mode": "reduce-overhead"},
}
"""Arguments of `torch.compile` for each engine.  It also captures the CUDA graphs, one for each batch shape."""


@dataclass
class LiveModel:
    """The injected backbone that a worker keeps on its device from run to run."""

    device: torch.device
    numerics: Numerics
    """Current settings: those requested, with smaller batches if memory ran out for this kind of model."""
    _requested: Numerics = field(init=False)
    _vit: VisionModel | None = None
    _forward: Any = None
    """Normalisation and backbone, compiled unless the engine is eager."""
    _key: str = ""
    _spec: RunSpec | None = None
    _image_size: int = 0

    def __post_init__(self) -> None:
        self._requested = self.numerics

    def load(self, fresh: Injected, spec: RunSpec, image_size: int) -> tuple[Injected, bool]:
        """Load a freshly injected backbone; return it as loaded, and True if it replaced the previous model."""
        key = model_key(spec)
        self._spec, self._image_size = spec, image_size
        if self.compiles and self._vit is not None and key == self._key and copy_tensors(fresh.vit, self._vit):
            return replace(fresh, vit=self._vit), False
        self._vit = self._forward = None  # frees the memory of the previous model
        if key != self._key:
            self.numerics = self._requested
        vit = fresh.vit.to(self.device)
        vit.set_grad_checkpointing(self.numerics.checkpointing)
        forward = nn.Sequential(Normalize(spec.mean, spec.std).to(self.device), vit)
        self._vit, self._key, self._forward = vit, key, forward
        if self.compiles:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(default_root() / "compiled"))  # shared by processes
            torch.compiler.reset()  # drops the code of the previous model
            self._forward = torch.compile(forward, dynamic=False, **COMPILE[self.numerics.engine])
        return fresh, True

    @property
    def vit(self) -> VisionModel:
        """The loaded backbone."""
        assert self._vit is not None, "no model is loaded"
        return self._vit

    def features(self, images: Tensor) -> Tensor:
        """Compute features in the precision of the recipe.  uint8 [b, 3, h, w] as cached -> float32 [b, d]"""
        assert self._spec is not None, "no model is loaded"
        pixels = crop_and_resize(images, self._image_size, self._spec)
        graphs = "graphs" in self.numerics.engine
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._spec.recipe.precision == "bf16"):
            if graphs:
                torch.compiler.cudagraph_mark_step_begin()
            features = self._forward(pixels)
            if graphs:
                features = features.clone()  # the next replay of the graph overwrites its output
        return features.float()

    def padded_features(self, images: Tensor) -> Tensor:
        """Compute features of an evaluation batch, filled up to the size of all batches.

        So they do not depend on how many images are evaluated together: torch rounds differently in small batches.
        Another batch shape would also be compiled anew.
        """
        missing = self.eval_batch - len(images)
        padded = torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images
        return self.features(padded)[: len(images)]

    def warm_up_training(self, shape: tuple[int, ...]) -> float:
        """Compile forward and backward pass with a black batch [b, 3, h, w]; return the seconds it took."""
        started = now(self.device)
        self.vit.train()
        buffers = {name: buffer.clone() for name, buffer in self.vit.named_buffers()}
        features = self.features(torch.zeros(shape, dtype=torch.uint8, device=self.device))
        if features.requires_grad:
            features.sum().backward()
        self.vit.zero_grad()
        for name, buffer in self.vit.named_buffers():  # the black batch is part of no running statistics
            buffer.copy_(buffers[name])
        return now(self.device) - started

    def halve(self, setting: Literal["micro_batch", "eval_batch"], size: int, reason: str) -> None:
        """Halve a batch of `size` images that did not fit, for all further runs of this kind of model.

        Raises:
            OutOfMemory: the batch was a single image.
        """
        if size == 1:
            raise OutOfMemory(
                f"{reason}; even with one image at a time it does not fit. Use --checkpointing, a recipe in bf16, "
                "a smaller backbone, or a device with more memory, and check that no other process uses this one"
            )
        self.numerics = replace(self.numerics, **{setting: size // 2})
        if setting == "micro_batch":
            self._vit = self._forward = None
        if self.compiles:  # compiled for larger batches, it takes memory, and a graph may be captured in part
            torch.compiler.reset()
        free_memory(self.device)

    @property
    def oom_summary(self) -> str:
        """Batches that were reduced because memory ran out; empty if none was."""
        now, requested = self.numerics, self._requested
        train = f"trained {now.micro_batch} images at a time" if now.micro_batch != requested.micro_batch else ""
        test = f"evaluated {now.eval_batch} at a time" if now.eval_batch != requested.eval_batch else ""
        return ", ".join(text for text in (train, test) if text)

    @property
    def eval_batch(self) -> int:
        """Number of images in a forward pass of an evaluation."""
        return self.numerics.eval_batch or EVAL_BATCH[self.device.type]

    @property
    def compiles(self) -> bool:
        """True if each new batch shape costs a compilation."""
        return self.numerics.engine != "eager"


def model_key(spec: RunSpec) -> str:
    """Return a key of all that defines a run's model except its values; equal keys may share compiled code."""
    recipe = spec.recipe
    return canonical_json(
        {
            "backbone": [spec.backbone.name, spec.backbone.sha256, recipe.image_size],
            "method": spec.method.hashed(),
            "normalisation": [spec.mean, spec.std],
            "recipe": [recipe.drop_path, recipe.branch_dropout, recipe.mlp_dropout, recipe.precision],
        }
    )


@torch.no_grad()
def copy_tensors(fresh: nn.Module, loaded: nn.Module) -> bool:
    """Copy the values of a fresh model into a loaded one; return False if the loaded one has other tensors."""
    new, old = _tensors(fresh), _tensors(loaded)
    if not _same_tensors(new, old):
        return False
    for name, tensor in old.items():
        tensor.copy_(new[name])
    loaded.zero_grad()
    return True


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer under each of its names, including buffers that are not saved."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return parameters | dict(module.named_buffers(remove_duplicate=False))


def _same_tensors(new: dict[str, Tensor], old: dict[str, Tensor]) -> bool:
    """Return True if both models have the same tensors, values aside."""
    a, b = ([(n, t.shape, t.dtype, t.requires_grad) for n, t in tensors.items()] for tensors in (new, old))
    return a == b
