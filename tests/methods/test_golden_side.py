"""DTL's side network and SCT's channel adapter against numbers computed with the authors' code."""

import numpy as np
import pytest
import torch
from golden_blocks import one_block_vit
from golden_cases import MANIFEST, Case
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import parse
from vtab_peft.methods.blocks import OnPatchGrid
from vtab_peft.methods.dtl import SideNetwork
from vtab_peft.methods.sct import ChannelAdapter


class NormAfterPooling(nn.Module):
    """The authors' forward on patch tokens: class token and position, blocks, mean of the patches, then the norm."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, x: Tensor) -> Tensor:  # [b, patches, d] -> [b, d]
        return self.vit.norm(self.vit.blocks(self.vit._pos_embed(x))[:, 1:].mean(dim=1))


def side_network(case: Case, spec: str, grid: int) -> tuple[NormAfterPooling, SideNetwork]:
    vit = VisionTransformer(
        img_size=grid, patch_size=1, embed_dim=32, depth=4, num_heads=4, mlp_ratio=2, num_classes=0
    ).double()
    missing = vit.load_state_dict(case.part("frozen."), strict=False)
    assert set(missing.missing_keys) == {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert not missing.unexpected_keys
    vit.requires_grad_(False)
    parse(spec).inject(vit)
    side = vit.blocks[0]
    assert isinstance(side, SideNetwork)
    return NormAfterPooling(vit), side


def test_dtl() -> None:
    case, hyper = Case("dtl"), MANIFEST["dtl"]["hyper"]
    module, side = side_network(case, f"dtl(rank={hyper['r']}, beta={hyper['beta']})", grid=4)
    low_rank = {
        f"lora_dict.{i}.lora_{name.upper()}": getattr(side.sides[i], name)
        for i in hyper["lora_before_blocks"]
        for name in "ab"
    }
    case.compare(module, low_rank)


def test_dtl_plus() -> None:
    """The case reads no block 2; ours does, with an up-projection that is zero as at the start."""
    case, hyper = Case("dtl_plus"), MANIFEST["dtl_plus"]["hyper"]
    module, side = side_network(case, f"dtl_plus(rank={hyper['r']}, beta={hyper['beta']})", grid=14)
    assert isinstance(side.fusion, OnPatchGrid)
    low_rank = {
        f"lora_dict.{i}.lora_{name.upper()}": getattr(side.sides[i], name)
        for i in hyper["lora_before_blocks"]
        for name in "ab"
    }
    case.compare(module, {**low_rank, "lora_fusion.weight": side.fusion.module.weight})


def test_dtl_starts_like_the_authors() -> None:
    official = MANIFEST["dtl"]["official_init_d768"]
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, embed_dim=768, depth=1, num_classes=0)
    parse("dtl_plus").inject(vit)
    side = vit.blocks[0]
    assert isinstance(side, SideNetwork)
    low_rank = side.sides[0].requires_grad_(False)
    kernel = side.fusion.get_parameter("module.weight").detach()
    assert float(low_rank.get_parameter("a").std()) == pytest.approx(official["lora_A"]["std"], rel=0.05)
    assert not low_rank.get_parameter("b").any()
    assert float(kernel.std()) == pytest.approx(official["lora_fusion.weight"]["std"], rel=0.05)
    assert float(kernel.abs().max()) <= 1 / 3


def test_convolution_of_dtl_plus_learns_where_a_block_follows() -> None:
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, patch_size=16, embed_dim=16, depth=4, num_heads=2, num_classes=0)
    vit.requires_grad_(False)
    parse("dtl_plus").inject(vit)
    side = vit.blocks[0]
    assert isinstance(side, SideNetwork)
    for low_rank in side.sides:
        nn.init.normal_(low_rank.get_parameter("b"))
    vit(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in vit.parameters() if p.requires_grad)


def test_prefix_tokens_pass_the_convolution_and_the_grid_may_be_oblong() -> None:
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=(8, 12), patch_size=4, embed_dim=2, depth=1, num_heads=1, reg_tokens=2)
    module = OnPatchGrid(nn.Conv2d(2, 2, 3, padding=1, groups=2, bias=False), vit, keep_prefix=True)
    x = torch.randn(1, 3 + 6, 2)
    y = module(x)
    assert torch.equal(y[:, :3], x[:, :3])
    kernel, image = module.module.weight.detach().numpy()[:, 0], np.zeros((2, 4, 5))  # a border of zeros
    image[:, 1:-1, 1:-1] = x[0, 3:].T.reshape(2, 2, 3)
    for row in range(2):
        for column in range(3):
            expected = (kernel * image[:, row : row + 3, column : column + 3]).sum((1, 2))
            np.testing.assert_allclose(y[0, 3 + 3 * row + column].detach().numpy(), expected, atol=1e-6)


def test_sct_module() -> None:
    case, hyper = Case("sct_module"), MANIFEST["sct_module"]["hyper"]
    adapter = ChannelAdapter(hyper["num_selection"], scale=1.0)
    adapter.index.copy_(case["frozen.channel_index"][: hyper["num_selection"]])
    case.compare(adapter, {f"adapt_linear.{name}": p for name, p in adapter.linear.named_parameters()})


def test_sct_starts_like_the_authors() -> None:
    torch.manual_seed(0)
    linear, official = (
        ChannelAdapter(96, 1.0).linear.requires_grad_(False),
        MANIFEST["sct_module"]["official_init_d768"],
    )
    assert float(linear.weight.std()) == pytest.approx(official["adapt_linear.weight"]["std"], rel=0.05)
    assert float(linear.weight.abs().max()) > 0.06  # cut at 2, not at 2 standard deviations
    assert not linear.bias.any()


def test_scale_of_sct_is_on_the_adapter_alone() -> None:
    torch.manual_seed(0)
    adapter, x = ChannelAdapter(3, scale=1.0), torch.randn(2, 5, 8)
    change = adapter(x) - x
    adapter.scale = 0.1
    torch.testing.assert_close(adapter(x) - x, 0.1 * change, rtol=1e-3, atol=1e-6)
    assert not change[..., 3:].any()


def inputs_and_outputs(vit: VisionTransformer, images: Tensor) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What enters each block's norm2 and what leaves each block of the plain model: [b, n, d]."""
    entered: list[np.ndarray] = []
    left: list[np.ndarray] = []
    hooks = [
        hook
        for block in vit.blocks
        for hook in (
            block.get_submodule("norm2").register_forward_pre_hook(lambda _, x: entered.append(x[0].numpy())),
            block.register_forward_hook(lambda _, __, y: left.append(y.numpy())),
        )
    ]
    with torch.no_grad():
        vit(images)
    for hook in hooks:
        hook.remove()
    return entered, left


@pytest.mark.parametrize("place", ["attn", "mlp"])
def test_sct_chooses_the_loud_channels(vit: VisionTransformer, place: str) -> None:
    """By a second computation; three classes of unequal size, of which one has no image, in more than one batch."""
    generator = torch.Generator().manual_seed(2)
    images, labels = torch.randn(40, 3, 32, 32, generator=generator), torch.tensor([0] * 30 + [3] * 3 + [1] * 7)
    images[labels == 3] *= 5
    vit.get_parameter("cls_token")[..., :6] += 20  # loud, but no patch
    features = inputs_and_outputs(vit, images)[place == "mlp"]
    for block in vit.blocks:
        block.drop_path1 = DropPath(0.9)  # must not act
    method = parse(f"sct(channels=6, place={place!r}, scale=50)")
    method.inject(vit)
    vit.train()
    method.prepare(vit, images, labels)
    adapters = [module for module in vit.modules() if isinstance(module, ChannelAdapter)]
    assert len(adapters) == len(features) == 2
    for adapter, x in zip(adapters, features, strict=True):
        norms = [np.sqrt((x[labels.numpy() == c, 1:] ** 2).sum((0, 1))) for c in (0, 1, 3)]
        assert adapter.index.tolist() == sorted(np.argsort(np.mean(norms, axis=0))[-6:])
        assert not adapter._forward_hooks


def test_sct_finds_channels_that_were_made_loud(vit: VisionTransformer) -> None:
    bias = vit.blocks[0].get_submodule("attn.proj").get_parameter("bias")
    bias.data[[5, 11, 30]] += 50
    method = parse("sct(channels=3)")
    method.inject(vit)
    method.prepare(vit, torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))
    assert all(m.index.tolist() == [5, 11, 30] for m in vit.modules() if isinstance(m, ChannelAdapter))


def test_sct_in_the_mlp_acts_on_its_output_before_layer_scale() -> None:
    """models/vision_transformer_sct.py: ls2(sct_mlp(mlp(.)))"""
    vit, x = one_block_vit(init_values=0.3), torch.randn(2, 17, 48)
    block = vit.blocks[0]
    parse("sct(channels=48, place='mlp', scale=0.5)").inject(vit)
    (adapter,) = (module for module in vit.blocks[0].modules() if isinstance(module, ChannelAdapter))
    with torch.no_grad():
        nn.init.normal_(block.get_parameter("ls2.gamma"))
        middle = x + block.ls1(block.attn(block.norm1(x)))
        h = block.mlp(block.norm2(middle))
        expected = middle + block.ls2(h + 0.5 * adapter.linear(h))
        torch.testing.assert_close(vit.blocks[0](x), expected)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sct(place='qkv')", "place must be one of attn, mlp, not 'qkv'"),
        ("sct(channels=0)", "channels must be at least 1, not 0"),
        ("dtl(rank=0)", "rank must be at least 1, not 0"),
    ],
)
def test_wrong_hyper_parameters(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(spec)
