"""Compare side networks and SCT's channel adapter with numbers computed with official code."""

import numpy as np
import pytest
import torch
from golden_blocks import assert_official_init, assert_std, encoder, one_block_vit, weights_and_biases
from golden_cases import Case, official_init
from refusal import assert_refused
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import hst, parse
from vtab_peft.methods.blocks import OnPatchGrid
from vtab_peft.methods.dtl import SideNetwork
from vtab_peft.methods.sct import ChannelAdapter


class NormAfterPooling(nn.Module):
    """The official forward on patch tokens: class token and position, blocks, mean of the patches, then the norm."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, x: Tensor) -> Tensor:  # [b, patches, d] -> [b, d]
        return self.vit.norm(self.vit.blocks(self.vit._pos_embed(x))[:, 1:].mean(dim=1))


def side_network(case: Case) -> tuple[NormAfterPooling, SideNetwork]:
    side = round(case["x"].shape[1] ** 0.5)
    vit = encoder(case, (side, side), patch_size=1)
    missing = vit.load_state_dict(case.part("frozen."), strict=False)
    assert set(missing.missing_keys) == {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert not missing.unexpected_keys
    parse(f"{case.name}(rank={case.hyper['r']}, beta={case.hyper['beta']})").inject(vit)
    side = vit.blocks[0]
    assert isinstance(side, SideNetwork)
    return NormAfterPooling(vit), side


def low_rank_names(case: Case, side: SideNetwork) -> dict[str, Tensor]:
    return {
        f"lora_dict.{i}.lora_{name.upper()}": side.sides[i].get_parameter(name)
        for i in case.hyper["lora_before_blocks"]
        for name in "ab"
    }


def test_dtl() -> None:
    case = Case("dtl")
    module, side = side_network(case)
    case.compare(module, low_rank_names(case, side))


def test_dtl_plus() -> None:
    """The case skips some blocks; ours reads them through an up-projection that is still zero."""
    case = Case("dtl_plus")
    module, side = side_network(case)
    assert isinstance(side.fusion, OnPatchGrid)
    case.compare(module, {**low_rank_names(case, side), "lora_fusion.weight": side.fusion.module.weight})


def test_dtl_initialisation() -> None:
    official = official_init("dtl")
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, embed_dim=768, depth=1, num_classes=0)
    parse("dtl_plus").inject(vit)
    side = vit.blocks[0]
    assert isinstance(side, SideNetwork)
    low_rank = side.sides[0].requires_grad_(False)
    kernel = side.fusion.get_parameter("module.weight").detach()
    assert_std(low_rank.get_parameter("a"), official["lora_A"])
    assert not low_rank.get_parameter("b").any()
    assert_std(kernel, official["lora_fusion.weight"])
    assert float(kernel.abs().max()) <= 1 / 3


def test_convolution_of_dtl_plus_gets_gradients() -> None:
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


def test_prefix_tokens_bypass_the_grid_convolution() -> None:
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


def hst_names(vit: VisionTransformer) -> dict[str, Tensor]:
    """Return our trained tensors by their official names; the official code keeps one tensor of meta tokens a block."""
    side, first = vit.blocks[0], vit.get_submodule("patch_embed.proj.stem")
    assert isinstance(side, hst.SideNetwork)
    named: dict[str, nn.Module] = {"m_patch_embed1.conv.1": first[1], "m_patch_embed1.conv.3": first[3]}
    metas = 0
    for i, stage in enumerate(side.stages, 1):
        named |= {f"T_Bridge_{i}": stage.bridge, f"m_norm{i}": stage.norm, f"m_patch_embed{i}.norm": stage.embed_norm}
        if i > 1:
            named[f"m_patch_embed{i}.proj"] = stage.embed
        for j, (block, norm) in enumerate(zip(stage.blocks, stage.meta_norms, strict=True)):
            metas += 1
            named[f"m_proj_norm{metas}"] = norm
            own = {"norm1": block.norm1, "norm2": block.norm2}
            own |= {f"attn.{name}": block.get_submodule(name) for name in ("q", "k", "v", "proj")}
            own |= {f"mlp.{name}": block.mlp.get_submodule(name) for name in ("fc1", "fc2")}
            named |= {f"m_block{i}.{j}.{name}": module for name, module in own.items()}
    for i, block in enumerate(side.blocks):
        named |= {f"blocks.{i}.{name}": block.get_submodule(name) for name in ("norm1", "norm2")}
    return {
        "m_patch_embed1.conv.0.weight": first[0].weight,
        **{f"m_embeddings.{i}": side.meta[i : i + 1] for i in range(len(side.meta))},
        **weights_and_biases(named),
    }


def test_hst() -> None:
    """Set and compare the meta tokens apart, which are one tensor in ours."""
    case = Case("hst_encoder")
    vit = encoder(case, tuple(case["x"].shape[2:]), case.hyper["patch"])
    frozen, trained = case.part("frozen."), case.part("param.")
    plain = {name: (frozen | trained).get(name) for name in vit.state_dict()}
    vit.load_state_dict({name: tensor for name, tensor in plain.items() if tensor is not None}, strict=False)
    hst.add_side_network(vit, case.hyper["metaG_num"], case.hyper["m_embed_dims"], case.hyper["m_c_num_heads"])
    side = vit.blocks[0]
    assert isinstance(side, hst.SideNetwork)
    for place, name in (("patch_embed.proj.stem.1", "m_patch_embed1.conv.1"), ("fc_norm", "fc_norm")):
        for kind in ("running_mean", "running_var"):
            vit.get_buffer(f"{place}.{kind}").copy_(frozen[f"{name}.{kind}"])
    ours = hst_names(vit)
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(trained[name].reshape(tensor.shape))
    y, x = case.backward(vit)
    assert side.meta.grad is not None
    metas = {f"m_embeddings.{i}": gradient for i, gradient in enumerate(side.meta.grad)}
    case.check(y, x, metas | {name: tensor.grad for name, tensor in ours.items() if name not in metas})


def test_hst_initialisation() -> None:
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=64, embed_dim=768, depth=4, num_classes=0).requires_grad_(False)
    parse("hst").inject(vit)
    side = vit.blocks[0]
    assert isinstance(side, hst.SideNetwork)
    ours = {name: tensor.detach() for name, tensor in hst_names(vit).items()}
    official = official_init("hst_encoder")
    assert_official_init("hst_encoder", {name: ours[name] for name in official}, bounded=False)
    assert float(side.meta.detach().abs().max()) <= (6 / 1536) ** 0.5


def test_features_of_hst_for_a_single_image() -> None:
    """One image has no statistics of its own; a batch is normalised by its own."""
    torch.manual_seed(0)
    norm = hst.FeatureNorm(4, eps=1e-6, affine=False)
    batch = norm(torch.randn(64, 4) * 3 + 1)
    torch.testing.assert_close(batch.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    running, one = norm.running_mean.clone(), torch.randn(1, 4)
    torch.testing.assert_close(norm(one), (one - running) / (norm.running_var + 1e-6).sqrt())
    assert torch.equal(norm.running_mean, running)


def test_sct_module() -> None:
    case = Case("sct_module")
    channels = case.hyper["num_selection"]
    adapter = ChannelAdapter(channels, scale=1.0)
    adapter.index.copy_(case["frozen.channel_index"][:channels])
    case.compare(adapter, {f"adapt_linear.{name}": p for name, p in adapter.linear.named_parameters()})


def test_sct_initialisation() -> None:
    torch.manual_seed(0)
    linear = ChannelAdapter(96, 1.0).linear.requires_grad_(False)
    ours = {f"adapt_linear.{name}": p for name, p in linear.named_parameters()}
    assert_official_init("sct_module", ours, bounded=False)
    assert float(linear.weight.abs().max()) > 0.06  # truncated at 2, not at 2 standard deviations


def test_sct_scales_the_adapter_only() -> None:
    torch.manual_seed(0)
    adapter, x = ChannelAdapter(3, scale=1.0), torch.randn(2, 5, 8)
    change = adapter(x) - x
    adapter.scale = 0.1
    torch.testing.assert_close(adapter(x) - x, 0.1 * change, rtol=1e-3, atol=1e-6)
    assert not change[..., 3:].any()


def inputs_and_outputs(vit: VisionTransformer, images: Tensor) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the inputs of each block's norm2 and the outputs of each block of the plain model: [b, n, d]."""
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
def test_sct_chooses_channels_of_largest_norm(vit: VisionTransformer, place: str) -> None:
    """Compare with a second computation on classes of unequal size, one of them empty, in several batches."""
    generator = torch.Generator().manual_seed(2)
    images, labels = torch.randn(40, 3, 32, 32, generator=generator), torch.tensor([0] * 30 + [3] * 3 + [1] * 7)
    images[labels == 3] *= 5
    vit.get_parameter("cls_token")[..., :6] += 20  # large, but no patch
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


def test_sct_finds_channels_that_were_made_large(vit: VisionTransformer) -> None:
    bias = vit.blocks[0].get_submodule("attn.proj").get_parameter("bias")
    bias.data[[5, 11, 30]] += 50
    method = parse("sct(channels=3)")
    method.inject(vit)
    method.prepare(vit, torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))
    assert all(m.index.tolist() == [5, 11, 30] for m in vit.modules() if isinstance(m, ChannelAdapter))


def test_sct_in_the_mlp_acts_before_layer_scale() -> None:
    """The official code computes ls2(sct_mlp(mlp(.))) (models/vision_transformer_sct.py)."""
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
    ("spec", "facts"),
    [
        ("sct(place='qkv')", ("place", "attn", "mlp", "'qkv'")),
        ("sct(channels=0)", ("channels", "0")),
        ("dtl(rank=0)", ("rank", "0")),
    ],
)
def test_wrong_hyperparameters_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)
