"""Write mathematics once more in numpy, in float64."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(module: nn.Module) -> nn.Module:
    """Cast to float64 and move every parameter away from its initial value."""
    module.double().eval()
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter += random(*parameter.shape, seed=seed + 100, scale=0.2)
    return module


def numbers(tensor: Tensor | None) -> Array:
    assert tensor is not None
    return tensor.detach().double().numpy()


def assert_equal(ours: Tensor, expected: Array) -> None:
    np.testing.assert_allclose(numbers(ours), expected, rtol=0, atol=1e-10)


def linear(x: Array, module: nn.Linear) -> Array:
    return x @ numbers(module.weight).T + numbers(module.bias)


def gelu(x: Array) -> Array:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
