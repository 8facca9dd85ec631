"""WiSE-FT: weights between the pretrained and the fine-tuned ones (Wortsman et al., CVPR 2022).

The backbone is (1 - alpha) pretrained + alpha merged.  The head stays that of the run, because a ViT without a text
encoder has no zero-shot head to interpolate with.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch

from ...methods.anatomy import VisionModel
from .restore import TrainedModel

ALPHAS = tuple(step / 10 for step in range(11))
"""Weights that are tried; the paper's grid has steps of 0.05 or 0.1."""


def interpolated(run: TrainedModel, alphas: Iterable[float]) -> Iterator[VisionModel]:
    """Yield the plain backbone with interpolated weights, for each alpha: one module, whose weights change.

    Raises:
        ValueError: the method cannot be merged into the weights of the plain backbone, or does not change them.
    """
    vit, pretrained = run.merged(), run.backbone.vit.state_dict()
    merged = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    if merged.keys() != pretrained.keys():
        raise ValueError(f"{run.spec.method.spec} merges into a model with other tensors than the backbone")
    if all(torch.equal(merged[name], tensor) for name, tensor in pretrained.items()):
        raise ValueError(f"{run.spec.method.spec} does not change the backbone")
    for alpha in alphas:
        mixed = {
            name: torch.lerp(tensor, merged[name], alpha) if tensor.is_floating_point() else merged[name]
            for name, tensor in pretrained.items()
        }
        vit.load_state_dict(mixed)
        yield vit.eval()


def best_alpha(accuracies: Sequence[tuple[float, float]]) -> float:
    """Return the alpha with the highest accuracy; of equals the largest, which is nearest to the trained model."""
    return max(accuracies, key=lambda pair: (pair[1], pair[0]))[0]
