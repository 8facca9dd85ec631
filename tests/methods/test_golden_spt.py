"""Compare the low-rank modules of SPT with numbers computed with the authors' code."""

from typing import cast

import pytest
import torch
from golden_cases import Case
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.lora import LowRank
from vtab_peft.methods.spt import SPTAdapter, SPTLoRA


def low_rank_modules(case: Case, kind: str, shapes: dict[str, tuple[int, int]]) -> tuple[SPTLoRA | SPTAdapter, dict]:
    """Return our method and its module for each site, given the sites' [outputs, inputs]."""
    method = cast(SPTLoRA | SPTAdapter, parse(f"spt_{kind}(rank={case.hyper['r']})"))
    return method, {site: method.module(torch.empty(shape), 0.1) for site, shape in shapes.items()}


def names(kind: str, modules: dict[str, nn.Module], theirs: dict[str, str]) -> dict[str, Tensor]:
    """Return our trained tensors by the authors' names, given the authors' name of each site."""
    found: dict[str, Tensor] = {}
    for site, module in modules.items():
        own = f"structured_{theirs.get(site, site)}.learnable"
        if isinstance(module, LowRank):
            found |= {f"{own}.0.weight": module.a, f"{own}.1.weight": module.b}
        else:
            _, down, _, up, _ = cast(nn.Sequential, module)
            for i, projection in ((0, down), (2, up)):
                found |= {f"{own}.{i}.{name}": tensor for name, tensor in projection.named_parameters()}
    return found


@pytest.mark.parametrize(("name", "kind"), [("spt_lora_attn", "lora"), ("spt_adapter_attn", "adapter")])
def test_spt_in_attention(name: str, kind: str) -> None:
    case = Case(name)
    module = Attention(case.width, case.heads, qkv_bias=True).double().requires_grad_(False)
    for part in ("weight", "bias"):
        getattr(module.qkv, part).copy_(torch.cat([case[f"frozen.{site}.{part}"] for site in "qkv"]))
        getattr(module.proj, part).copy_(case[f"frozen.proj.{part}"])
    method, made = low_rank_modules(case, kind, dict.fromkeys("qkvo", (case.width, case.width)))
    module.qkv = method.adapt_linear(module.qkv, ("q", "k", "v"), {site: made[site] for site in "qkv"})
    module.proj = method.adapt_linear(module.proj, ("o",), {"o": made["o"]})
    case.compare(module, names(kind, made, {"o": "proj"}))


@pytest.mark.parametrize(("name", "kind"), [("spt_lora_mlp", "lora"), ("spt_adapter_mlp", "adapter")])
def test_spt_in_the_mlp(name: str, kind: str) -> None:
    case = Case(name)
    hidden, width = case["frozen.fc1.weight"].shape
    module = Mlp(width, hidden).double().requires_grad_(False)
    module.load_state_dict(case.part("frozen."))
    method, made = low_rank_modules(case, kind, {"fc1": (hidden, width), "fc2": (width, hidden)})
    for site, update in made.items():
        setattr(module, site, method.adapt_linear(module.get_submodule(site), (site,), {site: update}))
    case.compare(module, names(kind, made, {}))
