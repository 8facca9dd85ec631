"""SCT, salient channel tuning (Zhao et al., IJCV 2023, arXiv:2309.08513): a linear map on the most salient channels.

    x_I -> x_I + s (W x_I + b),   W: [k, k], I: the k most salient of d channels

A channel's saliency is its L2 norm over the patch tokens of all training images of a class, averaged over the classes
(showlab/SCT train_model_sct.py:27-110; adapter: models/vision_transformer_sct.py:272-307).
"""

from typing import Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .arguments import PositiveInt
from .base import Method, Paper, method
from .blocks import branches
from .initial_values import trunc_normal_

LOOK_BATCH = 32
"""Ours: batch size in `prepare`; the choice of channels does not depend on it."""


class ChannelAdapter(nn.Module):
    """x -> x + scale * (W x_I + b) on the channels I."""

    index: Tensor

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.scale, self.linear = scale, nn.Linear(channels, channels)
        trunc_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("index", torch.arange(channels))  # until `prepare` chooses

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        change = self.linear(x.index_select(-1, self.index)) * self.scale
        return x.index_add(-1, self.index, change.to(x.dtype))


@method("sct")
class SCT(Method):
    """Adds a linear adapter to the 96 channels of the residual stream that are most salient in the training images."""

    channels: PositiveInt = 96
    """Number of adapted channels, at most the backbone's width."""
    place: Literal["attn", "mlp"] = "attn"
    """attn: on the residual stream after attention; mlp: on the MLP's output, before LayerScale."""
    scale: float = 1.0
    """Scale of the adapter.  The release marks its unscaled line as test time; its training forms are scaled.

    configs/model_sct/vtab set 0.1 to 1 per task, with a median of 0.3.
    """
    title = "SCT"
    paper = Paper("IJCV", 2023, "2309.08513", "showlab/SCT")
    equation = r"x_I \leftarrow x_I + s\,(W x_I + b)"
    targets = "after the attention, 96 channels"
    evidence = "authors' training"
    differs = "The released configurations scale the adapter by 0.1 to 1 per task, in 6 of 19 the input instead."
    restores_without_examples = True  # the index is a buffer
    search = {"scale": (0.1, 0.3, 1.0)}
    starts_as_identity = False  # W ~ N(0, 0.02)

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            attention, mlp = branches(block)
            adapter = ChannelAdapter(min(self.channels, vit.embed_dim), self.scale)
            if self.place == "attn":
                vit.blocks[i] = nn.Sequential(attention, adapter, mlp)
            else:
                mlp.inner = nn.Sequential(mlp.inner, adapter)
                vit.blocks[i] = nn.Sequential(attention, mlp)

    @torch.no_grad()
    def prepare(self, vit: VisionTransformer, images: Tensor, labels: Tensor) -> None:
        """Choose channels by the pretrained model's features at the adapters; for `mlp`, after the whole block."""
        vit.eval()  # no stochastic depth
        adapters = [module for module in vit.modules() if isinstance(module, ChannelAdapter)]
        observed = adapters if self.place == "attn" else list(vit.blocks)
        features: list[Tensor] = []  # [b, n, d] of each observed module

        def bypass(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> Tensor:
            return inputs[0]

        def record(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            features.append(output)

        hooks = [adapter.register_forward_hook(bypass) for adapter in adapters]
        hooks += [module.register_forward_hook(record) for module in observed]
        squares = images.new_zeros(len(observed), int(labels.max()) + 1, vit.embed_dim)
        for batch, classes in zip(images.split(LOOK_BATCH), labels.split(LOOK_BATCH), strict=True):
            vit(batch)
            for of_class, x in zip(squares, features, strict=True):
                of_class.index_add_(0, classes, x[:, vit.num_prefix_tokens :].square().sum(1))
            features.clear()
        for hook in hooks:
            hook.remove()
        for adapter, of_class in zip(adapters, squares, strict=True):
            saliency = of_class.sqrt().sum(0)  # [d]; same order as the mean over classes
            adapter.index.copy_(saliency.topk(len(adapter.index)).indices.sort().values)

    def expected_params(self, vit: VisionTransformer) -> int:
        channels = min(self.channels, vit.embed_dim)
        return len(vit.blocks) * (channels**2 + channels)
