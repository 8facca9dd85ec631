"""Compare SSF with numbers computed with its official code."""

import torch
from golden_cases import Case, block
from torch import Tensor, nn
from vtab_peft.methods.ssf import ScaledShifted


def test_ssf_block() -> None:
    case = Case("ssf_block")
    module = block(case)
    places = {
        "norm1": ("", "1"),
        "norm2": ("", "2"),
        "attn.qkv": ("attn.", "1"),
        "attn.proj": ("attn.", "2"),
        "mlp.fc1": ("mlp.", "1"),
        "mlp.fc2": ("mlp.", "2"),
    }
    parameters = {}
    for place, (prefix, number) in places.items():
        wrapped = ScaledShifted(module.get_submodule(place), len(case[f"param.{prefix}ssf_scale_{number}"]))
        module.set_submodule(place, wrapped)
        parameters |= {f"{prefix}ssf_scale_{number}": wrapped.gamma, f"{prefix}ssf_shift_{number}": wrapped.beta}
    case.compare(module, parameters)


def test_ssf_patch_embedding() -> None:
    case = Case("ssf_patch_embed")
    d, channels, *patch = case["frozen.patch_embed.proj.weight"].shape
    convolution = nn.Conv2d(channels, d, tuple(patch), tuple(patch), dtype=torch.float64).requires_grad_(False)
    convolution.load_state_dict(case.part("frozen.patch_embed.proj."))
    wrapped = ScaledShifted(convolution, d)
    case.compare(
        nn.Sequential(wrapped, nn.Flatten(2), Transposed()),
        {"ssf_scale_1": wrapped.gamma, "ssf_shift_1": wrapped.beta},
    )


class Transposed(nn.Module):
    """[b, d, n] -> [b, n, d]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)
