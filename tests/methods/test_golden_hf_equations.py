"""Compute the weights of peft's tuners a second time, from the equations that the methods print."""

import math
from collections.abc import Callable

import pytest
import torch
from golden_blocks import images, one_block_vit
from golden_cases import Case, linear
from raises import raises_naming
from torch import Tensor
from vtab_peft.methods import parse
from vtab_peft.methods.sparse import SparseMatrix, inverse_haar, itself
from vtab_peft.methods.updates import TransformedLinear

Equation = Callable[[Tensor, Case], Tensor]
"""Maps the pretrained weight [out, in] and the trained tensors of a case to the new weight."""


def miss(w: Tensor, case: Case) -> Tensor:
    block = case["param.miss_block"].T
    return w + block.repeat(1, math.ceil(w.shape[1] / block.shape[1]))[:, : w.shape[1]]


def gralora(w: Tensor, case: Case) -> Tensor:
    a, b, parts = case["param.gralora_A"], case["param.gralora_B"], case.hyper["gralora_k"]
    new, rank = w.clone(), case.hyper["r"] // parts
    for i, rows in enumerate(new.chunk(parts)):
        for j, block in enumerate(rows.chunk(parts, dim=1)):
            up = b[i][j * rank : (j + 1) * rank].T
            block += case.hyper["alpha"] / case.hyper["r"] * up @ a[j][:, i * rank : (i + 1) * rank].T
    return new


def hira(w: Tensor, case: Case) -> Tensor:
    return w * (1 + case["param.hira_B"] @ case["param.hira_A"])


def delora(w: Tensor, case: Case) -> Tensor:
    a, b = case["param.delora_A"], case["param.delora_B"]
    terms = [torch.outer(b[:, i] / b[:, i].norm(), a[i] / a[i].norm()) for i in range(len(a))]
    return w + case["param.delora_lambda"] * torch.stack(terms).mean(0) * w.norm(dim=0)


def deft(w: Tensor, case: Case) -> Tensor:
    p = case["param.deft_P"]
    return w - p @ p.clamp(min=0).T @ w + p @ case["param.deft_R"]


def peanut(w: Tensor, case: Case) -> Tensor:
    hidden = (w.T @ case["param.peanut_A.weight"].T).relu()
    if case.hyper["depth"]:
        inner = (hidden @ case["param.peanut_encoders.0.weight"].T).relu()
        hidden = hidden + (inner @ case["param.peanut_decoders.0.weight"].T).relu()
    return w + (hidden @ case["param.peanut_B.weight"].T).T


def vblora(w: Tensor, case: Case) -> Tensor:
    def piece(logits: Tensor) -> Tensor:
        best = logits.argsort(descending=True)[: case.hyper["topk"]]
        share = logits[best].exp() / logits[best].exp().sum()
        return share @ case["param.vblora_vector_bank"][best]

    a = torch.stack([torch.cat([piece(logits) for logits in row]) for row in case["param.vblora_logits_A"]])
    columns = case["param.vblora_logits_B"].transpose(0, 1)
    return w + torch.stack([torch.cat([piece(logits) for logits in column]) for column in columns], dim=1) @ a


def unilora(w: Tensor, case: Case) -> Tensor:
    places = torch.cat([case[f"frozen.unilora_indices_{factor}"].flatten() for factor in "AB"]).long()
    theta = case["param.unilora_theta_d"]
    theta = theta / torch.bincount(places, minlength=len(theta)).clamp(min=1).sqrt()
    a, b = (theta[case[f"frozen.unilora_indices_{factor}"].long()] for factor in "AB")
    return w + b @ a


def tinylora(w: Tensor, case: Case) -> Tensor:
    mixed = torch.tensordot(case["param.tinylora_v.0"], case["frozen.tinylora_P"], 1)
    return w + case["frozen.tinylora_B"] @ mixed @ case["frozen.tinylora_A"]


def pvera(w: Tensor, case: Case) -> Tensor:
    d, rank = case["param.pvera_lambda_d"], case.hyper["r"]
    mean = d[:rank, None] * case["frozen.pvera_A"][:rank]
    return w + case["param.pvera_lambda_b"][:, None] * (case["frozen.pvera_B"] @ mean)


def road(w: Tensor, case: Case) -> Tensor:
    theta, alpha, half = case["param.road_theta"], case["param.road_alpha"], case.hyper["group_size"] // 2
    each = {"road_1": 1, "road_2": 2, "road_4": 4}[case.hyper["variant"]]
    theta, alpha = theta.view(-1, each, half), alpha.view(-1, each, half)
    new = w.clone().view(-1, 2, half, w.shape[1])
    of = {1: (0, 0, 0, 0), 2: (0, 1, 0, 1), 4: (0, 1, 2, 3)}[each]  # cosines of both outputs, then sines
    cos, sin = (alpha[:, of[:2]] * theta[:, of[:2]].cos(), alpha[:, of[2:]] * theta[:, of[2:]].sin())
    first, second = new[:, 0].clone(), new[:, 1].clone()
    new[:, 0] = cos[:, 0, :, None] * first - sin[:, 0, :, None] * second
    new[:, 1] = cos[:, 1, :, None] * second + sin[:, 1, :, None] * first
    return new.view(w.shape)


def psoft(w: Tensor, case: Case) -> Tensor:
    size = case.hyper["r"]
    upper = torch.zeros(size, size, dtype=w.dtype)
    upper[*torch.triu_indices(size, size, 1)] = case["param.psoft_R.weight"]
    q, eye = upper - upper.T, torch.eye(size, dtype=w.dtype)
    rotation = (eye + q) @ (eye - q).inverse()
    scaled = case["param.psoft_R.vector_b"][:, None] * rotation * case["param.psoft_R.vector_a"]
    up = 32 / size * case["frozen._psoft_B_cache"]  # peft divides it by alpha / r
    return w + up @ (scaled - eye) @ case["frozen._psoft_A_cache"]


def c3a(w: Tensor, case: Case) -> Tensor:
    kernel, size = case["param.c3a_kernel"], case.hyper["block_size"]
    shift = (torch.arange(size)[None] - torch.arange(size)[:, None]) % size
    return w + kernel[:, :, shift].permute(0, 2, 1, 3).reshape(w.shape) / w.shape[1]


def supertuning(w: Tensor, case: Case) -> Tensor:
    new = w.flatten().clone()
    values = case["param.supertuning_values"]
    largest = new.abs().argsort(descending=True)[: len(values)]
    new[case["frozen.supertuning_indices"].long()] += values
    assert set(largest.tolist()) == set(case["frozen.supertuning_indices"].long().tolist())
    return new.view(w.shape)


EQUATIONS: dict[str, Equation] = {
    **{"miss": miss, "gralora": gralora, "hira": hira, "delora": delora, "deft": deft, "peanut": peanut},
    **{"peanut_shallow": peanut, "vblora": vblora, "unilora": unilora, "tinylora": tinylora, "pvera": pvera},
    **{"road": road, "road_2": road, "road_4": road, "psoft": psoft, "c3a": c3a, "supertuning": supertuning},
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_peft_computes_the_equation(name: str) -> None:
    case = Case(name)
    case.check_merged("merged.weight", EQUATIONS[name](case["frozen.weight"], case))


@pytest.mark.parametrize(
    ("name", "places", "values", "f"),
    [
        ("shira", "shira_indices", "shira_weight", itself),
        ("waveft", "waveft_indices", "waveft_spectrum", inverse_haar),
        ("waveft_official", "indices", "waveft_spectrum", inverse_haar),
    ],
)
def test_sparse_matrices(name: str, places: str, values: str, f: Callable[[Tensor], Tensor]) -> None:
    case = Case(name)
    rows, columns = case[f"frozen.{places}"].long()
    weight = case["frozen.weight"]
    transform = SparseMatrix(weight, len(rows), case.hyper.get("scaling", 1.0), f)
    transform.places = rows * weight.shape[1] + columns
    module = TransformedLinear(linear(case), ("o",), {"o": transform})
    case.compare(module, {values: transform.values})
    if "merged.weight" in case:
        case.check_merged_linear("merged", module.merged())


def test_pvera_draws_hidden_features_in_training() -> None:
    vit = one_block_vit()
    torch.manual_seed(0)
    parse("pvera(rank=4, sites='k')").inject(vit)
    layer = vit.get_submodule("blocks.0.attn.qkv.k").train()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    x = torch.randn(2, 5, 48)
    held = {name.partition(".")[0]: t for name, t in [*layer.named_parameters(), *layer.named_buffers()]}
    d, b = held["pvera_lambda_d"], held["pvera_lambda_b"]
    mean, log_variance = (d * (x @ held["pvera_A"].T)).chunk(2, dim=-1)
    torch.manual_seed(3)
    drawn = layer(x)
    torch.manual_seed(3)
    hidden = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    expected = layer.get_base_layer()(x) + b * (hidden @ held["pvera_B"].T)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("gralora(rank=6, parts=4)", ("rank=6", "parts=4")),
        ("peanut(layers=-1)", ("layers", "-1")),
        ("vblora(vectors=1)", ("k=2", "vectors=1")),
        ("supertuning(share=0)", ("share", "0")),
        ("road(variant=3)", ("variant", "3")),
    ],
)
def test_wrong_arguments_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    with raises_naming(ValueError, *facts):
        parse(spec)


@pytest.mark.parametrize(
    ("spec", "fact"),
    [
        ("miss(rank=64)", 64),
        ("c3a(block=5)", 5),
        ("vblora(length=7)", 7),
        ("road(group=7)", 7),
        ("shira(rank=48)", 2304),
    ],
)
def test_sizes_that_do_not_fit_are_refused(spec: str, fact: int) -> None:
    vit = one_block_vit()
    with raises_naming(ValueError, fact):
        parse(spec).inject(vit)


def test_places_of_sparse_matrices_are_in_the_adapter() -> None:
    vit = one_block_vit()
    torch.manual_seed(0)
    parse("shira(rank=2)").inject(vit)
    first, second = (vit.blocks[0].get_buffer(f"attn.qkv.transforms.{site}.places") for site in "qv")
    assert "blocks.0.attn.qkv.transforms.q.places" in vit.state_dict()
    assert len(first.unique()) == len(first) == 2 * (48 + 48)
    assert not torch.equal(first, second)
    assert vit(images()).shape == (2, 48)
