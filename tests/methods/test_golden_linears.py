"""Compare methods that change linear maps with numbers computed with official code."""

import pytest
import torch
import torch.nn.functional as F
from golden_blocks import InTraining, assert_official_init, injected
from golden_cases import Case, attention, linear
from raises import raises_naming
from refusal import assert_refused
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.goft import GivensTree
from vtab_peft.methods.hydra import TwoBranches
from vtab_peft.methods.mlae import Experts
from vtab_peft.methods.updates import TransformedLinear, UpdatedLinear


def experts(case: Case) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the linear map of the case with its experts, and the trained tensors by their official names."""
    update = Experts(case["frozen.weight"], case.hyper["r"], case.hyper["drop_rate"], 1.0)
    names = {"lora_A": update.a, "lora_B": update.b, "lora_lamda": update.coefficients}
    return UpdatedLinear(linear(case), ("o",), {"o": update}), names


def test_mlae_without_mask() -> None:
    case = Case("mlae_linear_eval")
    module, names = experts(case)
    case.compare(module, names)
    assert isinstance(module, UpdatedLinear)
    case.check_merged_linear("merged", module.merged())


def test_mlae_with_a_given_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("mlae_linear_masked")
    module, names = experts(case)

    def masked(x: Tensor, rate: float, training: bool) -> Tensor:
        assert training
        return x * case["mask"] / (1 - rate)

    monkeypatch.setattr(F, "dropout", masked)
    case.compare(InTraining(module), names)


def test_mlae_initialisation() -> None:
    torch.manual_seed(0)
    update = Experts(torch.empty(768, 768), 8, 0.5, 1.0)
    ours = {"lora_A": update.a, "lora_B": update.b, "lora_lamda": update.coefficients}
    assert_official_init("mlae_linear_eval", ours)


def hydra_names(part: str, adapted: nn.Module) -> dict[str, Tensor]:
    assert isinstance(adapted, TwoBranches)
    branches = {"par": adapted.parallel, "seq": adapted.sequential}
    return {
        f"hydra_{part}_{name}.{direction}_proj.{kind}": branch.get_parameter(f"{direction}.{kind}")
        for name, branch in branches.items()
        for direction in ("down", "up")
        for kind in ("weight", "bias")
    }


def test_hydra_attention() -> None:
    case = Case("hydra_attn")
    module = attention(case)
    module.proj = TwoBranches(module.proj, case.hyper["dim"], case.hyper["scale"], 0.0)
    case.compare(module, {f"attn.{name}": tensor for name, tensor in hydra_names("proj", module.proj).items()})
    case.check_merged_linear("merged.attn.proj", module.proj.merged())


def test_hydra_mlp() -> None:
    case = Case("hydra_mlp")
    module = Mlp(case.width, case.hidden).double().requires_grad_(False)
    module.load_state_dict(case.part("frozen.mlp."))
    module.fc2 = TwoBranches(module.fc2, case.hyper["dim"], case.hyper["scale"], 0.0)
    case.compare(module, {f"mlp.{name}": tensor for name, tensor in hydra_names("mlp", module.fc2).items()})
    case.check_merged_linear("merged.mlp.fc2", module.fc2.merged())


def test_hydra_block() -> None:
    case = Case("hydra_block")
    vit = injected(parse(f"hydra(rank={case.hyper['dim']}, scale={case.hyper['scale']})"), case)
    adapted = vit.blocks[0].get_submodule("attn.proj"), vit.blocks[0].get_submodule("mlp.fc2")
    names = {f"attn.{name}": tensor for name, tensor in hydra_names("proj", adapted[0]).items()}
    names |= {f"mlp.{name}": tensor for name, tensor in hydra_names("mlp", adapted[1]).items()}
    case.compare(vit.blocks[0], names)


def test_hydra_initialisation() -> None:
    torch.manual_seed(0)
    proj, fc2 = (TwoBranches(nn.Linear(inputs, 768), 2, 1.0, 0.0) for inputs in (768, 3072))
    ours = {f"blocks.0.attn.{name}": tensor for name, tensor in hydra_names("proj", proj).items()}
    ours |= {f"blocks.0.mlp.{name}": tensor for name, tensor in hydra_names("mlp", fc2).items()}
    assert_official_init("hydra_block", ours)


@pytest.mark.parametrize("name", ["goft", "goft_noscale", "goft_v2", "qgoft", "qgoft_v2"])
def test_givens_rotations(name: str) -> None:
    case = Case(name)
    strict, form = case.hyper["strict"], "released" if name.endswith("v2") else "paper"
    tree = GivensTree(case["frozen.weight"].shape[1], form, strict, strict and not case.hyper["no_scaling"])
    names = {"givens_hard" if strict else "givens_soft": tree.rotations}
    if tree.scale is not None:
        names["givens_scaler"] = tree.scale
    module = TransformedLinear(linear(case), ("o",), {"o": tree})
    case.compare(module, names)
    case.check_merged_linear("merged", module.merged())


@pytest.mark.parametrize("width", [2, 5, 8, 12, 31])
def test_paper_rotations_are_orthogonal(width: int) -> None:
    torch.manual_seed(0)
    tree = GivensTree(width, "paper", strict=True, scaled=False).double()
    with torch.no_grad():
        tree.rotations.normal_()
        rotated, _ = tree(torch.eye(width).double(), None)
    torch.testing.assert_close(rotated @ rotated.T, torch.eye(width).double(), rtol=0, atol=1e-12)


def test_released_rotations_need_pairs_of_channels() -> None:
    vit = VisionTransformer(img_size=32, patch_size=16, embed_dim=33, depth=1, num_heads=3, num_classes=0)
    with raises_naming(ValueError, "released", 33):
        parse("goft(form='released')").inject(vit)


@pytest.mark.parametrize(
    ("spec", "facts"),
    [("mlae(drop=1.0)", ("drop", "1.0")), ("hydra(rank=0)", ("rank", "0")), ("goft(form='v2')", ("paper", "released"))],
)
def test_wrong_hyperparameters_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)
