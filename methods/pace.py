"""PACE (Ni et al., NeurIPS 2024, arXiv:2409.17137): consistency between two passes with noise on the adapters.

    y = W x + b + (1 + sigma n) ((W o D U) x + b o c + W p_d p_u),   n ~ N(0, 1) for each image and output channel
    loss = CE(z_1, labels) + lambda mean |z_1 - z_2|^2

z_1 and z_2 are the logits of two copies of the batch.  The first block is without noise, sigma falls linearly from the
second block to the head, and both copies skip the same branches in stochastic depth
(MaxwellYaoNi/PACE Vision/pace/{residual_adapters,pace_ops,sharable_dropout}.py).
"""

from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import mlp_hidden, mlp_width
from .arguments import PositiveInt
from .base import Loss, Method, Paper, method

_LINEARS = (("attn", "qkv"), ("attn", "proj"), ("mlp", "fc1"), ("mlp", "fc2"))


class Perturbed(nn.Module):
    """A linear map with a multiplicative update, whose output is perturbed in training."""

    def __init__(self, linear: nn.Linear, rank: int, sigma: float) -> None:
        super().__init__()
        outputs, inputs = linear.weight.shape
        self.linear, self.sigma = linear, sigma
        self.down, self.up = nn.Parameter(torch.zeros(outputs, rank)), nn.Parameter(torch.empty(rank, inputs))
        self.shift = None if linear.bias is None else nn.Parameter(torch.zeros(outputs))
        self.prompt_down, self.prompt_up = nn.Parameter(torch.zeros(inputs, rank)), nn.Parameter(torch.empty(rank, 1))
        nn.init.xavier_uniform_(self.up)
        nn.init.xavier_uniform_(self.prompt_up)

    def delta(self) -> tuple[Tensor, Tensor]:
        """Return the change of the weight [outputs, inputs] and of the bias [outputs]."""
        weight, bias = self.linear.weight, self.linear.bias
        prompt = F.linear((self.prompt_down @ self.prompt_up).T, weight)[0]
        return weight * (self.down @ self.up), prompt if self.shift is None else prompt + bias * self.shift

    def noise(self, x: Tensor) -> Tensor:
        """Return standard normal numbers [b, 1, outputs]."""
        return torch.randn(len(x), 1, self.linear.out_features, device=x.device)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, inputs] -> [b, n, outputs]
        weight, bias = self.delta()
        if self.training and self.sigma:
            return self.linear(x) + F.linear(x, weight, bias) * (1 + self.sigma * self.noise(x))
        frozen = self.linear.bias
        return F.linear(x, self.linear.weight + weight, bias if frozen is None else frozen + bias)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the equivalent plain linear map."""
        weight, bias = self.delta()
        self.linear.weight += weight
        frozen = self.linear.bias
        self.linear.bias = nn.Parameter(bias if frozen is None else frozen + bias, requires_grad=False)
        return self.linear


class SharedDropPath(nn.Module):
    """Stochastic depth with one mask for both copies of an image, divided by the fraction of images that it keeps."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def mask(self, x: Tensor) -> Tensor:
        """Return zeros and ones, [b / 2, 1, 1]."""
        return torch.empty((len(x) + 1) // 2, 1, 1, device=x.device).bernoulli_(1 - self.rate)

    def forward(self, x: Tensor) -> Tensor:  # [b, n, d]
        if not self.training:
            return x
        mask = torch.cat([self.mask(x)] * 2)[: len(x)] / (1 - self.rate)
        return x * (mask / (mask.mean() + 1e-12)).to(x.dtype)


@method("pace")
class PACE(Method):
    """Trains multiplicative low-rank updates so that two passes with noise on them give the same logits."""

    rank: PositiveInt = 10
    sigma: float = 1.2
    """Standard deviation of the noise in the second block; the README's example for CIFAR."""
    weight: float = 1.0
    """Of the squared distance of the logits."""
    title = "PACE"
    paper = Paper("NeurIPS", 2024, "2409.17137", "MaxwellYaoNi/PACE")
    equation = (
        r"W' = W + \mathrm{diag}(1 + \sigma n)\,(W \odot DU),"
        r"\ \mathcal{L} = \mathrm{CE}(z_1) + \lambda \lVert z_1 - z_2 \rVert^2"
    )
    targets = "qkv, o, fc1, fc2"
    evidence = "authors' training"
    search = {"sigma": (0.4, 0.8, 1.2, 2.0), "weight": (0.1, 1.0)}  # ours
    copies = 2
    needs_whole_batch = True  # its stochastic depth divides by the fraction of images that it keeps

    def inject(self, vit: VisionTransformer) -> None:
        for i, block in enumerate(vit.blocks):
            for parent, name in ((block.get_submodule(path), name) for path, name in _LINEARS):
                linear = cast(nn.Linear, getattr(parent, name))
                setattr(parent, name, Perturbed(linear, self.rank, self.sigma_of(i, vit)))
            for name in ("drop_path1", "drop_path2"):
                if isinstance(layer := getattr(block, name), DropPath):
                    setattr(block, name, SharedDropPath(layer.drop_prob))

    def sigma_of(self, i: int, vit: VisionTransformer) -> float:
        """Return the noise of block i; that of the head for i = number of blocks."""
        blocks = len(vit.blocks)
        return self.sigma * (blocks - i + 1) / blocks if i else 0.0

    def loss(self, vit: VisionTransformer, logits: Tensor, labels: Tensor, cross_entropy: Loss) -> Tensor:
        noisy = logits * (1 + self.sigma_of(len(vit.blocks), vit) * self.head_noise(logits))
        first, second = noisy.chunk(2)
        return cross_entropy(first, labels) + self.weight * (first - second).square().sum(1).mean()

    def head_noise(self, logits: Tensor) -> Tensor:
        """Return standard normal numbers of the logits' shape."""
        return torch.randn_like(logits)

    def merge(self, vit: VisionTransformer) -> None:
        for block in vit.blocks:
            for path, name in _LINEARS:
                parent = block.get_submodule(path)
                setattr(parent, name, cast(Perturbed, getattr(parent, name)).merged())

    def expected_params(self, vit: VisionTransformer) -> int:
        d, block = vit.embed_dim, vit.blocks[0]
        qkv_bias = block.get_submodule("attn.qkv").bias is not None
        shapes = ((d, 3 * d, qkv_bias), (d, d, True), (d, mlp_width(block), True), (mlp_hidden(block), d, True))
        each = (self.rank * (2 * inputs + outputs + 1) + outputs * biased for inputs, outputs, biased in shapes)
        return len(vit.blocks) * sum(each)
