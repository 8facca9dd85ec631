"""Names of tensors in Hugging Face's ViTs (ViT, DeiT, ViTMAE, DINOv2), translated to those that timm reads.

Both layouts of transformers are known: `encoder.layer.0.attention.attention.query` until version 4, and
`layers.0.attention.q_proj` since.
"""

import re

import torch
from torch import Tensor

PATCHES = "embeddings.patch_embeddings.projection.weight"
"""A tensor that every such checkpoint has, after the prefix of its model: `vit.`, `deit.`, `dinov2.` or none."""

_RENAMED = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.register_tokens", "register_tokens"),  # timm converts DINOv2's registers
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"attention\.(?:attention\.query|q_proj)\.", "attn.q."),
    (r"attention\.(?:attention\.key|k_proj)\.", "attn.k."),
    (r"attention\.(?:attention\.value|v_proj)\.", "attn.v."),
    (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
    (r"(?:intermediate\.dense|mlp\.weights_in)\.", "mlp.fc1."),
    (r"(?<!attention\.)(?:output\.dense|mlp\.weights_out)\.", "mlp.fc2."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)


def is_hugging_face(state: dict[str, Tensor]) -> bool:
    """Return True for tensors named as in transformers' ViTs."""
    return any(name.endswith(PATCHES) for name in state)


def in_timm_names(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors under timm's names, with query, key and value joined, and the names of those left out.

    Left out are the pooler, the classifier and the decoder, which timm's model does not have.
    """
    root = next(name for name in state if name.endswith(PATCHES)).removesuffix(PATCHES)
    part = re.compile(re.escape(root) + r"(?:embeddings|encoder|layers?|layernorm)\.")
    encoder = {name: tensor for name, tensor in state.items() if part.match(name)}
    renamed = {}
    for name, tensor in encoder.items():
        new = name.removeprefix(root)
        for old, ours in _RENAMED:
            new = re.sub(old, ours, new)
        renamed[new] = tensor
    return _with_joint_qkv(renamed), sorted(set(state) - set(encoder))


def _with_joint_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    joined = {}
    for name, tensor in state.items():
        if (found := re.fullmatch(r"(.*\.attn)\.([qkv])\.(weight|bias)", name)) is None:
            joined[name] = tensor
        elif found[2] == "q" and all(f"{found[1]}.{part}.{found[3]}" in state for part in "kv"):
            rows = [state[f"{found[1]}.{part}.{found[3]}"] for part in "qkv"]
            joined[f"{found[1]}.qkv.{found[3]}"] = torch.cat(rows)
    return joined
