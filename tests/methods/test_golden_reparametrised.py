"""Methods that make new weights of the pretrained ones, against numbers computed with official code."""

from typing import cast

import pytest
import torch
from golden_blocks import assert_same_start, injected, one_block_vit
from golden_cases import MANIFEST, Case, block, linear
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.apla import RandomRows
from vtab_peft.methods.difffit import Scaled
from vtab_peft.methods.glora import Generalised, GLoRA, Support
from vtab_peft.methods.rlrr import Rescaling
from vtab_peft.methods.snell import SNELL, KernelUpdate
from vtab_peft.methods.ssf import ScaledShifted
from vtab_peft.methods.updates import TransformedLinear


def check_merged_block(vit: VisionTransformer, case: Case) -> None:
    """The plain block computes what the adapted one of the case does."""
    assert list(vit.state_dict()) == list(one_block_vit().state_dict())
    torch.testing.assert_close(vit.blocks(case["x"]), case["y"], rtol=0, atol=1e-10)


def glora_method(config: dict[str, str], rank: int) -> GLoRA:
    """The manifest's "LoRA_4", "vector", "constant", "none" in our fields."""
    forms = {name.lower(): form.partition("_")[0].lower() for name, form in config.items()}
    return cast(GLoRA, parse(f"glora(rank={rank}, {', '.join(f'{k}={v!r}' for k, v in forms.items())})"))


def used(form: str, whole: Tensor) -> Tensor:
    """The part of the official first factor [rows, rank], or bias term [rows, 1], that a form reads."""
    rows, columns = {"lora": (None, None), "vector": (None, 1), "constant": (1, 1), "none": (0, 0)}[form]
    return whole[:rows, :columns]


@pytest.mark.parametrize("name", ["glora_lora_all", "glora_vector", "glora_constant", "glora_mixed", "glora_none"])
def test_glora(name: str) -> None:
    """The official module keeps both factors of every term, of which a form reads a part; ours has only that part."""
    case, hyper = Case(name), MANIFEST[name]["hyper"]
    inner, method = linear(case), glora_method(hyper["config"], hyper["rank"])
    transform = Generalised(inner.weight, inner.bias, method)
    module = TransformedLinear(inner, ("o",), {"o": transform}).double()
    trained: dict[str, nn.Parameter] = {}
    for term in "abcde":
        support, form = cast(Support, getattr(transform, term)), getattr(method, term)
        if form != "none":
            trained[term.upper() + ("" if term in "de" else "d")] = cast(nn.Parameter, support.down)
        if support.up is not None:
            trained[f"{term.upper()}u"] = support.up
    forms = {key: "lora" if key.endswith("u") else getattr(method, key[0].lower()) for key in trained}
    for key, ours in trained.items():
        whole = case[f"param.{key}"]
        ours.data = used(forms[key], whole.reshape(len(whole), -1)).clone()
    assert {id(p) for p in trained.values()} == {id(p) for p in module.parameters() if p.requires_grad}
    x = case["x"].clone().requires_grad_(True)
    y = module(x)
    (y * case["cotangent"]).sum().backward()
    gradients = {key: torch.zeros_like(grad) for key, grad in case.part("grad.").items()}
    for key, ours in trained.items():
        whole = gradients[key]
        used(forms[key], whole.reshape(len(whole), -1)).copy_(cast(Tensor, ours.grad))
    case.check(y, x, gradients)
    merged = module.merged()
    torch.testing.assert_close(merged(case["x"]), case["y"], rtol=0, atol=1e-10)
    if "merged.weight" in case:
        case.check_merged("merged.weight", merged.weight)
        case.check_merged("merged.bias", merged.bias)


def test_glora_starts_as_published() -> None:
    entry = MANIFEST["glora_lora_all"]
    torch.manual_seed(0)
    transform = Generalised(torch.zeros(768, 768), torch.zeros(768), glora_method(entry["hyper"]["config"], 4))
    ours = {"D": transform.d.down, "E": transform.e.down}
    for name, support in (("A", transform.a), ("B", transform.b), ("C", transform.c)):
        ours |= {f"{name}d": support.down, f"{name}u": cast(Tensor, support.up)}
    assert_same_start(entry["official_init_d768"], ours)


def test_glora_default_is_a_vector_in_all_terms_but_lora_in_b() -> None:
    """On one map of 48 by 48: four vectors of 48, two factors of rank 4."""
    method = parse("glora(sites='o')")
    assert method.expected_params(one_block_vit()) == 4 * 48 + 4 * (48 + 48)


def test_glora_takes_query_key_and_value_as_one_map() -> None:
    """GLoRA/utils.py:6-21 replaces every linear map of the model, and there are four in a block."""
    vit = one_block_vit()
    parse("glora").inject(vit)
    shapes = {name: tuple(p.shape) for name, p in vit.get_submodule("blocks.0.attn.qkv").named_parameters()}
    assert shapes["transforms.qkv.b.up"] == (4, 48)
    assert shapes["transforms.qkv.c.down"] == (48, 1)
    assert {shapes[f"transforms.qkv.{term}.down"] for term in "ade"} == {(3 * 48, 1)}
    assert sum(isinstance(module, Generalised) for module in vit.modules()) == 4


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("glora(rank=0)", "rank must be at least 1"),
        ("glora(a='scalar')", "a must be one of lora, vector, constant, none, not 'scalar'"),
        ("glora(c='constant')", "c must be one of lora, vector, none, not 'constant'"),
        ("glora(e='lora')", "e must be one of vector, constant, none, not 'lora'"),
        ("glora(a='none', b='none', c='none', d='none', e='none')", "leaves nothing to train"),
        ("glora(sites='w')", "sites='w' must name each of"),
        ("glora(sites='qv,o')", "sites='qv,o' must name q, k and v together or not at all"),
        ("snell(rank=7)", "rank must be even and at least 2, as two distances share it, not 7"),
        ("snell(rank=0)", "rank must be even and at least 2"),
        ("snell(sparsity=1.0)", "sparsity must be at least 0 and below 1, not 1.0"),
        ("apla(rank=0)", "rank must be at least 1"),
    ],
)
def test_wrong_hyper_parameters_are_named(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(spec)


def test_maps_without_bias() -> None:
    """What changes biases refuses them; what only changes weights does not."""
    for spec, message in (("rlrr", "rlrr shifts every bias"), ("glora", "set c, d and e of glora to 'none'")):
        with pytest.raises(ValueError, match=message):
            parse(spec).inject(one_block_vit(qkv_bias=False))
    method, vit = parse("glora(c='none', d='none', e='none')"), one_block_vit(qkv_bias=False)
    method.inject(vit)
    method.merge(vit)
    method, vit = parse("apla"), one_block_vit(proj_bias=False)
    method.inject(vit)
    assert sum(p.numel() for p in vit.parameters() if p.requires_grad) == 8 * 48
    method.merge(vit)


RLRR_SITES = {
    "attn.query": "attn.qkv.transforms.q",
    "attn.key": "attn.qkv.transforms.k",
    "attn.value": "attn.qkv.transforms.v",
    "attn.out": "attn.proj.transforms.o",
    "ffn.fc1": "mlp.fc1.transforms.fc1",
    "ffn.fc2": "mlp.fc2.transforms.fc2",
}


def rescaling_names(transform: Rescaling) -> dict[str, Tensor]:
    return {"scale_col": transform.column, "scale_line": transform.row, "shift_bias": transform.shift}


def rlrr_names(inside: nn.Module) -> dict[str, Tensor]:
    names: dict[str, Tensor] = {}
    for theirs, ours in RLRR_SITES.items():
        transform = cast(Rescaling, inside.get_submodule(ours))
        names |= {f"{theirs}.{part}": parameter for part, parameter in rescaling_names(transform).items()}
    for theirs, ours in (("attn_norm", "norm1"), ("ffn_norm", "norm2")):
        scaled = cast(ScaledShifted, inside.get_submodule(ours))
        names |= {f"ssf_scale_{theirs}": scaled.gamma, f"ssf_shift_{theirs}": scaled.beta}
    return names


def test_rlrr_linear() -> None:
    case = Case("rlrr_linear")
    inner = linear(case)
    transform = Rescaling(inner.weight, inner.bias)
    module = TransformedLinear(inner, ("o",), {"o": transform})
    case.compare(module, rescaling_names(transform))
    merged = module.merged()
    case.check_merged("merged.weight", merged.weight)
    case.check_merged("merged.bias", merged.bias)


def test_rlrr_block_and_what_it_folds_into() -> None:
    case, method = Case("rlrr_block"), parse("rlrr")
    vit = injected(method, case)
    case.compare(vit.blocks, rlrr_names(vit.blocks[0]))
    method.merge(vit)
    check_merged_block(vit, case)


def test_rlrr_starts_as_published() -> None:
    vit = one_block_vit(768)
    torch.manual_seed(0)
    parse("rlrr").inject(vit)
    assert_same_start(MANIFEST["rlrr_linear"]["official_init_d768"], rlrr_names(vit.blocks[0]))


@pytest.mark.parametrize("name", ["ssf", "rlrr"])
def test_scale_and_shift_of_a_model_that_averages_its_tokens(name: str) -> None:
    """Its final norm stands behind the pooling, under another name."""
    method, vit = parse(name), one_block_vit(global_pool="avg")
    expected, plain = method.expected_params(vit), list(vit.state_dict())
    method.inject(vit)
    assert sum(p.numel() for p in vit.parameters() if p.requires_grad) == expected
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    before = vit(images)
    method.merge(vit)
    assert list(vit.state_dict()) == plain
    torch.testing.assert_close(vit(images), before, rtol=1e-4, atol=1e-4)


def kernel_update(shape: tuple[int, int], rank: int, sparsity: float) -> KernelUpdate:
    return KernelUpdate(torch.empty(shape), cast(SNELL, parse(f"snell(rank={rank}, sparsity={sparsity})")), 0.1)


@pytest.mark.parametrize("name", ["snell", "snell_dense_klora"])
def test_snell(name: str) -> None:
    case, hyper = Case(name), MANIFEST[name]["hyper"]
    update = kernel_update((72, 48), hyper["q_dim"], hyper["init_thres"] or 0)
    case.compare(update, {"In_Qs": update.inputs, "Out_Qs": update.outputs})


def test_snell_starts_as_published() -> None:
    torch.manual_seed(0)
    update = kernel_update((768, 768), 16, 0.5)
    official = MANIFEST["snell"]["official_init_d768"]
    assert_same_start(official, {"In_Qs": update.inputs, "Out_Qs": update.outputs})


@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.95])
def test_snell_leaves_out_the_smallest_entries(sparsity: float) -> None:
    update = kernel_update((64, 32), 8, sparsity)
    dense = kernel_like(update, sparsity=0.0).delta().detach().abs().flatten()
    sparse = update.delta().detach().flatten()
    left_out = sparse == 0
    assert float(left_out.float().mean()) == pytest.approx(sparsity, abs=1 / len(dense))
    if sparsity:
        assert float(dense[left_out].max()) <= float(dense[~left_out].min())


def kernel_like(update: KernelUpdate, sparsity: float) -> KernelUpdate:
    """The same points with another sparsity."""
    other = kernel_update((64, 32), 8, sparsity)
    other.load_state_dict(update.state_dict())
    return other


def test_snell_drops_the_input_of_all_maps_but_o() -> None:
    vit = one_block_vit()
    parse("snell(dropout=0.3)").inject(vit)
    assert {name.rpartition(".")[2]: m.dropout.p for name, m in vit.named_modules() if isinstance(m, KernelUpdate)} == {
        site: 0.0 if site == "o" else 0.3 for site in ("q", "k", "v", "o", "fc1", "fc2")
    }


def test_apla_attention() -> None:
    case, method = Case("apla_attn"), parse(f"apla(rank={MANIFEST['apla_attn']['hyper']['partial_size']})")
    vit = one_block_vit()
    attention = vit.blocks[0].get_submodule("attn")
    attention.load_state_dict(case.part("frozen.attn."))
    method.inject(vit)
    rows = cast(RandomRows, attention.get_submodule("proj.transforms.o"))
    rows.index.copy_(case["frozen.indices"][: len(rows.index)])
    case.compare(attention, {"proj_weight1": rows.rows, "proj_bias1": cast(Tensor, rows.bias)})
    method.merge(vit)
    projection = cast(nn.Linear, attention.get_submodule("proj"))
    case.check_merged("merged.attn.proj.weight", projection.weight)
    case.check_merged("merged.attn.proj.bias", projection.bias)


def test_apla_chooses_other_rows_in_every_block() -> None:
    vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=48, depth=2, num_heads=4, num_classes=0)
    parse("apla(rank=24)").inject(vit.requires_grad_(False))
    first, second = (set(m.index.tolist()) for m in vit.modules() if isinstance(m, RandomRows))
    assert len(first) == len(second) == 24
    assert first != second


def test_apla_of_more_rows_than_there_are() -> None:
    with pytest.raises(ValueError, match="rank 49 exceeds the 48 rows"):
        parse("apla(rank=49)").inject(one_block_vit())


def test_difffit_block_and_what_it_folds_into() -> None:
    case, method = Case("difffit_block"), parse("difffit")
    vit = one_block_vit()
    scales = ("difffit_gamma1", "difffit_gamma2")
    vit.blocks[0] = block(
        case.part("frozen.") | {name: value for name, value in case.part("param.").items() if name not in scales}
    )
    method.inject(vit)
    inside = vit.blocks[0]
    ends = {"attn.proj": scales[0], "mlp.fc2": scales[1]}
    parameters = {
        f"{norm}.{part}": inside.get_parameter(f"{norm}.{part}")
        for norm in ("norm1", "norm2")
        for part in ("weight", "bias")
    }
    parameters |= {f"{path}.bias": inside.get_parameter(f"{path}.bias") for path in ("attn.qkv", "mlp.fc1")}
    for path, scale in ends.items():
        scaled = cast(Scaled, inside.get_submodule(path))
        parameters |= {f"{path}.bias": scaled.linear.bias, scale: scaled.gamma}
    case.compare(vit.blocks, parameters)
    method.merge(vit)
    check_merged_block(vit, case)


def test_difffit_scales_the_branch_as_it_is_added() -> None:
    """With LayerScale too, though the scale sits before it."""
    plain, vit = one_block_vit(init_values=0.1), one_block_vit(init_values=0.1)
    vit.load_state_dict(plain.state_dict())
    parse("difffit").inject(vit)
    gammas = [cast(Scaled, m).gamma for m in vit.modules() if isinstance(m, Scaled)]
    for gamma in gammas:
        nn.init.normal_(gamma)
    y, inside = torch.randn(2, 17, 48), plain.blocks[0]
    ours = vit.blocks(y)
    for gamma, norm, branch, scale in zip(gammas, ("norm1", "norm2"), ("attn", "mlp"), ("ls1", "ls2"), strict=True):
        parts = [inside.get_submodule(name) for name in (norm, branch, scale)]
        y = y + gamma * nn.Sequential(*parts)(y)
    torch.testing.assert_close(ours, y)


def test_difffit_trains_biases_norms_and_scales_only() -> None:
    vit = one_block_vit()
    parse("difffit").inject(vit)
    trained = {name for name, p in vit.named_parameters() if p.requires_grad}
    assert {name for name in trained if name.endswith("weight")} == {
        "blocks.0.norm1.weight",
        "blocks.0.norm2.weight",
        "norm.weight",
    }
    assert {name for name, _ in vit.named_parameters() if name.endswith("bias")} <= trained
