"""timm's `Eva` (DINOv3, EVA-02, Perception Encoder) in the form of timm's plain `VisionTransformer`.

Methods know the parts of a plain ViT, and Eva has the same parts in other forms.  So a loaded Eva becomes a
`VisionTransformer` that computes the same: queries, keys and values are one linear map, the two maps of a SwiGLU are
one, layer scales are modules, and each attention holds the rotary embedding of the patches.

`plain_vit` repeats forward passes of timm (compared with timm 1.0.26 to 1.0.31) and compares each model's first block
with the installed timm.
"""

import re
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers.attention import AttentionRope
from timm.layers.layer_scale import LayerScale
from timm.layers.mlp import SwiGLU, SwiGLUPacked
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from ...methods.anatomy import VisionModel, blocks_of
from ...methods.blocks import are_close

AS_PLAIN = {"attn_type": "rope", "qkv_fused": True, "qkv_bias": True}
"""Arguments of timm that build an Eva whose queries, keys and values are one linear map with a bias."""


class RotaryAttention(AttentionRope):
    """timm's attention with rotary positions, which holds their embedding.

    The last tokens are the patches.  Tokens before them, such as prompts that a method inserts, are not rotated.
    """

    rotation: Tensor | None

    def __init__(self, attention: Any, rotation: Tensor | None) -> None:  # [patches, 2 * head_dim]: sines, cosines
        with torch.device("meta"):
            super().__init__(
                attention.proj.out_features,
                attention.num_heads,
                num_prefix_tokens=0,
                attn_head_dim=attention.head_dim,
                rotate_half=getattr(attention, "rotate_half", False),
            )
        self.qkv = _fused_qkv(attention)
        for name in ("q_norm", "k_norm", "attn_drop", "norm", "proj", "proj_drop"):
            setattr(self, name, getattr(attention, name))
        self.register_buffer("rotation", rotation, persistent=False)

    def forward(self, x: Tensor, **more: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.rotation is None:
            return super().forward(x, **more)
        sine, cosine = self.rotation.chunk(2, dim=-1)
        before = x.shape[1] - len(sine)
        rope = torch.cat([F.pad(part, (0, 0, before, 0), value=at) for part, at in ((sine, 0.0), (cosine, 1.0))], -1)
        return super().forward(x, rope=rope, **more)


def is_from_eva(vit: VisionModel) -> bool:
    """Return True for an unmodified result of `plain_vit`."""
    return isinstance(blocks_of(vit)[0].block.attn, RotaryAttention)


def refusal(eva: Eva) -> str:
    """Return what of an Eva the form of a plain ViT cannot express; empty if nothing."""
    if getattr(eva, "rope_mixed", False):
        return "its rotary frequencies are trained tensors, others in every block"
    for block in eva.blocks:
        if type(block) is not EvaBlock:
            return f"its blocks are {type(block).__name__}"
        if getattr(block.attn, "num_kv_groups", 1) > 1:
            return "its queries share keys and values in groups"
        if getattr(block.attn, "gate", None) is not None:
            return "its attention has gates"
    return ""


def plain_vit(eva: Eva) -> VisionTransformer:
    """Return the plain ViT of an Eva, which must not be used afterwards: both share tensors.

    Raises:
        ValueError: the model is no Eva, has a part that no plain ViT has, or timm computes it in another way.
    """
    if not isinstance(eva, Eva):
        raise ValueError(f"plain_vit takes models of timm's class Eva; {type(eva).__name__} needs no conversion")
    if reason := refusal(eva):
        raise ValueError(f"this Eva has no form as a plain ViT: {reason}")
    height, width = cast(tuple[int, int], eva.patch_embed.img_size)
    images = torch.linspace(-1, 1, 3 * height * width).mul(1e4).sin().view(1, 3, height, width)
    images = images.to(next(eva.parameters()))
    blocks, training = eva.blocks, eva.training
    with torch.no_grad():
        rotation = eva.eval()._pos_embed(eva.patch_embed(images))[1]
        eva.blocks = blocks[:1]
        expected = eva(images)
        eva.blocks = blocks
        vit = with_plain_parts(eva, rotation).eval()
        rest, vit.blocks = vit.blocks, vit.blocks[:1]
        found = vit(images)
        vit.blocks = rest
    if not are_close(found, expected, expected):
        raise ValueError(f"timm {timm.__version__} computes this Eva in another way than this suite")
    return vit.train(training)


def timm_tensors(vit: VisionTransformer, eva: Eva) -> dict[str, Tensor]:
    """Return the tensors of a plain ViT under the names of an Eva that was built with `AS_PLAIN`."""
    own = eva.state_dict()
    names, found = {*own}, {name: tensor for name, tensor in own.items() if name.endswith("attn.qkv.bias")}  # zeros
    for name, tensor in vit.state_dict().items():
        name = re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name)
        halves = [name.replace(".fc1.", f".{half}.") for half in ("fc1_g", "fc1_x")]
        found |= {name: tensor} if name in names else dict(zip(halves, tensor.chunk(2), strict=True))
    return found


def with_plain_parts(eva: Eva, rotation: Tensor | None = None) -> VisionTransformer:
    """Return a plain ViT with the modules of an Eva, whose attention rotates by `rotation`."""
    with torch.device("meta"):
        vit = VisionTransformer(
            patch_size=1,
            img_size=1,
            embed_dim=eva.embed_dim,
            depth=0,
            num_heads=1,
            num_classes=0,
            global_pool=cast(Any, eva.global_pool),
            class_token=eva.cls_token is not None,
            reg_tokens=eva.num_prefix_tokens - (eva.cls_token is not None),
            no_embed_class=eva.no_embed_class,
            dynamic_img_size=eva.dynamic_img_size,
        )
    for name in ("cls_token", "reg_token", "patch_embed", "pos_drop", "norm_pre", "norm", "attn_pool", "fc_norm"):
        setattr(vit, name, getattr(eva, name))
    for name in ("head_drop", "head", "num_classes", "in_chans"):
        setattr(vit, name, getattr(eva, name))
    vit.pool_include_prefix = eva.attn_pool is not None
    vit.pos_embed = eva.pos_embed
    if eva.pos_embed is None:  # zeros, because timm before 1.0.31 forgets the class token without positions
        del vit.pos_embed
        tokens = eva.patch_embed.num_patches + (0 if eva.no_embed_class else eva.num_prefix_tokens)
        zeros = next(eva.parameters()).new_zeros(1, tokens, eva.embed_dim)
        vit.register_buffer("pos_embed", zeros, persistent=False)
    vit.blocks = nn.Sequential(*(_block(cast(EvaBlock, block), rotation) for block in eva.blocks))
    return vit


def _block(old: EvaBlock, rotation: Tensor | None) -> Block:
    d = len(old.norm1.weight)
    with torch.device("meta"):
        block = Block(d, num_heads=1)
    block.attn = RotaryAttention(old.attn, rotation)
    block.mlp = _packed(old.mlp) if isinstance(old.mlp, SwiGLU) else old.mlp
    for i in "12":
        for name in (f"norm{i}", f"drop_path{i}"):
            setattr(block, name, getattr(old, name))
        if (gamma := getattr(old, f"gamma_{i}")) is not None:
            scale = LayerScale(d, device=torch.device("meta"))
            scale.gamma = gamma
            setattr(block, f"ls{i}", scale)
    return block


def _packed(mlp: SwiGLU) -> nn.Module:
    """Return a SwiGLU whose fc1 computes gate and values."""
    d, hidden = mlp.fc1_g.in_features, mlp.fc1_g.out_features
    with torch.device("meta"):
        packed = SwiGLUPacked(d, 2 * hidden)
    packed.fc1 = _stacked([(half.weight, half.bias) for half in (mlp.fc1_g, mlp.fc1_x)])
    for name in ("act", "drop1", "norm", "fc2", "drop2"):
        setattr(packed, name, getattr(mlp, name))
    return packed


def _fused_qkv(attention: Any) -> nn.Linear:
    """Return queries, keys and values as one linear map; a bias that only some of them have is zero in the others."""
    if attention.qkv is None:
        return _stacked([(one.weight, one.bias) for one in (attention.q_proj, attention.k_proj, attention.v_proj)])
    if getattr(attention, "q_bias", None) is None:
        return attention.qkv
    biases = attention.q_bias, None, attention.v_bias
    return _stacked(list(zip(attention.qkv.weight.chunk(3), biases, strict=True)))


def _stacked(maps: list[tuple[Tensor, Tensor | None]]) -> nn.Linear:
    """Return one linear map with the rows of several."""
    weight = torch.cat([weight for weight, _ in maps]).detach()
    linear = nn.Linear(weight.shape[1], len(weight), bias=any(bias is not None for _, bias in maps), device="meta")
    linear.weight = nn.Parameter(weight, weight.requires_grad)
    if linear.bias is not None:
        pieces = [rows.new_zeros(len(rows)) if bias is None else bias for rows, bias in maps]
        linear.bias = nn.Parameter(torch.cat(pieces).detach())
    return linear
