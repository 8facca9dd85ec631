"""Compare the bridge to peft with stored numbers of peft's code."""

from typing import Any

import pytest
import torch
from golden_blocks import assert_official_init, base_with, peft_layer
from golden_cases import Case, linear
from torch import Tensor, nn
from vtab_peft.methods import METHODS

NAMED = sorted(name for name, method in METHODS.items() if method.needs == "peft" and name != "hf")


def trained(layer: nn.Module) -> dict[str, Tensor]:
    """Return the trained tensors by the names of the cases, which lack the adapter's name."""
    named = {name.replace(".default", ""): p for name, p in layer.named_parameters() if p.requires_grad}
    named.pop("ranknum", None)  # AdaLoRA's; trainable only because peft casts it to float64
    return named


def around(case: Case) -> Any:
    """Return the layer that peft puts around the linear layer of the case."""
    rank = case.hyper.get("r", 1)
    spec = GOLDEN[case.name].format(**case.hyper, scale=case.hyper.get("alpha", rank) / rank)
    name = "fc2" if case.name == "ia3_feedforward" else "fc1"
    base = linear(case).float() if case.name == "psoft" else linear(case)  # peft decomposes in float32 only
    return peft_layer(base, spec, name)


GOLDEN = {
    "oft_neumann": "oft(block={block_size})",
    "boft_m1": "boft(block={block_size})",
    "hra": "hra(rank={r})",
    "vera": "vera(rank={r})",
    "vera_shared_larger": "vera(rank={r})",
    "randlora_rect": "randlora(rank={r}, scale={scale})",
    "loha": "loha(rank={r}, alpha={alpha})",
    "lokr": "lokr(rank={r}, alpha={alpha})",
    "fourierft": "fourierft(coefficients={n_frequency}, scale={scaling}, rate=1.0)",
    "ia3_output": "ia3",
    "ia3_feedforward": "ia3",
    "miss": "miss(rank={r})",
    "gralora": "gralora(rank={r}, alpha={alpha}, parts={gralora_k})",
    "hira": "hira(rank={r})",
    "delora": "delora(rank={r}, strength={delora_lambda})",
    "deft": "deft(rank={r})",
    "peanut": "peanut(rank={r}, layers={depth})",
    "peanut_shallow": "peanut(rank={r}, layers={depth})",
    "vblora": "vblora(rank={r}, vectors={num_vectors}, length={vector_length}, k={topk})",
    "unilora": "unilora(rank={r}, length={theta_d_length})",
    "tinylora": "tinylora(rank={r}, length={u})",
    "pvera": "pvera(rank={r})",
    "road": "road(group={group_size})",
    "road_2": "road(variant=2, group={group_size})",
    "road_4": "road(variant=4, group={group_size})",
    "psoft": "psoft(rank={r})",
    "c3a": "c3a(block={block_size})",
    "supertuning": "supertuning(share=0.1)",
    "adalora": "adalora(rank={r}, target_rank=1, alpha={alpha})",
    "lora": "hf(type='lora', options={{'r': {r}, 'lora_alpha': {alpha}}})",
    "rslora": "hf(type='lora', options={{'r': {r}, 'lora_alpha': {alpha}, 'use_rslora': True}})",
    "dora": "hf(type='lora', options={{'r': {r}, 'lora_alpha': {alpha}, 'use_dora': True}})",
}
"""Case -> our spec, with the hyper-parameters of the case to fill in."""


IN_FLOAT32 = ("c3a", "deft", "fourierft")
"""Computed in float32 by peft, or in the case."""


@pytest.mark.parametrize("name", GOLDEN)
def test_stored_numbers(name: str) -> None:
    from peft.tuners._buffer_dict import BufferDict

    case = Case(name)
    layer = around(case)
    for name_there, stored in case.part("frozen.").items():
        held: Any = getattr(layer, name_there, None)  # random or singular vectors, and positions
        if isinstance(held, BufferDict):
            held["default"] = stored if held["default"].is_floating_point() else stored.long()
    loose = {"y_atol": 1e-5, "grad_atol": 1e-5} if name in IN_FLOAT32 else {}
    case.compare(layer, trained(layer), **loose)
    layer.merge()
    case.check_merged_linear("merged", layer.get_base_layer())


def test_fourier_coefficients_keep_their_places() -> None:
    case = Case("fourierft")
    assert torch.equal(around(case).indices["default"].double(), case["frozen.indices"])


@pytest.mark.parametrize("method", [name for name in NAMED if name not in ("fourierft", "tinylora")])  # start at zero
def test_peft_initialisation(method: str) -> None:
    case = next(case for case, spec in GOLDEN.items() if spec.partition("(")[0] == method)
    ours = trained(base_with(method).get_submodule("blocks.0.attn.qkv.v"))
    assert_official_init(case, ours, bounded=False)
