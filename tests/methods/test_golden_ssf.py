"""SSF against numbers computed with its official code."""

import torch
from golden_cases import Case, block
from torch import Tensor, nn
from vtab_peft.methods.ssf import ScaledShifted


def test_ssf_block() -> None:
    case = Case("ssf_block")
    module = block(case.part("frozen."))
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
    convolution = nn.Conv2d(3, 48, 4, 4, dtype=torch.float64).requires_grad_(False)
    convolution.load_state_dict(case.part("frozen.patch_embed.proj."))
    wrapped = ScaledShifted(convolution, 48)
    case.compare(
        nn.Sequential(wrapped, nn.Flatten(2), Transposed()),
        {"ssf_scale_1": wrapped.gamma, "ssf_shift_1": wrapped.beta},
    )


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)
