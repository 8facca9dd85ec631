"""DA-VPT, distribution-aware VPT (Ren et al., CVPR 2025, arXiv:2505.23694): prompts that are proxies of classes.

    loss = CE + mean over proxy blocks of [w_1 PA(mean patch, P) + w_2 PA(W_q LN(cls), P)]

PA is the proxy-anchor loss of cosines, with alpha = 32 and delta = 0.1.  Each class belongs to one prompt, found by
k-means of the classes' mean features before training; several classes share a prompt if there are fewer prompts.
DA-VPT+ also trains biases and norms (Noahsark/DA-VPT models/vpt.py, models/criterion.py, model_creator.py:197-258).
"""

from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import patch_convolution
from .arguments import PositiveInt, Rate
from .base import Loss, Method, Paper, method
from .updates import Update, UpdatedLinear
from .vpt import FreePrompts, PromptedBlock

ALPHA, DELTA = 32.0, 0.1
DIVISOR = 8.0
"""Divisor of the initial prompts in all configurations for VTAB."""
K_MEANS_STEPS = 20
BATCH = 64


def proxy_anchor(embeddings: Tensor, proxies: Tensor, assigned: Tensor, scale: float) -> Tensor:
    """Return the proxy-anchor loss of embeddings [b, d] for proxies [k, d] and the proxy of each embedding [b]."""
    similar = scale * F.cosine_similarity(embeddings[:, None].to(proxies.dtype), proxies, dim=-1)  # [b, k]
    own = F.one_hot(assigned, len(proxies)).bool()
    exponents = torch.where(own, -ALPHA * (similar - DELTA), ALPHA * (similar + DELTA))
    zero = exponents.new_zeros(1, len(proxies))  # the one in log(1 + sum exp)
    near, far = (torch.cat([zero, exponents.masked_fill(~of, -torch.inf)]).logsumexp(0) for of in (own, ~own))
    return near.mean() + far.mean()


@torch.no_grad()
def cosine_k_means(points: Tensor, k: int) -> Tensor:
    """Return the cluster of each point, [n], for points [n, d] that are first normalised to mean 0 and variance 1."""
    points = F.layer_norm(points, points.shape[1:])
    centres = points[torch.randperm(len(points))[:k].to(points.device)]
    cluster = torch.zeros(len(points), dtype=torch.long, device=points.device)
    for _ in range(K_MEANS_STEPS):
        cluster = F.cosine_similarity(points[:, None], centres, dim=-1).argmax(1)
        means = [points[cluster == i].mean(0) if (cluster == i).any() else centres[i] for i in range(k)]
        centres = torch.stack(means)
    return cluster


class ProxiedBlock(PromptedBlock):
    """A block whose prompts are proxies; in training it keeps the embeddings of its images until the loss."""

    mapping: Tensor

    def __init__(self, block: nn.Module, prompts: FreePrompts, prefix: int, dropout: float) -> None:
        super().__init__(block, prompts, prefix, dropout)
        self.register_buffer("mapping", torch.zeros(0, dtype=torch.long), persistent=False)  # class -> prompt
        self.embeddings: tuple[Tensor, Tensor] | None = None

    def prompted(self, x: Tensor) -> Tensor:
        if self.training:
            h = self.block.get_submodule("norm1")(x[:, :1])
            query = self.block.get_submodule("attn.qkv")(h)[:, 0, : x.shape[-1]]
            self.embeddings = x[:, self.prefix :].mean(1), query
        return super().prompted(x)

    def metric_loss(self, labels: Tensor, weights: tuple[float, float], scale: float) -> Tensor:
        """Return the weighted losses of the mean patch and of the class token's query, and forget both."""
        assert self.embeddings is not None, "the block has seen no batch in training mode"
        embeddings, self.embeddings = self.embeddings, None
        # A class without image in `prepare` shares a prompt with another one
        assigned = self.mapping[labels.clamp(max=len(self.mapping) - 1)]
        proxies = cast(FreePrompts, self.prompts).tokens
        patch, query = (proxy_anchor(embedded, proxies, assigned, scale) for embedded in embeddings)
        return weights[0] * patch + weights[1] * query


class Shift(Update):
    """A trained change of a bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias

    def delta(self) -> Tensor:
        return torch.zeros(())

    def bias_delta(self) -> Tensor:
        return self.bias


@method("da_vpt")
class DAVPT(Method):
    """Inserts trained tokens before every block; in later blocks a metric loss makes them proxies of classes."""

    tokens: PositiveInt = 20
    """Prompts of blocks without proxies."""
    proxies: PositiveInt = 20
    first: int = 3
    """First block with proxies, which continue to the last block."""
    patch_weight: float = 1.0
    cls_weight: float = 0.05
    scale: float = 5.0
    """Scale of the cosines.  These five numbers are those of configs/vtab/vitb_cifar100.yaml."""
    dropout: Rate = 0.0
    title = "DA-VPT"
    paper = Paper("CVPR", 2025, "2505.23694", "Noahsark/DA-VPT")
    equation = (
        r"\mathcal{L} = \mathrm{CE} + \mathrm{mean}_l\,[w_1 \mathrm{PA}(\bar{x}_l, P_l)"
        r" + w_2 \mathrm{PA}(W_q \mathrm{LN}(x_{cls}), P_l)]"
    )
    targets = "tokens of every block"
    evidence = "authors' training"
    differs = (
        "The release cuts each entry of a gradient at 10 (`--set clip_value=10`), decays the head by a rate of its "
        "own, puts two images of a class into each batch, and often assigns the classes anew after each epoch."
    )
    search = {"patch_weight": (0.01, 0.5, 1.0), "cls_weight": (0.01, 0.05, 0.5)}  # within the released range
    starts_as_identity = False
    needs_whole_batch = True  # its metric loss compares images
    restores_without_examples = True  # the classes of the proxies are used in training only
    with_biases: ClassVar[bool] = False

    def validate_backbone(self, vit: VisionTransformer) -> None:
        if not vit.has_class_token:
            raise ValueError("it has no class token, which the loss compares with the prompts")

    def inject(self, vit: VisionTransformer) -> None:
        depth, prefix = len(vit.blocks), vit.num_prefix_tokens
        first = min(max(self.first, 0), depth - 1)
        shapes = ((first, self.tokens), (depth - first, self.proxies))
        prompts = [
            tokens / DIVISOR
            for blocks, n in shapes
            for tokens in nn.init.xavier_uniform_(torch.empty(max(blocks, 1), n, vit.embed_dim))[:blocks]
        ]
        for i, block in enumerate(vit.blocks):
            if self.with_biases:
                train_biases(block, vit.embed_dim)
            kind = PromptedBlock if i < first else ProxiedBlock
            vit.blocks[i] = kind(block, FreePrompts(prompts[i]), prefix, self.dropout)
        if self.with_biases:
            cast(nn.Parameter, vit.cls_token).requires_grad_(True)
            if (bias := patch_bias(vit)) is not None:
                bias.requires_grad_(True)

    @torch.no_grad()
    def prepare(self, vit: VisionTransformer, images: Tensor, labels: Tensor) -> None:
        prompted, training = vit.blocks, vit.training
        vit.blocks = nn.Sequential(*(cast(PromptedBlock, block).block for block in prompted))  # the pretrained model
        features = torch.cat([vit.eval()(batch) for batch in images.split(BATCH)])
        vit.blocks = prompted
        vit.train(training)
        present = labels.unique()
        means = torch.stack([features[labels == label].mean(0) for label in present])
        mapping = torch.zeros(int(labels.max()) + 1, dtype=torch.long, device=labels.device)
        mapping[present] = cosine_k_means(means, min(self.proxies, len(present)))
        for block in proxied(vit):
            block.mapping = mapping.clone()

    def loss(self, vit: VisionTransformer, logits: Tensor, labels: Tensor, cross_entropy: Loss) -> Tensor:
        weights = self.patch_weight, self.cls_weight
        metric = [block.metric_loss(labels, weights, self.scale) for block in proxied(vit)]
        return cross_entropy(logits, labels) + torch.stack(metric).mean()

    def expected_params(self, vit: VisionTransformer) -> int:
        depth = len(vit.blocks)
        first = min(max(self.first, 0), depth - 1)
        prompts = first * self.tokens + (depth - first) * self.proxies
        ends = 1 if patch_bias(vit) is None else 2  # class token and patch bias
        return vit.embed_dim * (prompts + self.with_biases * (7 * depth + ends))


def patch_bias(vit: VisionTransformer) -> nn.Parameter | None:
    """Return the bias of the patch embedding, which ViTs with a norm after it lack."""
    return cast(nn.Parameter | None, patch_convolution(vit).bias)


def proxied(vit: VisionTransformer) -> list[ProxiedBlock]:
    """Return the blocks whose prompts are proxies."""
    return [module for module in vit.modules() if isinstance(module, ProxiedBlock)]


def train_biases(block: nn.Module, d: int) -> None:
    """Unfreeze the biases of k, v, o, fc2 and norm2, and norm1."""
    attention = block.get_submodule("attn")
    shifts = {"k": Shift(d), "v": Shift(d)}
    attention.qkv = UpdatedLinear(cast(nn.Linear, attention.qkv), ("q", "k", "v"), shifts)
    names = ("attn.proj.bias", "mlp.fc2.bias", "norm2.bias", "norm1.weight", "norm1.bias")
    for name in names:
        block.get_parameter(name).requires_grad_(True)


@method("da_vpt_plus")
class DAVPTPlus(DAVPT):
    """DA-VPT that also trains the biases of k, v, o, fc2 and norm2, norm1, the class token and the patch bias."""

    title = "DA-VPT+"
    targets = "tokens of every block, biases, norm1, class token"
    with_biases = True
