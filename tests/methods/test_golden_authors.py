"""Compare methods that peft computes with numbers of their authors' own code, whose tensors have other shapes."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from golden_blocks import InTraining, assert_merge_keeps_features, images, one_block_vit, peft_layer, trained_params
from golden_cases import Case, linear
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.adalora import AdaLoRA
from vtab_peft.methods.bounded import BoundedUpdate
from vtab_peft.methods.hf_peft import adapt, tuned_layers
from vtab_peft.methods.updates import TransformedLinear

Tensors = dict[str, Tensor]

Ours = Callable[[Tensors], Tensors]
"""Maps the trained tensors of the authors' code to those of peft, without the adapter's name."""


def same(t: Tensors) -> Tensors:
    return t


def renamed(**names: str) -> Ours:
    """Return a map that only changes names: ours=theirs."""
    return lambda t: {ours: t[theirs] for ours, theirs in names.items()}


def skew_part(t: Tensors) -> Tensors:
    """They take the skew part of a full matrix; ours has its upper triangle."""
    r = t["R"]
    rows, columns = torch.triu_indices(r.shape[1], r.shape[1], 1)
    return {"oft_R.weight": ((r - r.mT) / 2)[:, rows, columns]}


def upper_triangle(t: Tensors) -> Tensors:
    """Their skew matrix has its parameters below the diagonal, and its sign is opposite."""
    size = len(t["mag_vector_a"])
    lower = t["a_params"].new_zeros(size, size).index_put(tuple(torch.tril_indices(size, size, -1)), t["a_params"])
    rows, columns = torch.triu_indices(size, size, 1)
    names = {"weight": lower.T[rows, columns], "vector_a": t["mag_vector_a"], "vector_b": t["mag_vector_b"]}
    return {f"psoft_R.default.{name}": tensor for name, tensor in names.items()}


def peanut(t: Tensors) -> Tensors:
    """Put the adapter's name after that of the list."""
    return {"peanut_" + name.replace(".", ".default.", 1): tensor for name, tensor in t.items()}


OFFICIAL: dict[str, tuple[str, Ours]] = {
    "adalora_official": ("adalora(rank={r}, target_rank=1, alpha={alpha})", same),
    "deft_official": ("deft(rank={r})", renamed(deft_P="P", deft_R="R_new")),
    "fourierft_official": (
        "fourierft(coefficients={n_frequency}, scale={scale}, rate=1.0)",
        renamed(fourierft_spectrum="spectrum"),
    ),
    "gralora_official": ("gralora(rank={r}, alpha={alpha}, parts={gralora_k})", same),
    "hira_official": ("hira(rank={r})", renamed(hira_A="lora_A", hira_B="lora_B")),
    "hra_official": ("hra(rank={r})", same),
    "hra_official_gs": ("hra(rank={r}, gram_schmidt=True)", same),
    "ia3_official_input": ("ia3", renamed(ia3_l="multi_lora_a")),
    "ia3_official_output": ("ia3", renamed(ia3_l="multi_lora_b")),
    "loha_official": ("loha(rank={r}, alpha={alpha})", same),
    "lokr_official": ("lokr(rank={r}, alpha={alpha})", same),
    "lokr_official_dense": ("lokr(rank={r}, alpha={alpha})", same),
    "miss_official": ("miss(rank={r})", renamed(miss_block="disha")),
    "oft_official": ("oft(block={block_size}, exact=True)", skew_part),
    "peanut_official": ("peanut(rank={r}, layers={depth})", peanut),
    "peanut_official_deep": ("peanut(rank={r}, layers={depth})", peanut),
    "psoft_official": ("psoft(rank={r})", upper_triangle),
    "randlora_official": (
        "randlora(rank={r}, scale={scale})",
        lambda t: {"randlora_lambda": t["w_loramat_B"].T, "randlora_gamma": t["w_loramat_A"]},
    ),
    "unilora_official": ("unilora(rank={r}, length={length})", renamed(unilora_theta_d="vector_bank")),
    "vblora_official": (
        "vblora(rank={r}, vectors={num_vectors}, length={vector_length}, k={topk})",
        lambda t: {
            "vblora_vector_bank": t["vector_bank"],
            "vblora_logits_A": t["logits_A"].transpose(0, 1),
            "vblora_logits_B": t["logits_B"],
        },
    ),
}
"""Case -> our spec with the case's hyper-parameters to fill in, and our tensors from theirs."""

OFFICIAL["randlora_official_tall"] = OFFICIAL["randlora_official"]

IN_FLOAT32 = ("deft_official", "fourierft_official")
"""Computed in float32 by peft."""


def buffers(case: Case) -> Iterator[tuple[str, Tensor]]:
    """Yield name and value of random tensors that peft must have in common with the authors' code."""
    match case.name.partition("_official")[0]:
        case "fourierft":  # they multiply inputs by the change of the weight, ours by its transpose
            yield "indices", case["frozen.indices"].flip(0).long()
        case "psoft":
            rank, b = case.hyper["r"], case["frozen.lora_B"]
            yield "_psoft_A_cache", case["frozen.lora_A"]
            yield "_psoft_B_cache", b * rank / 32  # peft multiplies by alpha / r
        case "randlora":
            yield "randlora_A", case["frozen.basis_a"].transpose(0, 1)
            yield "randlora_B", case["frozen.basis_b"].transpose(0, 1)
        case "unilora":
            for factor in "AB":
                yield f"unilora_indices_{factor}", case[f"frozen.project_params_{factor}"].T.long()
                yield f"unilora_scales_{factor}", case[f"frozen.norm_factor_{factor}"].T


@pytest.mark.parametrize("name", OFFICIAL)
def test_peft_computes_what_the_authors_do(name: str) -> None:
    case = Case(name)
    spec, ours = OFFICIAL[name]
    base = linear(case).float() if name == "psoft_official" else linear(case)  # peft decomposes in float32 only
    spec = spec.format(**{"scale": case.hyper.get("alpha", 1) / case.hyper.get("r", 1)} | case.hyper)
    layer = peft_layer(base, spec, "fc2" if name == "ia3_official_input" else "fc1").double()
    layer.get_base_layer().weight.data = case["frozen.weight"]
    for held, value in buffers(case):
        getattr(layer, held)["default"] = value
    if name == "adalora_official":
        layer.ranknum.requires_grad_(False)
    shapes = {key: p.shape for key, p in layer.named_parameters() if p.requires_grad}

    def by_adapter(t: Tensors) -> Tensors:
        return {key: tensor.reshape(shapes[key]) for key, tensor in with_adapter(ours(t)).items()}

    case.compare_through(layer, by_adapter, (1e-5, 1e-5) if name in IN_FLOAT32 else (1e-10, 1e-8))


def with_adapter(t: Tensors) -> Tensors:
    """Insert the name of peft's adapter where it is missing."""
    return {
        key if ".default" in key else ".".join([head, "default", *rest]): tensor
        for key, tensor in t.items()
        for head, *rest in [key.split(".")]
    }


def test_delora_with_the_authors_start() -> None:
    case = Case("delora_official")
    update = BoundedUpdate(case["frozen.weight"], case.hyper["r"], 1.0)
    update.a0, update.b0 = case["frozen.frozen_C"], case["frozen.frozen_D"]
    names = {"delora_A": update.a, "delora_B": update.b, "delora_lambda": update.strength}
    case.compare(TransformedLinear(linear(case), ("o",), {"o": update}), names)


def test_released_start_of_delora_is_the_identity_and_merges() -> None:
    method, vit, x = parse("delora(rank=2, start='released')"), one_block_vit(), images()
    before, plain = vit(x), list(vit.state_dict())
    expected = method.expected_params(vit)
    method.inject(vit)
    assert trained_params(vit) == expected
    assert torch.equal(vit(x), before)
    with torch.no_grad():
        for parameter in vit.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape)
    assert not torch.allclose(vit(x), before, atol=1e-3)
    assert_merge_keeps_features(method, vit)
    assert list(vit.state_dict()) == plain


class QueryAndValue(nn.Module):
    """The fused qkv of a case, with peft's layers on query and value."""

    def __init__(self, case: Case, spec: str) -> None:
        super().__init__()
        thirds = (linear(case) for _ in range(3))
        for third, (name, part) in enumerate(zip("qkv", thirds, strict=True)):
            width = len(part.weight) // 3
            part.weight.data, part.bias.data = (t[third * width :][:width] for t in (part.weight, part.bias))
            part.out_features = width
            self.add_module(name, part if name == "k" else peft_layer(part, spec))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)


@pytest.mark.parametrize("name", ["pvera_official", "pvera_official_noise"])
def test_pvera_on_query_and_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(name)
    module: nn.Module = QueryAndValue(case, f"pvera(rank={case.hyper['r']})").double()
    for part in "qv":
        layer = module.get_submodule(part)
        layer.pvera_A["default"] = case[f"frozen.{part}_downsample"].T
        layer.pvera_B["default"] = case[f"frozen.{part}_upsample"].T
    prefix = ""
    if name == "pvera_official_noise":
        noise = iter([case["eps_q"], case["eps_v"]])
        monkeypatch.setattr(torch, "randn_like", lambda _: next(noise))
        module, prefix = InTraining(module), "module."
    names = {f"{part}.pvera_lambda_{kind}.default": f"adapter_{part}{kind}" for part in "qv" for kind in "db"}
    case.compare_through(module, lambda t: {prefix + ours: t[theirs] for ours, theirs in names.items()})


def test_adalora_prunes_like_the_authors_allocator() -> None:
    case = Case("adalora_official_steps")
    hyper = case.hyper
    steps, warm_ups = hyper["steps"], (hyper["init_warmup"] / hyper["steps"], hyper["final_warmup"] / hyper["steps"])
    spec = "adalora(rank={r}, target_rank={target_rank}, alpha={alpha}, orthogonality={orthogonality}"
    method = cast(AdaLoRA, parse(spec.format(**hyper) + f", hold={warm_ups[0]}, settle={warm_ups[1]})"))
    model: Any = nn.ModuleDict({name: frozen_linear(case[f"frozen.{name}.weight"]) for name in "qv"})
    model.__dict__["from_peft"] = adapt(model, ["q", "v"], *method.tuner())
    model.double()
    trained = {}
    for name, layer in tuned_layers(model).items():
        layer.ranknum.requires_grad_(False)
        for factor in ("lora_A", "lora_E", "lora_B"):
            trained[f"{name}.{factor}"] = getattr(layer, factor)["default"]
            trained[f"{name}.{factor}"].data = case[f"start.{name}.{factor}"].clone()
    optimizer = torch.optim.SGD(trained.values(), lr=hyper["lr"])
    for step in range(steps):
        y = model.q(case["x"]).tanh() * model.v(case["x"])
        loss = (y * case["cotangent"]).mean() + method.penalty(model)
        loss.backward()
        optimizer.step()
        method.after_step(model, step + 1, steps)
        optimizer.zero_grad()
        singular = torch.stack([trained[f"{name}.lora_E"].detach().flatten() for name in "qv"])
        torch.testing.assert_close(loss.detach(), case["losses"][step], rtol=0, atol=1e-10)
        torch.testing.assert_close(singular, case["E"][step], rtol=0, atol=1e-10)


def frozen_linear(weight: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype).requires_grad_(False)
    made.weight.copy_(weight)
    return made
