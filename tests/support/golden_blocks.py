"""Put a case's block into a ViT of one block, and compare initial values with the official ones."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
from golden_cases import Case, block, official_init
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import Method, parse
from vtab_peft.methods.hf_peft import FromPeft, adapt


def one_block_vit(d: int = 48, grid: tuple[int, int] = (4, 4), num_heads: int = 4, **more: Any) -> VisionTransformer:
    """Return a frozen ViT of one block with a class token and a grid of patches of 4 pixels."""
    size = (4 * grid[0], 4 * grid[1])
    vit = VisionTransformer(
        img_size=size, patch_size=4, embed_dim=d, depth=1, num_heads=num_heads, num_classes=0, **more
    )
    return vit.eval().requires_grad_(False)


def vit_for(case: Case, **more: Any) -> VisionTransformer:
    """Return a ViT of one block with the sizes of the case."""
    return one_block_vit(case.width, case.grid, case.heads, mlp_ratio=case.mlp_ratio, **more)


def vit_around(case: Case, only: nn.Module) -> VisionTransformer:
    """Return a ViT with the sizes of the case whose only block is `only`."""
    vit = vit_for(case)
    vit.blocks[0] = only
    return vit


def encoder(case: Case, img_size: tuple[int, int], patch_size: int) -> VisionTransformer:
    """Return a ViT with the sizes and the number of blocks of the case."""
    sizes = {"embed_dim": case.width, "depth": case.depth, "num_heads": case.heads, "mlp_ratio": case.mlp_ratio}
    vit = VisionTransformer(img_size=img_size, patch_size=patch_size, num_classes=0, **sizes)
    return vit.double().eval().requires_grad_(False)


def injected(method: Method, case: Case) -> VisionTransformer:
    """Return a ViT whose only block is that of the case, with the method injected."""
    vit = vit_around(case, block(case))
    method.inject(vit)
    return vit


def base_with(spec: str) -> VisionTransformer:
    """Return a ViT of one block and width 768 with the method injected at its initial values."""
    vit = one_block_vit(768)
    torch.manual_seed(0)
    parse(spec).inject(vit)
    return vit


class Alone(nn.Module):
    """A parallel adapter without its branch."""

    def __init__(self, adapter: nn.Module) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        return self.adapter(x, x)


class InTraining(nn.Module):
    """A module that computes in training mode, whatever mode is asked for."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module.train()(x)


def peft_layer(linear: nn.Linear, spec: str, name: str = "fc1") -> Any:
    """Return the layer that peft puts around a linear layer called `mlp.<name>`, for one of our methods."""
    model = nn.ModuleDict({"mlp": nn.ModuleDict({name: linear})})
    adapt(model, [f"mlp.{name}"], *cast(FromPeft, parse(spec)).tuner())
    return model.get_submodule(f"mlp.{name}")


def trained_params(vit: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in vit.parameters() if p.requires_grad)


def weights_and_biases(named: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the weight and the bias of each module as `<name>.weight` and `<name>.bias`."""
    return {f"{name}.{part}": getattr(module, part) for name, module in named.items() for part in ("weight", "bias")}


def assert_std(ours: Tensor, official: Mapping[str, Any]) -> None:
    """Compare the standard deviation of our draw with that of the official draw."""
    expected = pytest.approx(official["std"], rel=4 / ours.numel() ** 0.5)
    assert float(ours.detach().std()) == expected


def assert_official_init(
    official: str | Mapping[str, Mapping[str, Any]], ours: Mapping[str, Tensor], bounded: bool = True
) -> None:
    """Compare our initial values at width 768 with the statistics of one official draw.

    Args:
        official: name of the case, or statistics per tensor.
        bounded: the distributions have bounds, which a tensor of over 1,000 entries nearly reaches.
    """
    official = official_init(official) if isinstance(official, str) else official
    assert set(official) == set(ours)
    for name, theirs in official.items():
        tensor = ours[name].detach()
        assert tensor.numel() == torch.Size(theirs["shape"]).numel(), name
        assert bool((tensor == 0).all()) == theirs["all_zero"], name
        assert bool((tensor == 1).all()) == theirs["all_one"], name
        # Two draws of n numbers differ by about std / sqrt(n); the manifest has six digits
        slack = 4 * theirs["std"] / tensor.numel() ** 0.5 + 1e-5 * abs(theirs["mean"]) + 1e-9
        assert abs(float(tensor.mean()) - theirs["mean"]) <= slack, name
        assert abs(float(tensor.std(unbiased=False)) - theirs["std"]) <= slack, name
        if bounded and tensor.numel() > 1000:
            assert abs(float(tensor.max()) - theirs["max"]) <= 0.05 * abs(theirs["max"]), name
            assert abs(float(tensor.min()) - theirs["min"]) <= 0.05 * abs(theirs["min"]), name


def images(count: int = 2) -> Tensor:
    """Return the same random images [count, 3, 16, 16] at every call."""
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def assert_merge_keeps_features(method: Method, vit: VisionTransformer, atol: float = 1e-5) -> None:
    """Merge the method and check that the features of random images stay the same."""
    before = vit(images())
    method.merge(vit)
    torch.testing.assert_close(vit(images()), before, rtol=1e-4, atol=atol)


def inject_random(method: Method, vit: VisionTransformer, scale: float = 0.1) -> None:
    """Inject the method and give its trained tensors random values."""
    method.inject(vit)
    vit.eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in vit.parameters():
        if parameter.requires_grad:
            parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
