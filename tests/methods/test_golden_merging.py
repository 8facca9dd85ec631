"""Compare further methods that change linear maps, and merge, with numbers computed with official code."""

import math
from typing import cast

import pytest
import torch
from golden_blocks import InTraining, assert_official_init, assert_std, encoder, injected
from golden_cases import Case, linear, official_init
from raises import raises_naming
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.consolidator import Grouped
from vtab_peft.methods.karst import KroneckerSum, Rescaled
from vtab_peft.methods.svft import SingularUpdate
from vtab_peft.methods.updates import TransformedLinear, UpdatedLinear
from vtab_peft.methods.wegeft import Generated, Projections

LINEARS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def consolidated(case: Case) -> tuple[UpdatedLinear, dict[str, Tensor]]:
    """Return the linear map of the case with its grouped map, and the trained tensors by their official names."""
    weight, bias = case["frozen.fc_origin.weight"][..., 0], case["param.fc_origin.bias"]
    plain = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64).requires_grad_(False)
    plain.weight.copy_(weight)
    plain.bias.copy_(bias)
    plain.bias.requires_grad_(True)
    update = Grouped(weight.shape[1], weight.shape[0], case.hyper["fc_groups"][0], case.hyper["rep_drop"])
    branch = "fc_rep_branches.0.group_fc"
    names = {"fc_origin.bias": plain.bias, f"{branch}.weight": update.weight, f"{branch}.bias": update.bias}
    return UpdatedLinear(plain, ("o",), {"o": update}), names


def test_consolidator_linear_map() -> None:
    case = Case("consolidator_linear")
    module, names = consolidated(case)
    case.compare(module, names)
    case.check_merged_linear("merged", module.merged())


class GivenMask(nn.Module):
    """Stochastic depth with a given mask."""

    def __init__(self, mask: Tensor, rate: float) -> None:
        super().__init__()
        self.factor = mask / (1 - rate)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor if self.training else x


def test_consolidator_linear_map_with_given_mask() -> None:
    case = Case("consolidator_linear_droppath")
    module, names = consolidated(case)
    update = cast(Grouped, module.updates["o"])
    assert update.drop_path.drop_prob == case.hyper["rep_drop"]
    update.drop_path = GivenMask(case["mask"], case.hyper["rep_drop"])
    case.compare(InTraining(module), names)


def test_consolidator_block() -> None:
    case = Case("consolidator_block")
    norms = {
        f"{norm}.{kind}": case[f"param.{norm}.{kind}"] for norm in ("norm1", "norm2") for kind in ("weight", "bias")
    }
    maps = {f"{place}.weight": case[f"frozen.{place}.fc_origin.weight"][..., 0] for place in LINEARS}
    biases = {f"{place}.bias": case[f"param.{place}.fc_origin.bias"] for place in LINEARS}
    case.arrays |= {f"frozen.{name}": tensor for name, tensor in (norms | maps | biases).items()}
    for place in LINEARS:
        del case.arrays[f"frozen.{place}.fc_origin.weight"]
    groups = case.hyper["fc_groups"][0]
    block = injected(parse(f"consolidator(group_width={case.width // groups})"), case).blocks[0]
    ours = {name: block.get_parameter(name) for name in norms}
    for place in LINEARS:
        updated = cast(UpdatedLinear, block.get_submodule(place))
        update = next(iter(updated.updates.values()))
        ours[f"{place}.fc_origin.bias"] = updated.linear.bias
        ours |= {f"{place}.fc_rep_branches.0.group_fc.{name}": t for name, t in update.named_parameters()}
    case.compare(block, ours)


def test_consolidator_initialisation() -> None:
    torch.manual_seed(0)
    updates = {"attn.qkv": (768, 2304), "attn.proj": (768, 768), "mlp.fc1": (768, 3072), "mlp.fc2": (3072, 768)}
    ours = {}
    for place, (inputs, outputs) in updates.items():
        update = Grouped(inputs, outputs, 384, 0.0)
        ours |= {f"{place}.fc_rep_branches.0.group_fc.{name}": t for name, t in update.named_parameters()}
    assert_official_init("consolidator_linear", ours)


def test_gift_linear_map() -> None:
    case = Case("gift_linear")
    shared = Projections(case["frozen.weight"].shape[1], case.hyper["rank"], zero_first=False)
    module = TransformedLinear(linear(case), ("o",), {"o": Generated(shared, 1.0)})
    case.arrays |= {f"{kind}.out_projections.l.weight": case[f"{kind}.out_projections.l.weight"].T for kind in _KINDS}
    case.compare(module, {"in_projections.l.weight": shared.a, "out_projections.l.weight": shared.b})
    case.check_merged_linear("merged", module.merged())


_KINDS = ("param", "grad")


def test_gift_shares_its_projections_between_blocks() -> None:
    case = Case("gift_encoder")
    vit = encoder(case, tuple(case["x"].shape[2:]), case["frozen.patch_embed.proj.weight"].shape[-1])
    vit.load_state_dict(case.part("frozen."))
    parse(f"gift(rank={case.hyper['rank']})").inject(vit)
    (shared,) = {module for module in vit.modules() if isinstance(module, Projections)}
    out = "out_projections.attn:proj.weight"
    case.arrays |= {f"{kind}.{out}": case[f"{kind}.{out}"].T for kind in _KINDS}
    case.compare(vit, {"in_projections.attn:proj.weight": shared.a, out: shared.b})


def test_wegeft_linear_map() -> None:
    case = Case("wegeft_linear")
    method = parse(f"wegeft(rank={case.hyper['r']}, alpha={case.hyper['alpha']})")
    shared = method.projections(case["frozen.weight"].shape[1])
    module = TransformedLinear(linear(case), ("o",), {"o": Generated(shared, method.scale())})
    case.compare(module, {"wegeft_phi": shared.a, "wegeft_psi": shared.b})


def test_gift_and_wegeft_initialisation() -> None:
    torch.manual_seed(0)
    official = official_init("gift_linear")
    gift, wegeft = (Projections(768, 16, zero_first) for zero_first in (False, True))
    assert_std(gift.a, official["in_projections.attn:proj.weight"])
    assert_std(wegeft.b, official["in_projections.attn:proj.weight"])
    assert not gift.b.any()
    assert not wegeft.a.any()


@pytest.mark.parametrize("name", ["svft_plain", "svft_banded", "svft_banded_rect", "svft_banded_tall"])
def test_svft(name: str) -> None:
    """The official map has a rounded decomposition instead of the weight, so ours gets the product as its weight."""
    case = Case(name)
    weight = case["frozen.u"] * case["frozen.s_pre"] @ case["frozen.v"]
    case.arrays["frozen.weight"] = weight
    update = SingularUpdate(weight, case.hyper["off_diag"])
    assert torch.equal(torch.stack([update.rows, update.columns]), torch.stack([case["rows"], case["cols"]]).long())
    own, official = update.u * update.v.norm(dim=1), case["frozen.u"]
    torch.testing.assert_close(own.abs(), official.abs(), rtol=0, atol=1e-6)  # the sign of a pair is free
    update.u, update.v = case["frozen.u"], case["frozen.v"]
    module = TransformedLinear(linear(case), ("o",), {"o": update})
    case.compare(module, {"s": update.entries, "gate": update.gate})
    case.check_merged_linear("merged", module.merged())


def test_svft_initialisation() -> None:
    torch.manual_seed(0)
    weight = torch.randn(768, 96)
    plain, banded = SingularUpdate(weight, 0), SingularUpdate(weight, 2)
    assert plain.entries.shape == (96,)
    assert banded.entries.shape == (96 * 5 - 6,)
    for update in (plain, banded):
        assert float(update.entries.detach().std()) == pytest.approx(math.sqrt(2 / len(update.entries)), rel=0.2)
        assert update.gate.tolist() == [0.0]
        assert bool((update.u.gather(0, update.u.abs().argmax(0, keepdim=True)) > 0).all())


def karst_names(update: nn.Module, prefix: str = "") -> dict[str, Tensor | list[Tensor]]:
    """Return our tensors by their official names: one tensor for each kernel and part."""
    assert isinstance(update, KroneckerSum)
    names: dict[str, Tensor] = {}
    for i in range(len(update.c)):
        names |= {f"{prefix}w1_group.{i}": update.c[i], f"{prefix}w2_group_b.{i}": update.b[i]}
        parts = update.a[i]
        names |= {f"{prefix}w2_group_a.{i}" + (f".{j}" if len(parts) > 1 else ""): a for j, a in enumerate(parts)}
    return names


def compare_karst(case: Case, module: nn.Module, updates: dict[str, KroneckerSum], scalars: dict[str, Tensor]) -> None:
    """Compare output and gradients; one tensor of ours holds several official ones."""
    module.double()
    with torch.no_grad():
        for prefix, update in updates.items():
            for name, part in karst_names(update, prefix).items():
                part.copy_(case[f"param.{name}"])
        for name, scalar in scalars.items():
            scalar.copy_(case[f"param.{name}"][0])
    y, x = case.backward(module)
    gradients = {}
    for prefix, update in updates.items():
        for kind in ("a", "b", "c"):
            assert getattr(update, kind).grad is not None
        of_gradients = KroneckerSum.__new__(KroneckerSum)
        nn.Module.__init__(of_gradients)
        of_gradients.a, of_gradients.b, of_gradients.c = (nn.Parameter(getattr(update, k).grad) for k in "abc")
        gradients |= karst_names(of_gradients, prefix)
    for name, scalar in scalars.items():
        base = cast(Tensor, scalar._base)
        gradients[name] = cast(Tensor, base.grad)[int(scalar.storage_offset())].reshape(1)
    case.check(y, x, gradients)


@pytest.mark.parametrize(("name", "parts"), [("karst_linear", 1), ("karst_linear_qkv", 3)])
def test_karst_linear_map(name: str, parts: int) -> None:
    case, sizes = Case(name), Case(name).hyper
    plain = linear(case)
    update = KroneckerSum(plain, parts, sizes["rank"], sizes["group_num"], sizes["factor"])
    module = UpdatedLinear(plain, ("all",), {"all": update})
    compare_karst(case, module, {"": update}, {})
    case.check_merged_linear("merged", module.merged())


def test_karst_block() -> None:
    case = Case("karst_block")
    sizes = case.hyper
    method = parse(f"karst(rank={sizes['rank']}, kernels={sizes['group_num']}, factor={sizes['factor']})")
    vit = injected(method, case)
    block = vit.blocks[0].double()
    proj, fc2 = (cast(Rescaled, block.get_submodule(place)) for place in ("attn.proj", "mlp.fc2"))
    maps = {"attn.attention_ka.": block.get_submodule("attn.qkv"), "attn.proj_ka.": proj.linear}
    maps |= {"mlp.fc1_ka.": block.get_submodule("mlp.fc1"), "mlp.fc2_ka.": fc2.linear}
    updates = {prefix: cast(KroneckerSum, cast(UpdatedLinear, m).updates["all"]) for prefix, m in maps.items()}
    before, after, hidden = (cast(Tensor, t) for t in (proj.before, proj.after, fc2.after))
    scalars = {"attn.st_x_s": before[0], "attn.st_x_b": before[1], "attn.st_proj_s": after[0]}
    scalars |= {"attn.st_proj_b": after[1], "mlp.st_h_s": hidden[0], "mlp.st_h_b": hidden[1]}
    compare_karst(case, block, updates, scalars)
    method.merge(vit)
    case.check_output(vit.blocks[0])


def test_karst_initialisation() -> None:
    torch.manual_seed(0)
    update = KroneckerSum(nn.Linear(768, 2304), 3, 8, 8, 8)
    official = official_init("karst_linear")
    assert_std(update.a, official["attn.attention_ka.w2_group_a.0.0"] | {"std": 0.0589})  # uniform within 96^-1/2
    assert_std(update.c, {"std": 8**-0.5 / 3**0.5})
    assert float(update.c.detach().abs().max()) <= 8**-0.5
    assert not update.b.any()
    rescaled = Rescaled(UpdatedLinear(nn.Linear(8, 8), ("all",), {}), before=True)
    assert cast(Tensor, rescaled.before).tolist() == rescaled.after.tolist() == [1.0, 0.0]


def test_karst_refuses_widths_that_its_factor_does_not_divide() -> None:
    vit = VisionTransformer(img_size=32, patch_size=16, embed_dim=36, depth=1, num_heads=3, num_classes=0)
    with raises_naming(ValueError, "factor=8", 36):
        parse("karst").inject(vit)


def test_consolidator_refuses_groups_that_do_not_divide_a_map() -> None:
    with raises_naming(ValueError, 5, 12):
        Grouped(12, 20, 5, 0.0)


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("consolidator(drop_path=1.0)", ("drop_path", "1.0")),
        ("svft(off_diagonals=-1)", ("off_diagonals", "-1")),
        ("gift(rank=0)", ("rank", "0")),
        ("karst(kernels=0)", ("kernels", "0")),
    ],
)
def test_wrong_hyperparameters_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)
