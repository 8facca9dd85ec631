"""Compare methods that transform pretrained weights with numbers computed with official code."""

from typing import cast

import pytest
import torch
from golden_blocks import (
    assert_merge_keeps_features,
    assert_official_init,
    base_with,
    injected,
    one_block_vit,
    trained_params,
    vit_around,
    vit_for,
)
from golden_cases import Case, block, entry, linear
from raises import raises_naming
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.apla import RandomRows
from vtab_peft.methods.base import check_backbone
from vtab_peft.methods.difffit import Scaled
from vtab_peft.methods.glora import Generalised, GLoRA, Support
from vtab_peft.methods.rlrr import Rescaling
from vtab_peft.methods.snell import SNELL, KernelUpdate
from vtab_peft.methods.ssf import ScaledShifted
from vtab_peft.methods.updates import TransformedLinear


def check_merged_block(vit: VisionTransformer, case: Case) -> None:
    """Check that the merged block is plain and computes what the adapted one of the case does."""
    assert list(vit.state_dict()) == list(one_block_vit().state_dict())
    case.check_output(vit.blocks)


def glora_method(config: dict[str, str], rank: int) -> GLoRA:
    """Return our method for the manifest's "LoRA_4", "vector", "constant" and "none"."""
    forms = {name.lower(): form.partition("_")[0].lower() for name, form in config.items()}
    return cast(GLoRA, parse(f"glora(rank={rank}, {', '.join(f'{k}={v!r}' for k, v in forms.items())})"))


def used(form: str, whole: Tensor) -> Tensor:
    """Return the part of the official first factor [rows, rank], or bias term [rows, 1], that a form reads."""
    rows, columns = {"lora": (None, None), "vector": (None, 1), "constant": (1, 1), "none": (0, 0)}[form]
    return whole[:rows, :columns]


@pytest.mark.parametrize("name", ["glora_lora_all", "glora_vector", "glora_constant", "glora_mixed", "glora_none"])
def test_glora(name: str) -> None:
    """The official module keeps whole factors, of which a form reads a part; ours has only that part."""
    case = Case(name)
    inner, method = linear(case), glora_method(case.hyper["config"], case.hyper["rank"])
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
    y, x = case.backward(module)
    gradients = {key: torch.zeros_like(grad) for key, grad in case.part("grad.").items()}
    for key, ours in trained.items():
        whole = gradients[key]
        used(forms[key], whole.reshape(len(whole), -1)).copy_(cast(Tensor, ours.grad))
    case.check(y, x, gradients)
    merged = module.merged()
    case.check_output(merged)
    if "merged.weight" in case:
        case.check_merged_linear("merged", merged)


def test_glora_initialisation() -> None:
    config = entry("glora_lora_all")["hyper"]["config"]
    torch.manual_seed(0)
    transform = Generalised(torch.zeros(768, 768), torch.zeros(768), glora_method(config, 4))
    ours = {"D": transform.d.down, "E": transform.e.down}
    for name, support in (("A", transform.a), ("B", transform.b), ("C", transform.c)):
        ours |= {f"{name}d": support.down, f"{name}u": cast(Tensor, support.up)}
    assert_official_init("glora_lora_all", ours)


def test_glora_default_is_lora_in_b_and_vectors_elsewhere() -> None:
    """One linear layer of 48 x 48 has four vectors of 48 and two factors of rank 4."""
    method = parse("glora(sites='o')")
    assert method.expected_params(one_block_vit()) == 4 * 48 + 4 * (48 + 48)


def test_glora_adapts_the_fused_qkv_as_one_layer() -> None:
    """GLoRA/utils.py:6-21 replaces every linear layer of the model; a block has four."""
    vit = one_block_vit()
    parse("glora").inject(vit)
    shapes = {name: tuple(p.shape) for name, p in vit.get_submodule("blocks.0.attn.qkv").named_parameters()}
    assert shapes["transforms.qkv.b.up"] == (4, 48)
    assert shapes["transforms.qkv.c.down"] == (48, 1)
    assert {shapes[f"transforms.qkv.{term}.down"] for term in "ade"} == {(3 * 48, 1)}
    assert sum(isinstance(module, Generalised) for module in vit.modules()) == 4


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("glora(rank=0)", ("rank", "0")),
        ("glora(a='scalar')", ("a must", "lora", "vector", "constant", "none", "'scalar'")),
        ("glora(c='constant')", ("c must", "lora", "vector", "none", "'constant'")),
        ("glora(e='lora')", ("e must", "vector", "constant", "none", "'lora'")),
        ("glora(a='none', b='none', c='none', d='none', e='none')", ("'none'",)),
        ("glora(sites='w')", ("sites='w'",)),
        ("glora(sites='qv,o')", ("sites='qv,o'", "q, k and v")),
        ("snell(rank=7)", ("rank", "7", "2")),
        ("snell(rank=0)", ("rank", "0", "2")),
        ("snell(sparsity=1.0)", ("sparsity", "1.0")),
        ("apla(rank=0)", ("rank", "0")),
    ],
)
def test_wrong_hyperparameters_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)


def test_linear_layers_without_bias() -> None:
    """Methods that change biases refuse them; methods that only change weights do not."""
    for spec, facts in (("rlrr", ("rlrr", "bias")), ("glora", ("glora", "c, d and e", "'none'"))):
        with raises_naming(ValueError, *facts):
            check_backbone(parse(spec), one_block_vit(qkv_bias=False))
    method, vit = parse("glora(c='none', d='none', e='none')"), one_block_vit(qkv_bias=False)
    method.inject(vit)
    method.merge(vit)
    method, vit = parse("apla"), one_block_vit(proj_bias=False)
    method.inject(vit)
    assert trained_params(vit) == 8 * 48
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
    case.check_merged_linear("merged", module.merged())


def test_rlrr_block_and_merging() -> None:
    case, method = Case("rlrr_block"), parse("rlrr")
    vit = injected(method, case)
    case.compare(vit.blocks, rlrr_names(vit.blocks[0]))
    method.merge(vit)
    check_merged_block(vit, case)


def test_rlrr_initialisation() -> None:
    assert_official_init("rlrr_linear", rlrr_names(base_with("rlrr").blocks[0]))


@pytest.mark.parametrize("name", ["ssf", "rlrr"])
def test_scale_and_shift_with_average_pooling(name: str) -> None:
    """The final norm then follows the pooling, under another name."""
    method, vit = parse(name), one_block_vit(global_pool="avg")
    expected, plain = method.expected_params(vit), list(vit.state_dict())
    method.inject(vit)
    assert trained_params(vit) == expected
    assert_merge_keeps_features(method, vit, atol=1e-4)
    assert list(vit.state_dict()) == plain


def kernel_update(shape: tuple[int, int], rank: int, sparsity: float) -> KernelUpdate:
    return KernelUpdate(torch.empty(shape), cast(SNELL, parse(f"snell(rank={rank}, sparsity={sparsity})")), 0.1)


@pytest.mark.parametrize("name", ["snell", "snell_dense_klora"])
def test_snell(name: str) -> None:
    case = Case(name)
    shape = case["cotangent"].shape[-1], case.width
    update = kernel_update(shape, case.hyper["q_dim"], case.hyper["init_thres"] or 0)
    case.compare(update, {"In_Qs": update.inputs, "Out_Qs": update.outputs})


def test_snell_initialisation() -> None:
    torch.manual_seed(0)
    update = kernel_update((768, 768), 16, 0.5)
    assert_official_init("snell", {"In_Qs": update.inputs, "Out_Qs": update.outputs})


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
    """Return an update with the same points and another sparsity."""
    other = kernel_update((64, 32), 8, sparsity)
    other.load_state_dict(update.state_dict())
    return other


def test_snell_dropout_spares_the_output_projection() -> None:
    vit = one_block_vit()
    parse("snell(dropout=0.3)").inject(vit)
    assert {name.rpartition(".")[2]: m.dropout.p for name, m in vit.named_modules() if isinstance(m, KernelUpdate)} == {
        site: 0.0 if site == "o" else 0.3 for site in ("q", "k", "v", "o", "fc1", "fc2")
    }


def test_apla_attention() -> None:
    case = Case("apla_attn")
    vit, method = vit_for(case), parse(f"apla(rank={case.hyper['partial_size']})")
    attention = vit.blocks[0].get_submodule("attn")
    attention.load_state_dict(case.part("frozen.attn."))
    method.inject(vit)
    rows = cast(RandomRows, attention.get_submodule("proj.transforms.o"))
    rows.index.copy_(case["frozen.indices"][: len(rows.index)])
    case.compare(attention, {"proj_weight1": rows.rows, "proj_bias1": cast(Tensor, rows.bias)})
    method.merge(vit)
    case.check_merged_linear("merged.attn.proj", cast(nn.Linear, attention.get_submodule("proj")))


def test_apla_chooses_other_rows_in_every_block() -> None:
    vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=48, depth=2, num_heads=4, num_classes=0)
    parse("apla(rank=24)").inject(vit.requires_grad_(False))
    first, second = (set(m.index.tolist()) for m in vit.modules() if isinstance(m, RandomRows))
    assert len(first) == len(second) == 24
    assert first != second


def test_apla_rank_above_the_rows_is_refused() -> None:
    with raises_naming(ValueError, "rank", 49, 48):
        parse("apla(rank=49)").inject(one_block_vit())


def test_difffit_block_and_merging() -> None:
    case, method = Case("difffit_block"), parse("difffit")
    scales = ("difffit_gamma1", "difffit_gamma2")
    tuned = {name: value for name, value in case.part("param.").items() if name not in scales}
    vit = vit_around(case, block(case, case.part("frozen.") | tuned))
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


def test_difffit_scales_the_branch_output() -> None:
    """This holds with LayerScale too, though the scale comes before it."""
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
