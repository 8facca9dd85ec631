"""Test which parameters selective methods train: GPS by the official mask, the baselines by their definition."""

import copy
import re

import numpy as np
import pytest
import timm
import torch
from golden_blocks import encoder, trained_params
from golden_cases import Case
from raises import raises_naming
from refusal import assert_refused
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.gps import ChosenConnections, supervised_contrastive


def layer(weight: Tensor) -> nn.Linear | nn.Conv2d:
    """Return a frozen linear layer or patch convolution with weights of this shape."""
    outputs, inputs, *kernel = weight.shape
    made = nn.Conv2d(inputs, outputs, tuple(kernel), tuple(kernel)) if kernel else nn.Linear(inputs, outputs)
    return made.requires_grad_(False)


def test_bitfit_trains_the_tensors_that_the_authors_choose() -> None:
    case = Case("bitfit_official")
    vit = encoder(case, img_size=(8, 8), patch_size=4)
    vit.load_state_dict(case.part("frozen.") | case.part("param."))
    parse("bitfit").inject(vit)
    case.compare(vit, {name: p for name, p in vit.named_parameters() if p.requires_grad})


def test_gps_trains_the_entries_of_the_official_mask() -> None:
    """Raise every trained value: exactly the entries with mask 0 must change."""
    case = Case("gps_mask")
    masks = [re.fullmatch(r"mask_K(\d+)\.(.*(?:proj|qkv|fc\d))\.weight", key) for key in case]
    found = [(int(match[1]), match[2]) for match in masks if match]
    assert found
    for connections, name in found:
        gradient, mask = case[f"grad_in.{name}.weight"], case[f"mask_K{connections}.{name}.weight"]
        inner = layer(gradient)
        before = inner.weight.clone()
        module = ChosenConnections(inner, connections)
        module.choose(gradient)
        assert torch.equal(module.weight(), before)
        nn.init.constant_(module.values, 100.0)
        assert torch.equal(module.weight() != before, mask == 0), (name, connections)
        assert inner.bias is not None
        assert inner.bias.requires_grad == (not case[f"mask_K{connections}.{name}.bias"].any())


def test_gps_freezes_norms_in_the_official_mask() -> None:
    assert all(mask.all() for name, mask in Case("gps_mask").part("mask_K1.").items() if "norm" in name)


def test_gps_trains_no_norm_token_or_position(vit: VisionTransformer) -> None:
    """GPS trains one weight and the bias of each neuron; the official rule trains LayerScale too."""
    parse("gps").inject(vit)
    trained = {name.rpartition(".")[2] for name, p in vit.named_parameters() if p.requires_grad}
    frozen = {name for name, p in vit.named_parameters() if not p.requires_grad}
    assert trained - {"gamma"} == {"values", "bias"}
    assert ("gamma" in trained) == hasattr(vit.blocks[0].ls1, "gamma")
    assert frozen >= {"cls_token", "pos_embed", "norm.weight", "norm.bias", "blocks.0.norm1.weight"}


def numpy_loss(z: np.ndarray, labels: np.ndarray) -> float:
    """Compute Khosla et al. 2020, eq. 2 (arXiv:2004.11362), one anchor at a time."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        denominator = sum(np.exp(z[i] @ z[j] / 0.07) for j in others)
        losses.append(
            -np.mean([np.log(np.exp(z[i] @ z[j] / 0.07) / denominator) for j in others if labels[j] == labels[i]])
        )
    return float(np.mean(losses))


def test_contrastive_loss() -> None:
    z = torch.randn(10, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 2, 1, 0, 2, 1, 1, 2])
    loss = supervised_contrastive(z, labels)
    assert float(loss) == pytest.approx(numpy_loss(z.numpy(), labels.numpy()), rel=1e-12)


def test_gps_chooses_the_largest_gradients(vit: VisionTransformer) -> None:
    """Compare with a second computation on the plain model: batches of 32 in seeded order, gradients added up."""
    images = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(40) % 3
    plain, method = copy.deepcopy(vit).requires_grad_(True), parse("gps(connections=2)")
    torch.manual_seed(4)
    order = torch.randperm(40)
    for batch in (order[:32], order[32:]):
        views = torch.stack([images[batch], images[batch].flip(3)]).flatten(0, 1)
        z = nn.functional.normalize(plain(views))
        twice, size = labels[batch].tolist() * 2, 2 * len(batch)
        p = torch.exp(z @ z.T / 0.07) * (1 - torch.eye(size))
        logs = torch.log(p / p.sum(1, keepdim=True) + torch.eye(size))
        same = [[j for j in range(size) if j != i and twice[j] == twice[i]] for i in range(size)]
        (-sum(logs[i, same[i]].mean() for i in range(size)) / size).backward()
    for block in vit.blocks:
        block.drop_path1 = DropPath(0.9)  # must not act
    method.inject(vit)
    torch.manual_seed(4)
    method.prepare(vit.train(), images, labels)
    for name, module in vit.named_modules():
        if isinstance(module, ChosenConnections):
            gradient = np.abs(plain.get_parameter(f"{name}.weight").grad.flatten(1).numpy())
            chosen = np.take_along_axis(gradient, module.index.numpy(), axis=1).sum(1)
            best = np.sort(gradient, axis=1)[:, -2:].sum(1)  # rounding may swap equal ones
            np.testing.assert_allclose(chosen, best, rtol=1e-3, atol=1e-3 * best.max(), err_msg=name)
            assert len({*module.index[0].tolist()}) == 2
            assert torch.equal(module.values, module.inner.weight.flatten(1).gather(1, module.index))


def test_gps_prepare_leaves_no_gradients(vit: VisionTransformer) -> None:
    method = parse("gps")
    method.inject(vit)
    frozen = {name for name, p in vit.named_parameters() if not p.requires_grad}
    method.prepare(vit, torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))
    assert {name for name, p in vit.named_parameters() if not p.requires_grad} == frozen
    assert all(vit.get_parameter(name).grad is None for name in frozen)


def test_gps_is_finite_for_single_image_classes(vit: VisionTransformer) -> None:
    method = parse("gps")
    method.inject(vit)
    method.prepare(vit, torch.randn(33, 3, 32, 32), torch.arange(33))
    assert all(p.isfinite().all() and (p.grad is None or p.grad.isfinite().all()) for p in vit.parameters())


def test_gps_refuses_too_many_connections(vit: VisionTransformer) -> None:
    with raises_naming(ValueError, "connections=33", 32):
        parse("gps(connections=33)").inject(vit)


@pytest.mark.parametrize("method", ["gps", "partial", "layernorm"])
@pytest.mark.parametrize(
    "extra", [{}, {"init_values": 0.1}, {"global_pool": "avg"}, {"qk_norm": True}, {"pre_norm": True}]
)
def test_parameter_count_on_other_plain_vits(method: str, extra: dict[str, object]) -> None:
    vit = VisionTransformer(img_size=32, embed_dim=32, depth=3, num_heads=4, num_classes=0, **extra)
    vit.requires_grad_(False)
    expected = parse(method).expected_params(vit)
    parse(method).inject(vit)
    assert trained_params(vit) == expected


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_partial_is_the_last_blocks_and_the_final_norm(blocks: int) -> None:
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0).requires_grad_(False)
    method = parse(f"partial(blocks={blocks})")
    assert method.expected_params(vit) == blocks * 7_087_872 + 1536
    method.inject(vit)
    trained = {".".join(name.split(".")[:2]) for name, p in vit.named_parameters() if p.requires_grad}
    assert trained == {"norm.weight", "norm.bias", *(f"blocks.{i}" for i in range(12 - blocks, 12))}


def test_partial_refuses_too_many_blocks(vit: VisionTransformer) -> None:
    with raises_naming(ValueError, "blocks=3", 2):
        parse("partial(blocks=3)").inject(vit)


def test_partial_uses_the_learning_rate_of_full() -> None:
    assert parse("partial").lr == parse("full").lr


@pytest.mark.parametrize(("method", "field"), [("partial", "blocks"), ("gps", "connections")])
def test_at_least_one(method: str, field: str) -> None:
    assert_refused(f"{method}({field}=0)", field, 0)
