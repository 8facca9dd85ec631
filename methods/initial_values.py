"""Initial values whose draws are the same in every version of torch."""

import torch
from torch import Tensor


@torch.no_grad()
def trunc_normal_(
    tensor: Tensor, std: float = 0.02, limit: float = 2.0, generator: torch.Generator | None = None
) -> Tensor:
    """Fill a tensor with N(0, std) without values beyond `limit` on either side, and return it.

    timm's default limit of 2 is 100 standard deviations at `std` 0.02, so it cuts nothing.  The draws are those of
    `torch.nn.init.trunc_normal_` in torch 2.14; torch 2.6 draws other values from the same seed.
    """
    tensor.normal_(0, std, generator=generator)
    while not tensor.is_meta and (beyond := tensor.abs() > limit).any():
        again = torch.empty_like(tensor).normal_(0, std, generator=generator)
        tensor.copy_(torch.where(beyond, again, tensor))
    return tensor
