"""Parameter selection of SPT (`spt`): by squared gradients, within a budget of trainable parameters.

The release selects the number of sensitive entries whose parameter count is closest to the budget (ziplab/SPT
engine.py:189-297).  Here the count never exceeds the budget.  The rest of the budget is spent on the next entries of
matrices and vectors that are not trained as a whole, so that it is used exactly.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .initial_values import trunc_normal_

LOOK_BATCH, LOOK_BATCHES = 32, 16
"""Images per batch and number of batches (configs/*_sensitivity.sh, train_spt.py:218, 303)."""


@dataclass(frozen=True)
class Piece:
    """A matrix or vector that can be trained as a whole; q, k and v are separate pieces."""

    place: int
    """Index of its module."""
    part: str | None
    """The site of a matrix, None for a vector."""
    entries: int
    whole: int
    """Trainable parameters as a whole: those of the low-rank module, or the vector's length."""
    enough: int
    """Number of sensitive entries from which it is trained as a whole."""


def choose(sensitivity: Tensor, pieces: Sequence[Piece], budget: int) -> tuple[Tensor, Tensor]:
    """Return masks of the pieces to train as a whole [pieces] and of the single entries to train [entries].

    sensitivity: [entries], concatenated over the pieces.
    """
    device = sensitivity.device
    entries, whole, enough, vector = (
        torch.tensor(column, device=device)
        for column in zip(*((p.entries, p.whole, p.enough, p.part is None) for p in pieces), strict=True)
    )
    order = sensitivity.argsort(descending=True, stable=True)
    piece_of = torch.arange(len(pieces), device=device).repeat_interleave(entries)
    ranked = piece_of[order]

    def sensitive(top: int) -> Tensor:  # [pieces], number of the most sensitive entries in each
        return ranked[:top].bincount(minlength=len(pieces))

    def parameters(top: int) -> int:  # non-decreasing in top, as `whole` is at least `enough`
        counts = sensitive(top)
        return int(torch.where(counts >= enough, whole, counts).sum())

    top = bisect_right(range(len(order) + 1), budget, key=parameters) - 1
    as_whole = sensitive(top) >= enough
    singles = order[~as_whole[ranked]][: budget - int(whole[as_whole].sum())]
    return as_whole, (as_whole & vector)[piece_of].index_fill(0, singles, True)


def squared_gradients(vit: VisionTransformer, tensors: Sequence[Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Return squared gradients [entries of all tensors] of the cross-entropy with a random head, summed over batches.

    The images are a random subset, as in the release, whose lists are shuffled; images stored by class would otherwise
    cover few classes.  Subset and head have a fixed seed (ours), so that the selection depends only on the backbone and
    the images.
    """
    generator = torch.Generator().manual_seed(0)
    head = torch.empty(int(labels.max()) + 1, vit.num_features)
    trunc_normal_(head, generator=generator)  # vision_transformer_timm.py:825
    order = torch.randperm(len(images), generator=generator).to(images.device)
    sums = [torch.zeros_like(tensor.requires_grad_(True)) for tensor in tensors]
    for batch in order.split(LOOK_BATCH)[:LOOK_BATCHES]:
        loss = F.cross_entropy(F.linear(vit(images[batch]), head.to(images.device)), labels[batch])
        for total, gradient in zip(sums, torch.autograd.grad(loss, tensors), strict=True):
            total += gradient.square()
    for tensor in tensors:
        tensor.requires_grad_(False)
    return torch.cat([total.flatten() for total in sums])
