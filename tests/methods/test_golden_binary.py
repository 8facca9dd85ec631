"""Bi-LoRA and Bi-AdaptFormer against numbers computed with their official code."""

import pytest
import torch
from golden_cases import MANIFEST, Case, attention, block
from torch import nn
from vtab_peft.methods import parse
from vtab_peft.methods.binary import QuantisedBottleneck, QuantisedLinear, QuantisedLowRank
from vtab_peft.methods.blocks import branches
from vtab_peft.methods.updates import UpdatedLinear


@pytest.mark.parametrize("name", ["binary_qlinear_1bit", "binary_qlinear_2bit", "binary_qlinear_4bit"])
def test_quantised_linear(name: str) -> None:
    case, bits = Case(name), MANIFEST[name]["hyper"]["bits"]
    module = QuantisedLinear(48, 72, bits)
    # the official code holds the codebook in float32
    case.compare(module, {"weight": module.weight}, y_atol=1e-6, grad_atol=1e-6)
    torch.testing.assert_close(module.levels, case["code"], rtol=0, atol=1e-6)
    torch.testing.assert_close(module.thresholds, case["thresholds"], rtol=0, atol=1e-6)
    torch.testing.assert_close(module.quantised().detach(), case["loaded_weight"], rtol=0, atol=1e-6)
    assert len(module.quantised().unique()) == 2**bits


def test_bi_lora() -> None:
    case, hyper = Case("bi_lora_attn"), MANIFEST["bi_lora_attn"]["hyper"]
    module = attention(case)
    updates = {
        site: QuantisedLowRank(torch.empty(48, 48), hyper["dim"], hyper["bits"], hyper["s"], dropout=0.1)
        for site in ("q", "v")
    }
    module.qkv = UpdatedLinear(module.qkv, ("q", "k", "v"), updates)
    factors = {f"lora_{site}.adapter_down.weight": update.down.weight for site, update in updates.items()}
    factors |= {f"lora_{site}.adapter_up.weight": update.up.weight for site, update in updates.items()}
    case.compare(module, factors, y_atol=1e-6, grad_atol=1e-6)  # float32 codebook
    module.qkv = module.qkv.merged()
    torch.testing.assert_close(module(case["x"]), case["y"], rtol=0, atol=1e-6)


def test_bi_adaptformer() -> None:
    case, hyper = Case("bi_adaptformer_block"), MANIFEST["bi_adaptformer_block"]["hyper"]
    first, mlp = branches(block(case.part("frozen.")))
    mlp.beside = adapter = QuantisedBottleneck(48, hyper["dim"], hyper["bits"], hyper["s"], dropout=0.1)
    factors = {
        "adapter_mlp.adapter_down.weight": adapter.down.weight,
        "adapter_mlp.adapter_up.weight": adapter.up.weight,
    }
    case.compare(nn.Sequential(first, mlp), factors, y_atol=1e-6, grad_atol=1e-6)  # float32 codebook


def test_start() -> None:
    torch.manual_seed(0)
    start = MANIFEST["bi_adaptformer_block"]["official_init_d768"]
    adapter = QuantisedBottleneck(768, 32, bits=1, scale=1.0, dropout=0.1)
    update = QuantisedLowRank(torch.empty(768, 768), rank=32, bits=1, scale=1.0, dropout=0.1)
    for ours in (adapter, update):
        for layer, name in ((ours.down, "adapter_down.weight"), (ours.up, "adapter_up.weight")):
            theirs = start[name]
            assert list(layer.weight.shape) == theirs["shape"]
            assert layer.weight.std().item() == pytest.approx(theirs["std"], rel=0.03)
            assert layer.weight.abs().max().item() == pytest.approx(theirs["max"], rel=0.01)


@pytest.mark.parametrize("name", ["bi_lora", "bi_adaptformer"])
@pytest.mark.parametrize("bits", [0, 5])
def test_bits_out_of_range_are_refused(name: str, bits: int) -> None:
    with pytest.raises(ValueError, match=f"bits must be one of 1, 2, 3, 4, not {bits}"):
        parse(f"{name}(bits={bits})")


@pytest.mark.parametrize(
    ("spec", "field"), [("bi_lora(rank=0)", "rank"), ("bi_adaptformer(bottleneck=0)", "bottleneck")]
)
def test_an_empty_adapter_is_refused(spec: str, field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least 1"):
        parse(spec)
