"""Compare Bi-LoRA and Bi-AdaptFormer with numbers computed with their official code."""

import pytest
import torch
from golden_blocks import assert_official_init
from golden_cases import Case, attention, block
from refusal import assert_refused
from torch import nn
from vtab_peft.methods.binary import QuantisedBottleneck, QuantisedLinear, QuantisedLowRank
from vtab_peft.methods.blocks import branches
from vtab_peft.methods.updates import UpdatedLinear


@pytest.mark.parametrize("name", ["binary_qlinear_1bit", "binary_qlinear_2bit", "binary_qlinear_4bit"])
def test_quantised_linear(name: str) -> None:
    case = Case(name)
    bits, (outputs, inputs) = case.hyper["bits"], case["param.weight"].shape
    module = QuantisedLinear(inputs, outputs, bits)
    # The official code holds the codebook in float32
    case.compare(module, {"weight": module.weight}, y_atol=1e-6, grad_atol=1e-6)
    torch.testing.assert_close(module.levels, case["code"], rtol=0, atol=1e-6)
    torch.testing.assert_close(module.thresholds, case["thresholds"], rtol=0, atol=1e-6)
    torch.testing.assert_close(module.quantised().detach(), case["loaded_weight"], rtol=0, atol=1e-6)
    assert len(module.quantised().unique()) == 2**bits


def test_bi_lora() -> None:
    case = Case("bi_lora_attn")
    module, fields = attention(case), [case.hyper[name] for name in ("dim", "bits", "s")]
    weight = torch.empty(case.width, case.width)
    updates = {site: QuantisedLowRank(weight, *fields, dropout=0.1) for site in ("q", "v")}
    module.qkv = UpdatedLinear(module.qkv, ("q", "k", "v"), updates)
    factors = {f"lora_{site}.adapter_down.weight": update.down.weight for site, update in updates.items()}
    factors |= {f"lora_{site}.adapter_up.weight": update.up.weight for site, update in updates.items()}
    case.compare(module, factors, y_atol=1e-6, grad_atol=1e-6)  # float32 codebook
    module.qkv = module.qkv.merged()
    case.check_output(module, atol=1e-6)


def test_bi_adaptformer() -> None:
    case = Case("bi_adaptformer_block")
    fields = [case.hyper[name] for name in ("dim", "bits", "s")]
    first, mlp = branches(block(case))
    mlp.beside = adapter = QuantisedBottleneck(case.width, *fields, dropout=0.1)
    factors = {
        "adapter_mlp.adapter_down.weight": adapter.down.weight,
        "adapter_mlp.adapter_up.weight": adapter.up.weight,
    }
    case.compare(nn.Sequential(first, mlp), factors, y_atol=1e-6, grad_atol=1e-6)  # float32 codebook


def test_binary_initialisation() -> None:
    torch.manual_seed(0)
    adapter = QuantisedBottleneck(768, 32, bits=1, scale=1.0, dropout=0.1)
    update = QuantisedLowRank(torch.empty(768, 768), rank=32, bits=1, scale=1.0, dropout=0.1)
    for ours in (adapter, update):
        factors = {"adapter_down.weight": ours.down.weight, "adapter_up.weight": ours.up.weight}
        assert_official_init("bi_adaptformer_block", factors)


@pytest.mark.parametrize("name", ["bi_lora", "bi_adaptformer"])
@pytest.mark.parametrize("bits", [0, 5])
def test_bits_out_of_range_are_refused(name: str, bits: int) -> None:
    assert_refused(f"{name}(bits={bits})", "bits", bits, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("spec", "field"), [("bi_lora(rank=0)", "rank"), ("bi_adaptformer(bottleneck=0)", "bottleneck")]
)
def test_an_empty_adapter_is_refused(spec: str, field: str) -> None:
    assert_refused(spec, field, 0)
