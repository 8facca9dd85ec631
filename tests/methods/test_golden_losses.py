"""Compare methods with a loss of their own with numbers computed with official code."""

from typing import cast

import pytest
import torch
import torch.nn.functional as F
from golden_blocks import InTraining, assert_official_init, encoder, injected, one_block_vit
from golden_cases import Case, block, linear, official_init
from raises import raises_naming
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.methods import METHODS, parse
from vtab_peft.methods.da_vpt import ProxiedBlock
from vtab_peft.methods.dyt import DispatchedBlock, Gate, budget_loss
from vtab_peft.methods.pace import PACE, Perturbed, SharedDropPath
from vtab_peft.methods.vpt import FreePrompts, PromptedBlock


class Twice(nn.Module):
    """Both copies of a batch in training; returns the outputs of one of them."""

    def __init__(self, module: nn.Module, copy: int) -> None:
        super().__init__()
        self.module, self.copy = module, copy

    def forward(self, x: Tensor) -> Tensor:
        return self.module.train()(torch.cat([x, x])).chunk(2)[self.copy]


def pace_names(module: nn.Module) -> dict[str, Tensor]:
    assert isinstance(module, Perturbed)
    assert module.shift is not None
    weights = {"delta_W_down": module.down, "delta_W_up": module.up, "delta_b": module.shift}
    return weights | {"delta_prompt_down": module.prompt_down, "delta_prompt_up": module.prompt_up}


def test_pace_linear_map() -> None:
    case = Case("pace_linear_eval")
    module = Perturbed(linear(case), case.hyper["rank"], 1.2)
    case.compare(module, pace_names(module))
    case.check_merged_linear("merged", module.merged())


def test_pace_linear_map_with_given_noise() -> None:
    case = Case("pace_linear_noise")
    module = Perturbed(linear(case), case.hyper["rank"], case.hyper["sigma"])
    module.noise = lambda x: case["noise"]
    case.compare(InTraining(module), pace_names(module))


LINEARS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def test_pace_block() -> None:
    case = Case("pace_block")
    adapted = injected(parse(f"pace(rank={case.hyper['rank']})"), case).blocks[0]
    maps = {name: adapted.get_submodule(name) for name in LINEARS}
    case.compare(adapted, {f"{place}.{name}": t for place, m in maps.items() for name, t in pace_names(m).items()})


def test_pace_loss() -> None:
    case, method = Case("pace_loss"), PACE(weight=1.0, sigma=0.0)
    x = case["x"].clone().requires_grad_(True)
    loss = method.loss(one_block_vit(), x, case["labels"].long(), F.cross_entropy)
    loss.backward()
    case.check(loss, x, {})


def test_pace_loss_of_a_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("pace_model_loss")
    method = parse(f"pace(rank={case.hyper['rank']}, sigma={case.hyper['sigma']}, weight={case.hyper['lbd_pace']})")
    patch = case["frozen.patch_embed.proj.weight"].shape[-1]
    vit = encoder(case, tuple(case["x"].shape[2:]), patch)
    vit.load_state_dict(case.part("frozen."))
    method.inject(vit)
    monkeypatch.setattr(PACE, "head_noise", lambda self, logits: case["noise.head"])
    names: dict[str, Tensor] = {}
    for i, ours in enumerate(vit.blocks):
        for place in LINEARS:
            module = cast(Perturbed, ours.get_submodule(place))
            assert module.sigma == pytest.approx(case.hyper["sigmas"][i])
            names |= {f"blocks.{i}.{place}.{name}": tensor for name, tensor in pace_names(module).items()}
            if i:
                monkeypatch.setattr(module, "noise", lambda x, at=f"noise.blocks.{i}.{place}": case[at])
    weight = case["param.head.weight"]
    head = nn.Linear(weight.shape[1], weight.shape[0]).double()
    names |= {f"head.{name}": tensor for name, tensor in head.named_parameters()}

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([vit, head])

        def forward(self, x: Tensor) -> Tensor:
            logits = head(vit.train()(torch.cat([x, x])))
            return method.loss(vit, logits, case["labels"].long(), F.cross_entropy)

    case.compare(Loss(), names)


def test_pace_stochastic_depth_is_shared_by_both_copies() -> None:
    case = Case("pace_shared_droppath")
    layer = SharedDropPath(case.hyper["drop_prob"])
    layer.mask = lambda x: case["mask"]
    case.compare(InTraining(layer), {})


def test_pace_replaces_stochastic_depth_of_the_recipe() -> None:
    vit = one_block_vit()
    vit.blocks[0].drop_path2 = DropPath(0.3)
    parse("pace").inject(vit)
    layer = vit.blocks[0].drop_path2
    assert isinstance(layer, SharedDropPath)
    assert layer.rate == 0.3
    x = torch.ones(6, 2, 3)
    assert torch.equal(layer.eval()(x), x)
    torch.manual_seed(0)
    first, second = layer.train()(x).chunk(2)
    assert torch.equal(first, second)


def test_pace_initialisation() -> None:
    torch.manual_seed(0)
    names = pace_names(Perturbed(nn.Linear(768, 768), 10, 1.2))
    official = official_init("pace_linear_eval")
    prompt = official.pop("delta_prompt_up")
    assert names.pop("delta_prompt_up").shape == torch.Size(prompt["shape"])  # ten draws
    assert_official_init(official, names)


def dyt_names(module: nn.Module) -> dict[str, Tensor]:
    assert isinstance(module, DispatchedBlock)
    projections = {"down_proj": module.adapter.down, "up_proj": module.adapter.up}
    names = {f"adaptmlp.{at}.{kind}": getattr(m, kind) for at, m in projections.items() for kind in ("weight", "bias")}
    return names | {f"mlp_token_select.mlp_head.{name}": t for name, t in module.gate.linear.named_parameters()}


@pytest.mark.parametrize("name", ["dyt_block", "dyt_block_complete"])
def test_dyt_block(name: str) -> None:
    """The second copy of a training batch is the complete pass."""
    case = Case(name)
    spec = f"dyt(bottleneck={case.hyper['bottleneck']}, scale={case.hyper['scale']}, dropout=0.0)"
    adapted = injected(parse(spec), case).blocks[0]
    case.compare(Twice(adapted, copy=1) if name.endswith("complete") else adapted, dyt_names(adapted))


def test_dyt_gate_with_given_noise() -> None:
    case = Case("dyt_gate_train")
    gate = Gate(case.width, prefix=1)
    gate.noise = lambda logits: case["noise"]
    case.compare(InTraining(gate), {f"mlp_head.{name}": tensor for name, tensor in gate.linear.named_parameters()})


def test_dyt_loss_of_the_masked_pass() -> None:
    case = Case("dyt_loss")
    x, prediction = case["x"].clone().requires_grad_(True), case["prediction"].clone().requires_grad_(True)
    loss = F.cross_entropy(prediction, case["labels"].long()) + budget_loss(x, case.hyper["token_target_ratio"])
    loss.backward()
    torch.testing.assert_close(loss.detach(), case["y"], rtol=0, atol=1e-10)
    torch.testing.assert_close(x.grad, case["grad_x"], rtol=0, atol=1e-8)
    torch.testing.assert_close(prediction.grad, case["grad_prediction"], rtol=0, atol=1e-8)


def test_dyt_loss_adds_the_complete_pass_and_its_distance() -> None:
    torch.manual_seed(0)
    method, vit = parse("dyt(target=0.25)"), one_block_vit()
    method.inject(vit)
    logits, labels = torch.randn(6, 4, requires_grad=True), torch.tensor([0, 3, 1])
    only = cast(DispatchedBlock, vit.blocks[0])
    only.passed = torch.tensor([1.0, 0.0, 0.0, 1.0])
    loss = method.loss(vit, logits, labels, F.cross_entropy)
    assert only.passed is None
    masked, complete = logits.detach()[:3], logits.detach()[3:]
    p = complete.softmax(1)
    distance = (p * (p.log() - masked.softmax(1).log())).sum() / 3
    supervised = F.cross_entropy(masked, labels) + F.cross_entropy(complete, labels)
    torch.testing.assert_close(loss.detach(), supervised + 2 * 0.25**2 + distance)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = (p - F.one_hot(labels, 4)) / 3  # of the complete pass: the distance holds it constant
    torch.testing.assert_close(gradient[3:], expected)


def test_dyt_initialisation() -> None:
    vit = one_block_vit(768)
    torch.manual_seed(0)
    parse("dyt").inject(vit)
    assert_official_init("dyt_block", dyt_names(vit.blocks[0]), bounded=False)


def test_other_methods_have_the_plain_loss() -> None:
    logits, labels = torch.randn(3, 4), torch.tensor([0, 3, 1])
    own = {name for name, cls in METHODS.items() if cls.copies > 1 or cls.loss is not METHODS["lora"].loss}
    assert own == {"pace", "dyt", "da_vpt", "da_vpt_plus", "sa2vp"}
    vit = VisionTransformer(img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=1)
    assert torch.equal(parse("lora").loss(vit, logits, labels, F.cross_entropy), F.cross_entropy(logits, labels))


def test_da_vpt_loss_of_one_block() -> None:
    case = Case("davpt_loss_anchor")
    tokens = case["param.proxy_prompt_tokens"][0]
    proxied = ProxiedBlock(block(case), FreePrompts(tokens.clone()), prefix=1, dropout=0.0)
    proxied.mapping = case["mapping"].long()
    weights = case.hyper["vpt_loss_weight"], case.hyper["cls_loss_weight"]

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = proxied

        def forward(self, x: Tensor) -> Tensor:
            self.block.train()(x)
            return self.block.metric_loss(case["labels"].long(), weights, case.hyper["scale"])

    case.compare(Loss(), {"proxy_prompt_tokens": cast(FreePrompts, proxied.prompts).tokens})
    assert proxied.embeddings is None


def test_da_vpt_encoder() -> None:
    case, sizes = Case("davpt_deep"), Case("davpt_deep").hyper
    vit = encoder(case, tuple(case["x"].shape[2:]), case["frozen.patch_embed.proj.weight"].shape[-1])
    vit.load_state_dict(case.part("frozen."))
    counts = f"tokens={sizes['num_prompts']}, proxies={sizes['proxy_prompt_len']}"
    parse(f"da_vpt({counts}, first={sizes['proxy_start']})").inject(vit)
    vit.double()
    prompts = [cast(FreePrompts, m.prompts).tokens for m in vit.modules() if isinstance(m, PromptedBlock)]
    with torch.no_grad():
        theirs = [*case["param.other_prompt_tokens"], *case["param.proxy_prompt_tokens"]]
        for ours, official in zip(prompts, theirs, strict=True):
            ours.copy_(official)
    y, x = case.backward(vit)
    gradients = [cast(Tensor, tokens.grad) for tokens in prompts]
    first = sizes["proxy_start"]
    named = {"other_prompt_tokens": torch.stack(gradients[:first])}
    case.check(y, x, named | {"proxy_prompt_tokens": torch.stack(gradients[first:])})


def test_da_vpt_initialisation() -> None:
    vit = VisionTransformer(num_heads=12, mlp_ratio=0.1, num_classes=0)
    torch.manual_seed(0)
    parse("da_vpt").inject(vit)
    prompts = [prompted.get_parameter("prompts.tokens") for prompted in vit.blocks]
    ours = {"other_prompt_tokens": torch.stack(prompts[:3]), "proxy_prompt_tokens": torch.stack(prompts[3:])}
    assert_official_init("davpt_deep", ours)


def test_da_vpt_gives_similar_classes_one_proxy() -> None:
    """Two groups of classes, far apart, and two proxies."""
    method, vit = parse("da_vpt(proxies=2, first=0)"), one_block_vit()
    method.inject(vit)
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 3, 16, 16, generator=generator)
    labels = torch.tensor([0, 1, 3, 4, 0, 4])
    images = torch.stack([first if label in (0, 3) else second for label in labels.tolist()])
    images = images + 0.01 * torch.randn(images.shape, generator=generator)
    method.prepare(vit, images, labels)
    (proxied,) = (module for module in vit.modules() if isinstance(module, ProxiedBlock))
    of = proxied.mapping.tolist()
    assert len(of) == 5
    assert of[0] == of[3] != of[1] == of[4]


def test_da_vpt_needs_a_class_token() -> None:
    vit = one_block_vit(class_token=False, global_pool="avg")
    with raises_naming(ValueError, "class token"):
        parse("da_vpt").validate_backbone(vit)
