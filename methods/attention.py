"""Attention from chosen queries, with additional keys and values, or with another temperature.

`attend` repeats the forward pass of timm's `Attention` (compared with timm 1.0.26 to 1.0.31).  Methods call
`check_attend` in `validate_backbone`.  It compares both in every block and refuses backbones where they differ, such
as those with differential attention.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .blocks import are_close


def attend(
    attention: Any,
    queries: Tensor,
    x: Tensor,
    more: tuple[Tensor, Tensor] | None = None,
    temperature: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Compute timm's `Attention` from queries [b, tokens, d] to x [b, n, d].

    more: additional keys and values [heads, m, head_dim], which are not projected.  temperature: divides the scores.
    mask: True where a query reads a token, [tokens, n].
    """
    width, bias = attention.qkv.out_features // 3, attention.qkv.bias
    w_q, w_kv = attention.qkv.weight.split([width, 2 * width])
    b_q, b_kv = (None, None) if bias is None else bias.split([width, 2 * width])
    q = F.linear(queries, w_q, b_q).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # [b, heads, tokens, -1]
    k, v = F.linear(x, w_kv, b_kv).unflatten(-1, (2, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = attention.q_norm(q), attention.k_norm(k)
    if temperature is not None:
        q = q / temperature
    if more is not None:
        k, v = (torch.cat([e.expand(len(x), -1, -1, -1).to(t.dtype), t], 2) for e, t in zip(more, (k, v), strict=True))
    read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    norm = getattr(attention, "norm", nn.Identity())  # missing in older versions of timm
    return attention.proj_drop(attention.proj(norm(read.transpose(1, 2).flatten(2))))


def check_attend_and_pooling(vit: VisionTransformer) -> None:
    """Check a backbone for methods that repeat its attention and replace its pooling.

    Raises:
        ValueError: see `check_attend`; or the features are pooled by attention.
    """
    if vit.attn_pool is not None:
        raise ValueError("its features are neither a class token nor a mean: it pools by attention")
    check_attend(vit)


def check_attend(vit: VisionTransformer) -> None:
    """Compare `attend` with timm's own forward pass in every block.

    Raises:
        ValueError: they differ, because this backbone's attention has a part that `attend` does not know.
    """
    for block in vit.blocks:
        attention = cast(Any, block).attn
        weight, training = attention.qkv.weight, attention.training
        x = torch.linspace(-1, 1, 6 * weight.shape[1]).mul(100).sin().view(2, 3, -1).to(weight)
        with torch.no_grad():
            expected = attention.eval()(x)
            found = attend(attention, x, x)
        attention.train(training)
        if not are_close(found, expected, expected):
            raise ValueError(f"its attention ({type(attention).__name__}) differs from timm's plain Attention")
