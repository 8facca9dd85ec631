"""GPS, gradient-based parameter selection (Zhang et al., CVPR 2024, arXiv:2312.10136).

    W'_ij trainable if j is among the K largest |dL_supcon / dW_ij| of neuron i

A neuron is one output of a linear map or of the patch convolution.  Its bias is trained as well.  LayerNorms, tokens
and the position embedding stay frozen.  The gradient is that of a supervised contrastive loss on the pretrained model
(FightingFighting/GPS utils/pruning.py:5-45, train_gps.py:572-625, utils/loss_utils.py).
"""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import blocks_of, linear_biases, mlp_width, modules_outside_blocks
from .arguments import PositiveInt
from .base import Method, Paper, method

LOOK_BATCH = 32
"""Images per contrastive batch, in two views each; 11 of the 19 scripts in train_scripts/vit/vtab use 16."""

TEMPERATURE = 0.07
"""utils/loss_utils.py:9"""


class ChosenConnections(nn.Module):
    """A linear map or patch convolution with K trained weights per output."""

    index: Tensor

    def __init__(self, inner: nn.Linear | nn.Conv2d, connections: int) -> None:
        super().__init__()
        inputs = inner.weight[0].numel()
        if connections > inputs:
            raise ValueError(f"connections={connections} exceeds the {inputs} inputs of a neuron here")
        self.inner = inner
        first = torch.arange(connections).expand(len(inner.weight), -1)  # until `choose`
        self.register_buffer("index", first.contiguous())  # [outputs, K]
        self.values = nn.Parameter(inner.weight.detach().flatten(1).gather(1, first))
        if inner.bias is not None:
            inner.bias.requires_grad_(True)

    def weight(self) -> Tensor:
        weight = self.inner.weight
        return weight.flatten(1).to(self.values.dtype).scatter(1, self.index, self.values).reshape(weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.inner, nn.Conv2d):  # [b, channels, height, width]
            return F.conv2d(x, self.weight(), self.inner.bias, self.inner.stride)
        return F.linear(x, self.weight(), self.inner.bias)  # [b, n, inputs] -> [b, n, outputs]

    def gradient(self) -> Tensor:
        """Return the gradient of the whole weight, after a backward pass with the frozen weight unfrozen."""
        frozen, learned = self.inner.weight.grad, self.values.grad
        assert frozen is not None
        assert learned is not None
        return frozen.flatten(1).scatter(1, self.index, learned).reshape(frozen.shape)

    @torch.no_grad()
    def choose(self, gradient: Tensor) -> None:
        """Select the connections of largest |gradient|; the gradient has the shape of the weight."""
        self.index.copy_(gradient.flatten(1).abs().topk(self.index.shape[1], dim=1).indices)
        self.values.copy_(self.inner.weight.flatten(1).gather(1, self.index))

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Return the equivalent plain module."""
        self.inner.weight.copy_(self.weight())
        return self.inner


def supervised_contrastive(features: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -log p over other samples of the same class; features: [b, d], labels: [b], none unique."""
    z = F.normalize(features, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_p = (z @ z.T / TEMPERATURE).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    positive = (labels[:, None] == labels) & ~itself
    return -(log_p.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()


@method("gps")
class GPS(Method):
    """Trains the weight of each neuron that has the largest gradient on the training images, and all biases."""

    connections: PositiveInt = 1
    """Trained weights per neuron, K."""
    title = "GPS"
    paper = Paper("CVPR", 2024, "2312.10136", "FightingFighting/GPS")
    equation = r"W'_{ij} = w_{ij} \text{ if } j \in \mathrm{top}_K |\nabla_{W_i} L_{supcon}|, \text{ else } W_{ij}"
    targets = "one weight per neuron, biases"
    evidence = "authors' training"
    differs = "Ours takes the gradient over batches of 32; 11 of the 19 scripts use 16."
    restores_without_examples = True  # the index is a buffer
    search = {"connections": (1, 2, 15, 20)}  # --times_para in train_scripts

    def inject(self, vit: VisionTransformer) -> None:
        for name, module in list(vit.named_modules()):
            if isinstance(module, nn.Linear | nn.Conv2d):
                vit.set_submodule(name, ChosenConnections(module, self.connections))
        for block in vit.blocks:
            for scale in (block.get_submodule("ls1"), block.get_submodule("ls2")):
                scale.requires_grad_(True)  # LayerScale, if present (utils/pruning.py:14)

    @torch.enable_grad()
    def prepare(self, vit: VisionTransformer, images: Tensor, labels: Tensor) -> None:
        """Choose the connections in one pass over the training images, in random batches.

        The two views of an image are itself and its mirror image (ours; the release crops, flips and recolours at
        random).
        """
        vit.eval()  # no stochastic depth
        chosen = [module for module in vit.modules() if isinstance(module, ChosenConnections)]
        for module in chosen:
            module.inner.weight.requires_grad_(True)
        for batch in torch.randperm(len(images)).to(images.device).split(LOOK_BATCH):
            views = torch.cat([images[batch], images[batch].flip(-1)])
            supervised_contrastive(vit(views), labels[batch].repeat(2)).backward()
        for module in chosen:
            module.choose(module.gradient())
            module.inner.weight.requires_grad_(False).grad = None

    def merge(self, vit: VisionTransformer) -> None:
        for name, module in list(vit.named_modules()):
            if isinstance(module, ChosenConnections):
                vit.set_submodule(name, module.merged())

    def expected_params(self, vit: VisionTransformer) -> int:
        d, layers = vit.embed_dim, len(vit.blocks)
        outside = [m for m in modules_outside_blocks(vit) if isinstance(m, nn.Linear | nn.Conv2d)]
        neurons = layers * (5 * d + mlp_width(vit.blocks[0]))  # qkv, o, fc1, fc2
        neurons += sum(len(module.weight) for module in outside)
        biases = sum(map(linear_biases, blocks_of(vit)))
        biases += sum(len(module.weight) for module in outside if module.bias is not None)
        scales = 2 * d if not isinstance(vit.blocks[0].ls1, nn.Identity) else 0
        return neurons * self.connections + biases + layers * scales
