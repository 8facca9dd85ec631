"""What a training step keeps: activations that some gradient needs, and nothing of the frozen weights."""

from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.benchmark.engine.fast_path import prepare_for_bf16
from vtab_peft.benchmark.engine.injection import inject, wants_examples
from vtab_peft.benchmark.engine.optim import make_optimizer
from vtab_peft.benchmark.method_checks.tiny_models import NO_DROP_PATH
from vtab_peft.methods import METHODS, parse
from vtab_peft.methods.updates import TransformedLinear

D, HEADS, BLOCKS, IMAGES, TOKENS = 64, 4, 3, 5, 17

NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if METHODS[name].needs == "peft" else name for name in sorted(METHODS)
]
"""Every method; those that share the bridge to peft run in the slow tests."""


def backbone() -> VisionTransformer:
    vit = VisionTransformer(
        img_size=64, patch_size=16, embed_dim=D, depth=BLOCKS, num_heads=HEADS, num_classes=0, init_values=None
    )
    return vit.eval().requires_grad_(False)


def injected(name: str) -> VisionTransformer:
    method = parse(name)
    examples = (torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 0, 1])) if wants_examples(method) else None
    return inject(backbone(), method, NO_DROP_PATH, 0, examples).vit.train()


def kept(vit: VisionTransformer, forward: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """One tensor for each storage that the forward pass of `IMAGES` images keeps, but for the model's own tensors."""
    images = torch.randn(IMAGES, 3, 64, 64)
    own = {t.untyped_storage().data_ptr() for t in [*vit.parameters(), *vit.buffers(), images]}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        found.setdefault(tensor.untyped_storage().data_ptr(), tensor)  # kept alive, so that no storage is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward(images)
    return [tensor for place, tensor in found.items() if place not in own]


def floats(tensors: list[Tensor]) -> int:
    return sum(t.untyped_storage().nbytes() // t.element_size() for t in tensors)


def trunk(first_block: bool) -> int:
    """Floats that a frozen block keeps when a gradient passes through it: the inputs of what is not linear.

    Two norms (their input, and a mean and a deviation a token), attention (q, k, v, its output, and a normaliser a
    head and token), GELU (four times the width).  Nothing before the first thing that learns is kept.
    """
    tokens = IMAGES * TOKENS
    norm, attention, gelu = tokens * (D + 2), tokens * (3 * D + D + HEADS), tokens * 4 * D
    return norm * (1 if first_block else 2) + attention + gelu


DENSE = {
    *("boft", "fourierft", "hra", "loha", "lokr", "kadaptation", "cara", "snell"),  # the weight they add has no factors
    *("pace", "karst", "hira", "peanut"),  # their updates are products with the weight, or sums of Kronecker products
    *("gps", "spt_lora", "spt_adapter", "supertuning"),  # single entries of a weight learn
    *("randlora", "vera", "pvera"),  # their random matrices are kept by peft, in single precision
}
"""Methods that make a tensor of a weight's shape in each step; every `Transform` does, too, by its definition."""

WHOLE_TRUNK = trunk(first_block=True) + (BLOCKS - 1) * trunk(first_block=False)


def test_lora_keeps_the_input_of_q_and_v_once_and_their_low_rank_middle() -> None:
    rank, tokens = 2, IMAGES * TOKENS
    final_norm = tokens * (D + 2)
    own = BLOCKS * tokens * (D + 2 * rank)
    own += BLOCKS * 3 * D * 2 * rank + (BLOCKS - 1) * 2 * rank * D  # the factors side by side; no gradient ends block 0
    vit = injected(f"lora(rank={rank})")
    assert floats(kept(vit, vit)) == WHOLE_TRUNK + final_norm + own


def test_a_parallel_adapter_keeps_its_input_and_its_middle() -> None:
    """Nothing learns before the first MLP, so the first attention and norms are not kept."""
    tokens = IMAGES * TOKENS
    vit = injected("adaptformer(bottleneck=4, dropout=0.0)")
    own = tokens * D + BLOCKS * tokens * 4  # behind the first block its input is the norm's, kept already
    blocks = (BLOCKS - 1) * trunk(first_block=False)
    assert floats(kept(vit, vit)) == blocks + tokens * (D + 2) + own


@pytest.mark.parametrize("name", NAMES)
def test_no_copy_of_a_frozen_weight_is_kept_in_half_precision(name: str) -> None:
    """Frozen maps are stored in bf16, so autocast has nothing to cast; a transform makes weights, and says so."""
    vit = injected(name)
    prepare_for_bf16(vit, "cpu")

    def forward(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return vit(images)

    frozen = {
        tuple(sorted(p.shape))
        for module in vit.modules()
        if isinstance(module, nn.Linear)
        for p in module.parameters(recurse=False)
        if not p.requires_grad and p.ndim == 2
    }
    trained = {tuple(sorted(p.shape)) for p in vit.parameters() if p.requires_grad}
    copies = [tuple(t.shape) for t in kept(vit, forward) if tuple(sorted(t.shape)) in frozen - trained]
    makes_weights = any(isinstance(module, TransformedLinear) for module in vit.modules())
    assert bool(copies) == (makes_weights or name in DENSE), copies[:3]


@pytest.mark.parametrize("name", NAMES)
def test_the_optimiser_holds_state_of_what_learns_and_no_more(name: str) -> None:
    vit = injected(name)
    if not any(p.requires_grad for p in vit.parameters()):
        return
    optimizer = make_optimizer(vit, NO_DROP_PATH)
    vit(torch.randn(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    held = {id(parameter) for parameter in optimizer.state}
    assert held <= {id(p) for p in vit.parameters() if p.requires_grad}
    assert all(p.grad is None for p in vit.parameters() if not p.requires_grad)
