"""How SPT (`spt`) decides what learns: by squared gradients, within a budget of trainable parameters.

The release takes as many sensitive entries as bring the count closest to the budget (ziplab/SPT engine.py:189-297).
Here they never exceed it, and what is then left goes to the next entries of what does not learn as a whole, so that
the budget is spent exactly.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

LOOK_BATCH, LOOK_BATCHES = 32, 16
"""Images per batch, and batches (configs/*_sensitivity.sh, train_spt.py:218, 303)."""


@dataclass(frozen=True)
class Piece:
    """A matrix or a vector that is decided on as one; q, k and v are apart."""

    place: int
    part: str | None
    """The site of a matrix, None for a vector."""
    entries: int
    whole: int
    """Parameters when it learns as a whole: those of the low-rank module, or its length."""
    enough: int
    """Sensitive entries that make it learn as a whole."""


def choose(sensitivity: Tensor, pieces: Sequence[Piece], budget: int) -> tuple[Tensor, Tensor]:
    """What learns: which pieces as a whole [pieces], and which entries [entries]; both bool.

    sensitivity: [entries], those of the pieces one behind the other.
    """
    device = sensitivity.device
    entries, whole, enough, vector = (
        torch.tensor(column, device=device)
        for column in zip(*((p.entries, p.whole, p.enough, p.part is None) for p in pieces), strict=True)
    )
    order = sensitivity.argsort(descending=True, stable=True)
    piece_of = torch.arange(len(pieces), device=device).repeat_interleave(entries)
    ranked = piece_of[order]

    def sensitive(top: int) -> Tensor:  # [pieces], how many of the most sensitive entries each has
        return ranked[:top].bincount(minlength=len(pieces))

    def parameters(top: int) -> int:  # never falls as top grows, for `whole` is at least `enough`
        counts = sensitive(top)
        return int(torch.where(counts >= enough, whole, counts).sum())

    top = bisect_right(range(len(order) + 1), budget, key=parameters) - 1
    as_whole = sensitive(top) >= enough
    singles = order[~as_whole[ranked]][: budget - int(whole[as_whole].sum())]
    return as_whole, (as_whole & vector)[piece_of].index_fill(0, singles, True)


def squared_gradients(vit: VisionTransformer, tensors: Sequence[Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """[entries of all tensors], of the cross-entropy behind a random head, summed over batches.

    Which images are looked at is random, as in the release, whose lists are shuffled: stored by class, the first would
    show a few classes only.  They and the head are always the same (ours), so that what is chosen follows from the
    backbone and the images alone.
    """
    generator = torch.Generator().manual_seed(0)
    head = torch.empty(int(labels.max()) + 1, vit.num_features)
    nn.init.trunc_normal_(head, std=0.02, generator=generator)  # vision_transformer_timm.py:825
    order = torch.randperm(len(images), generator=generator).to(images.device)
    sums = [torch.zeros_like(tensor.requires_grad_(True)) for tensor in tensors]
    for batch in order.split(LOOK_BATCH)[:LOOK_BATCHES]:
        loss = F.cross_entropy(F.linear(vit(images[batch]), head.to(images.device)), labels[batch])
        for total, gradient in zip(sums, torch.autograd.grad(loss, tensors), strict=True):
            total += gradient.square()
    for tensor in tensors:
        tensor.requires_grad_(False)
    return torch.cat([total.flatten() for total in sums])
