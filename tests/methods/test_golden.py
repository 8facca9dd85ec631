"""Our modules against numbers computed with the methods' official code (tests/golden/methods/manifest.json).

Every case is recomputed in float64: output to 1e-10, gradients to 1e-8 of the largest entry, merged weights to 1e-6.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods.adaptformer import ParallelAdapterBlock
from vtab_peft.methods.aoft import AOFTUpdate, Form, approximately_orthogonal
from vtab_peft.methods.lora import LowRank
from vtab_peft.methods.ssf import ScaledShifted
from vtab_peft.methods.updates import UpdatedLinear
from vtab_peft.methods.vpt import PromptedBlock

FOLDER = Path(__file__).parents[1] / "golden" / "methods"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())


class Case(Mapping[str, Tensor]):
    """The arrays of one case, as float64."""

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(np.asarray(arrays[key], dtype=np.float64)) for key in arrays.files}

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[key]

    def __iter__(self):
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.items() if key.startswith(prefix)}

    def check(self, y: Tensor, x: Tensor, gradients: dict[str, Tensor]) -> None:
        """gradients: golden name -> ours, in the golden shape up to reshaping."""
        assert set(gradients) == set(self.part("grad.")), "every trained tensor of the case must be compared"
        torch.testing.assert_close(y, self["y"], rtol=0, atol=1e-10)
        for name, ours in {"grad_x": x.grad, **{f"grad.{key}": value for key, value in gradients.items()}}.items():
            golden = self[name]
            scale = max(1.0, float(golden.abs().max()))
            torch.testing.assert_close(ours.reshape(golden.shape), golden, rtol=0, atol=1e-8 * scale, msg=name)


def leaf(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_(True)


def backward(case: Case, module: nn.Module) -> tuple[Tensor, Tensor]:
    x = leaf(case["x"])
    y = module(x)
    (y * case["cotangent"]).sum().backward()
    return y.detach(), x


def linear(case: Case, bias: bool = True) -> nn.Linear:
    weight = case["frozen.weight"]
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias, dtype=torch.float64).requires_grad_(False)
    made.weight.copy_(weight)
    if bias:
        made.bias.copy_(case["frozen.bias"])
    return made


def block(frozen: dict[str, Tensor]) -> Block:
    made = Block(48, 4, qkv_bias=True, norm_layer=lambda d, **_: nn.LayerNorm(d, eps=1e-6)).double()
    made.load_state_dict(frozen)
    return made.eval().requires_grad_(False)


def test_lora() -> None:
    case, hyper = Case("lora"), MANIFEST["lora"]["hyper"]
    update = LowRank(48, 72, hyper["r"], hyper["alpha"] / hyper["r"]).double()
    update.a.data, update.b.data = case["param.lora_A.weight"], case["param.lora_B.weight"]
    module = UpdatedLinear(linear(case), ("o",), {"o": update})
    y, x = backward(case, module)
    case.check(y, x, {"lora_A.weight": update.a.grad, "lora_B.weight": update.b.grad})
    torch.testing.assert_close(module.merged().weight, case["merged.weight"], rtol=0, atol=1e-6 * 10)


@pytest.mark.parametrize("name", ["aoft_lora_paper_q", "aoft_lora_paper_fc1", "aoft_lora_released_q"])
def test_aoft_lora(name: str) -> None:
    case = Case(name)
    outputs, inputs = case["frozen.weight"].shape
    form = "released" if "released" in name else "paper"
    update = aoft_update(case, inputs, outputs, form)
    module = UpdatedLinear(linear(case, bias=form == "paper"), ("o",), {"o": update})  # the released layer drops it
    y, x = backward(case, module)
    case.check(y, x, aoft_gradients(update))
    if "merged.weight" in case:
        torch.testing.assert_close(module.merged().weight, case["merged.weight"], rtol=0, atol=1e-6)


def test_aoft_adapter_matrix() -> None:
    case = Case("aoft_adapter_linear")
    update = aoft_update(case, 48, 48, "released")
    y, x = backward(case, update)
    case.check(y, x, aoft_gradients(update))


def aoft_update(case: Case, inputs: int, outputs: int, form: Form) -> AOFTUpdate:
    update = AOFTUpdate(inputs, outputs, case["param.q_lambda"].numel(), form, "zeros", "zeros").double()
    for ours, side in ((update.q_down, "left"), (update.q_up, "right")):
        ours.data = torch.cat([case[f"param.q_0_{side}"].reshape(1), case[f"param.q_{side}"].flatten()])
    update.scale.data = case["param.q_lambda"].flatten()
    return update


def aoft_gradients(update: AOFTUpdate) -> dict[str, Tensor]:
    gradients = {"q_lambda": update.scale.grad}
    for ours, side in ((update.q_down, "left"), (update.q_up, "right")):
        gradients |= {f"q_0_{side}": ours.grad[:1], f"q_{side}": ours.grad[1:]}
    return gradients


def test_aoft_matrix_in_both_forms() -> None:
    case = Case("aoft_matrix")
    kinds = [key.removesuffix(".q0") for key in case if key.endswith(".q0")]
    assert kinds
    for kind in kinds:
        q = torch.cat([case[f"{kind}.q0"].reshape(1), case[f"{kind}.tail"].flatten()])
        for form in ("paper", "released"):
            golden = case[f"{kind}.AO_{form}"]
            torch.testing.assert_close(
                approximately_orthogonal(q, golden.shape[1], form), golden, rtol=0, atol=1e-12, msg=f"{kind} {form}"
            )


def test_adaptformer_block() -> None:
    case, hyper = Case("adaptformer_block"), MANIFEST["adaptformer_block"]["hyper"]
    module = ParallelAdapterBlock(block(case.part("frozen.")), 48, hyper["bottleneck"], hyper["scale"], 0.1).double()
    for ours, theirs in ((module.down, "down_proj"), (module.up, "up_proj")):
        ours.weight.data, ours.bias.data = (case[f"param.adaptmlp.{theirs}.{part}"] for part in ("weight", "bias"))
    y, x = backward(case, module.eval())
    gradients = {
        f"adaptmlp.{theirs}.{part}": getattr(ours, part).grad
        for ours, theirs in ((module.down, "down_proj"), (module.up, "up_proj"))
        for part in ("weight", "bias")
    }
    case.check(y, x, gradients)


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
    adapted = {}
    for place, (prefix, number) in places.items():
        gamma, beta = (case[f"param.{prefix}ssf_{kind}_{number}"] for kind in ("scale", "shift"))
        wrapped = ScaledShifted(module.get_submodule(place), len(gamma))
        wrapped.gamma.data, wrapped.beta.data = gamma, beta
        parent, _, name = place.rpartition(".")
        setattr(module.get_submodule(parent), name, wrapped)
        adapted |= {f"{prefix}ssf_scale_{number}": wrapped.gamma, f"{prefix}ssf_shift_{number}": wrapped.beta}
    y, x = backward(case, module)
    case.check(y, x, {name: parameter.grad for name, parameter in adapted.items()})


def test_ssf_patch_embedding() -> None:
    case = Case("ssf_patch_embed")
    convolution = nn.Conv2d(3, 48, 4, 4, dtype=torch.float64).requires_grad_(False)
    convolution.load_state_dict(case.part("frozen.patch_embed.proj."))
    wrapped = ScaledShifted(convolution, 48)
    wrapped.gamma.data, wrapped.beta.data = case["param.ssf_scale_1"], case["param.ssf_shift_1"]
    y, x = backward(case, nn.Sequential(wrapped, nn.Flatten(2), Transposed()))
    case.check(y, x, {"ssf_scale_1": wrapped.gamma.grad, "ssf_shift_1": wrapped.beta.grad})


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def test_vpt_deep() -> None:
    """The official encoder keeps the last block's prompts; ours drops them, so the other tokens are compared."""
    case, hyper = Case("vpt_deep"), MANIFEST["vpt_deep"]["hyper"]
    p = hyper["num_tokens"]
    vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=48, depth=3, num_heads=4, num_classes=0).double()
    vit.load_state_dict(case.part("frozen."))
    prompts = [case["param.prompt_embeddings"][0], *case["param.deep_prompt_embeddings"]]
    for i, own in enumerate(prompts):
        vit.blocks[i] = PromptedBlock(vit.blocks[i], own.clone(), 1, 0.1)
    y = vit.eval().forward_features(case["x"])
    golden = torch.cat([case["y"][:, :1], case["y"][:, 1 + p :]], dim=1)
    torch.testing.assert_close(y, golden, rtol=0, atol=1e-10)
