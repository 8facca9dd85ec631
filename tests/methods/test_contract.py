"""The contract: what every registered method must do.  A new method is under it as soon as it is registered."""

import copy
import csv
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.benchmark.adapter import Injected, inject, store_frozen_as, wants_examples
from vtab_peft.benchmark.recipes import RECIPES
from vtab_peft.methods import METHODS, Method, parse
from vtab_peft.methods.base import Evidence

NAMES = sorted(METHODS)
STILL = replace(RECIPES["smoke"], drop_path=0.0)
"""A recipe without stochastic depth."""

UNTRAINED: dict[str, str] = {
    "dtl_plus": "of two blocks only the last receives, and the class token read after it passes no convolution",
}
"""Trainable tensors without a gradient within 3 steps: method -> why that is right."""


@pytest.fixture(params=NAMES)
def method(request: pytest.FixtureRequest) -> Method:
    return parse(request.param)


def put_into(vit: VisionTransformer, method: Method, seed: int = 0) -> Injected:
    """The method in a copy of `vit`, having looked at four images if it wants to."""
    examples = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(9)), torch.tensor([0, 1, 0, 1])
    return inject(vit, method, STILL, seed, examples if wants_examples(method) else None)


def trained(vit: VisionTransformer, method: Method, images: Tensor, seed: int = 0) -> tuple[Injected, set[str]]:
    """Three steps of SGD 0.1 with a random head; also the names of tensors that had a gradient in one of them."""
    injected = put_into(vit, method, seed)
    torch.manual_seed(7)
    head = nn.Linear(vit.num_features, 5)
    labels = torch.arange(len(images)) % 5
    own = [(name, p) for name, p in injected.vit.named_parameters() if p.requires_grad]
    optimizer = torch.optim.SGD([*(p for _, p in own), *head.parameters()], lr=0.1)
    moved: set[str] = set()
    injected.vit.train()
    for _ in range(3):
        loss = nn.functional.cross_entropy(head(injected.vit(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        moved |= {name for name, p in own if p.grad is not None and p.grad.abs().max() > 0}
    injected.vit.eval()
    return injected, moved


def test_metadata_is_filled_in(method: Method) -> None:
    assert method.title
    assert method.places
    assert method.equation
    assert method.evidence in get_args(Evidence)
    assert method.paper is None or 2017 <= method.paper.year <= 2026
    assert method.version >= 1
    first_line = (type(method).__doc__ or "").partition("\n")[0]
    assert first_line.endswith("."), "the docstring's first line is what lists say of the method"
    assert not first_line.startswith(type(method).__name__ + "(")
    assert set(method.search) <= set(method.args())
    for field, values in method.search.items():
        for value in values:
            parse(f"{method.spec().partition('(')[0]}({field}={value!r})")


def test_spec_string_is_the_method(method: Method) -> None:
    assert parse(method.spec()) == method
    everything = ", ".join(f"{name}={value!r}" for name, value in method.args().items())
    assert parse(f"{method.spec().partition('(')[0]}({everything})") == method


def test_features_keep_their_shape(vit: VisionTransformer, method: Method, images: Tensor) -> None:
    injected = put_into(vit, method, seed=0)
    assert injected.vit(images).shape == (4, 32)


def test_start_is_the_pretrained_model_exactly_where_claimed(
    vit: VisionTransformer, method: Method, images: Tensor
) -> None:
    with torch.no_grad():
        before, after = vit(images), put_into(vit, method, seed=0).vit.eval()(images)
    assert torch.equal(before, after) == method.starts_as_identity


def test_every_trainable_tensor_learns(vit: VisionTransformer, method: Method, images: Tensor) -> None:
    injected, moved = trained(vit, method, images)
    still = {name for name, p in injected.vit.named_parameters() if p.requires_grad} - moved
    assert not still or method.spec() in UNTRAINED


def test_frozen_weights_do_not_move(vit: VisionTransformer, method: Method, images: Tensor) -> None:
    fresh = put_into(vit, method, seed=0).vit
    injected, _ = trained(vit, method, images)
    for (name, before), after in zip(fresh.named_parameters(), injected.vit.parameters(), strict=True):
        if not before.requires_grad:
            assert torch.equal(before, after), name
            assert after.grad is None, name


def test_pristine_backbone_is_left_alone(vit: VisionTransformer, method: Method, images: Tensor) -> None:
    before = copy.deepcopy(vit.state_dict())
    trained(vit, method, images)
    assert all(torch.equal(before[name], tensor) for name, tensor in vit.state_dict().items())
    assert not any(p.requires_grad for p in vit.parameters())


def test_parameter_count_is_the_closed_form(vit: VisionTransformer, method: Method) -> None:
    assert put_into(vit, method, seed=0).trainable_params() == method.expected_params(vit)


def test_same_seed_gives_same_weights_and_streams_are_not_disturbed(vit: VisionTransformer, method: Method) -> None:
    torch.manual_seed(3)
    expected_next = torch.rand(1)
    torch.manual_seed(3)
    first = put_into(vit, method, seed=5).vit.state_dict()
    assert torch.equal(torch.rand(1), expected_next), "inject must not consume the caller's random stream"
    second = put_into(vit, method, seed=5).vit.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_adapter_goes_into_a_fresh_model(vit: VisionTransformer, method: Method, images: Tensor) -> None:
    injected, _ = trained(vit, method, images, seed=1)
    fresh = put_into(vit, method, seed=2)
    fresh.load_adapter(injected.adapter())
    with torch.no_grad():
        assert torch.equal(injected.vit(images), fresh.vit.eval()(images))


def test_adapter_holds_what_is_trained_and_no_checkpoint(vit: VisionTransformer, method: Method) -> None:
    injected = put_into(vit, method, seed=0)
    learned = [tensor for tensor in injected.adapter().values() if tensor.is_floating_point()]  # the rest are indices
    assert sum(tensor.numel() for tensor in learned) == injected.trainable_params()


def test_merged_model_is_plain_timm_and_computes_the_same(
    vit: VisionTransformer, method: Method, images: Tensor
) -> None:
    injected, _ = trained(vit, method, images)
    if not method.mergeable():
        with pytest.raises(TypeError, match="cannot be merged"):
            method.merge(injected.vit)
        return
    with torch.no_grad():
        expected = injected.vit(images)
        method.merge(injected.vit)
        merged = injected.vit(images)
    assert list(injected.vit.state_dict()) == list(vit.state_dict())
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)


def test_bf16_autocast_stays_close_to_fp32(vit: VisionTransformer, method: Method, images: Tensor) -> None:
    injected, _ = trained(vit, method, images)
    with torch.no_grad():
        exact = injected.vit(images)
        store_frozen_as(injected.vit, torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = injected.vit(images).float()
    assert (rounded - exact).norm() / exact.norm() < 0.05


def check_compiled(vit: VisionTransformer, method: Method, images: Tensor, backend: str) -> None:
    injected, _ = trained(vit, method, images)
    with torch.no_grad():
        expected = injected.vit(images)
    torch.compiler.reset()
    compiled = torch.compile(injected.vit, fullgraph=True, backend=backend)(images)
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-5)
    if compiled.requires_grad:  # the linear probe has nothing to train in here
        compiled.sum().backward()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("vit", ["vit_layerscale"], indirect=True)
def test_it_compiles_without_a_graph_break(vit: VisionTransformer, method: Method, images: Tensor) -> None:
    check_compiled(vit, method, images, "aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("vit", ["vit_layerscale"], indirect=True)
@pytest.mark.parametrize("spec", ["lora", "aoft_lora", "adaptformer", "vpt_deep"])
def test_inductor_computes_the_same(vit: VisionTransformer, spec: str, images: Tensor) -> None:
    check_compiled(vit, parse(spec), images, "inductor")


PUBLISHED_COUNTS = {
    "linear": "linear",
    "full": "full",
    "bitfit": "bitfit (all biases incl. LN, patch-embed)",
    "partial": "partial-1 (last block + final norm)",
    "layernorm": "layernorm (25 LNs, w+b)",
    "lora": "lora q,v r=8",
    "lora(rank=1)": "lora q,v r=1",
    "lora(rank=4)": "lora q,v r=4",
    "lora(rank=16)": "lora q,v r=16",
    "lora(rank=32)": "lora q,v r=32",
    "lora(sites='qkvo')": "lora q,k,v,o r=8",
    "lora(sites='qkvo,fc1,fc2')": "lora all six linears r=8",
    "rslora": "lora q,v r=8",
    "rslora(rank=32)": "lora q,v r=32",
    "lora_fused": "lora fused-qkv shared A r=8 (NOAH/OSU)",
    "lora_fused(rank=1)": "lora fused-qkv shared A r=1 (NOAH/OSU)",
    "lora_fused(rank=16)": "lora fused-qkv shared A r=16 (NOAH/OSU)",
    "lora_fused(rank=32)": "lora fused-qkv shared A r=32 (NOAH/OSU)",
    "dora": "dora q,v r=8",
    "pissa": "pissa q,v r=8",
    "kadaptation": "kadaptation q,v n=32 (+b per layer)",
    "bi_lora": "lora q,v r=32",
    "bi_adaptformer(bottleneck=8)": "bi-adaptformer h=8 (no biases; fp count)",
    "bi_adaptformer": "bi-adaptformer h=32 (no biases; fp count)",
    "bi_adaptformer(bottleneck=64)": "bi-adaptformer h=64 (no biases; fp count)",
    "adaptformer": "adapter-pfeiffer r=8 / adaptformer r=8 (biases)",
    "adaptformer(bottleneck=64)": "adapter-pfeiffer r=64 / adaptformer r=64 (biases)",
    "adapter_houlsby(bottleneck=1)": "adapter-houlsby r=1 (attn+mlp)",
    "adapter_houlsby(bottleneck=4)": "adapter-houlsby r=4 (attn+mlp)",
    "adapter_houlsby": "adapter-houlsby r=8 (attn+mlp)",
    "adapter_houlsby(bottleneck=16)": "adapter-houlsby r=16 (attn+mlp)",
    "adapter_houlsby(bottleneck=32)": "adapter-houlsby r=32 (attn+mlp)",
    "adapter_houlsby(bottleneck=64)": "adapter-houlsby r=64 (attn+mlp)",
    "adapter_intermediate(bottleneck=1)": "adapter-pfeiffer r=1 / adaptformer r=1 (biases)",
    "adapter_intermediate(bottleneck=4)": "adapter-pfeiffer r=4 / adaptformer r=4 (biases)",
    "adapter_intermediate": "adapter-pfeiffer r=8 / adaptformer r=8 (biases)",
    "adapter_intermediate(bottleneck=16)": "adapter-pfeiffer r=16 / adaptformer r=16 (biases)",
    "adapter_intermediate(bottleneck=32)": "adapter-pfeiffer r=32 / adaptformer r=32 (biases)",
    "adapter_intermediate(bottleneck=64)": "adapter-pfeiffer r=64 / adaptformer r=64 (biases)",
    "adapter_noah": "adapter-pfeiffer r=8 / adaptformer r=8 (biases)",
    "adapter_parallel": "adapter-pfeiffer r=8 / adaptformer r=8 (biases)",
    "adapter_pre": "adapter-pfeiffer r=8 / adaptformer r=8 (biases)",
    "adapter_plus": "adapter+ r=8 (post, channel scale)",
    "convpass": "convpass h=8 (attn+mlp)",
    "convpass_attn": "convpass-attn h=8",
    "repadapter": "repadapter-block h=8 g=2",
    "repadapter(where='attn')": "repadapter-attn h=8 g=2",
    "arc": "arc r=50 (attn+mlp)",
    "arc(where='attn')": "arc_att r=50",
    "mona": "mona bottleneck 64 x2/block",
    "vpt_deep(tokens=1)": "vpt-deep p=1",
    "vpt_deep(tokens=5)": "vpt-deep p=5",
    "vpt_deep": "vpt-deep p=10",
    "vpt_deep(tokens=50)": "vpt-deep p=50",
    "vpt_deep(tokens=100)": "vpt-deep p=100",
    "vpt_deep(tokens=200)": "vpt-deep p=200",
    "vpt_shallow(tokens=1)": "vpt-shallow p=1",
    "vpt_shallow(tokens=5)": "vpt-shallow p=5",
    "vpt_shallow": "vpt-shallow p=10",
    "vpt_shallow(tokens=50)": "vpt-shallow p=50",
    "vpt_shallow(tokens=100)": "vpt-shallow p=100",
    "vpt_shallow(tokens=200)": "vpt-shallow p=200",
    "sct": "sct_attn topN=96",
    "dtl": "dtl r=2",
    "dtl_plus": "dtl+ r=2 (+3x3 depthwise)",
    "gps": "gps K=1 (1 conn/neuron incl. patch-embed + biases excl. LN)",
    "ssf": "ssf",
    "rlrr": "rlrr",
    "difffit": "difffit (bias+LN weight+2 gamma/block)",
    "fact_tt(rank=4)": "fact-tt r=4",
    "fact_tt(rank=8)": "fact-tt r=8",
    "fact_tt": "fact-tt r=16",
    "fact_tk(rank=8)": "fact-tk r=8",
    "fact_tk(rank=16)": "fact-tk r=16",
    "fact_tk": "fact-tk r=32",
    "cara(rank=16)": "cara r=16",
    "cara": "cara r=32",
    "apla": "apla r=8 rows of attn.proj (+bias)",
    "apla(rank=16)": "apla r=16 rows of attn.proj (+bias)",
    "apla(rank=32)": "apla r=32 rows of attn.proj (+bias)",
    "apla(rank=64)": "apla r=64 rows of attn.proj (+bias)",
    "apla(rank=128)": "apla r=128 rows of attn.proj (+bias)",
    "apla(rank=768)": "apla full attn.proj",
}
"""Our spec -> the row of tests/golden/param_counts_vitb16.csv."""

COMPUTED_COUNTS = {
    "aoft_lora(scale='none')": 36_864,
    "aoft_lora": 36_864 + 24 * 8,
    "aoft_lora(sites='qv,fc1,fc2')": 129_408,
    "aoft_lora(rank=1)": 36_864 + 24,
    "aoft_adapter(scale='none')": 18_432,
    "aoft_adapter": 18_432 + 12 * 8,
    "aoft_lora_paper": 36_864,
    "aoft_lora_dagger": 129_408,
    "aoft_lora_released": 129_408,
    "aoft_adapter_paper": 18_432,
    "aoft_adapter_released": 37_056,
    "aoft_vpt": 9_216,
    "adapter_pfeiffer": 156_768 + 24 * 768,  # with the LayerNorm of its own; the rows of that name have none
}
"""Trainable parameters on ViT-B/16, without head, from D = 768 and D' = 3072 by hand."""


NOT_HERE = {
    "vera", "adalora", "randlora", "ia3", "oft", "boft", "hra", "loha", "lokr", "fourierft",
    "hta", "vqt", "side-tuning",
    "glora r=4 supernet",  # no one configuration: the most that the search may choose
    "[mean VTAB head",
}  # fmt: skip
"""How the rows begin that are no method here."""


def listed_counts() -> dict[str, float]:
    path = Path(__file__).parents[1] / "golden" / "param_counts_vitb16.csv"
    with path.open() as file:
        return {row["method_config"]: float(row["trainable_params_excl_head"]) for row in csv.DictReader(file)}


def test_every_listed_count_is_compared() -> None:
    rest = set(listed_counts()) - set(PUBLISHED_COUNTS.values())
    assert not [row for row in rest if not row.startswith(tuple(NOT_HERE))]


@pytest.fixture(scope="module")
def vit_base() -> VisionTransformer:
    with torch.device("meta"):
        return timm.create_model("vit_base_patch16_224", num_classes=0)


@pytest.mark.parametrize("spec", [*PUBLISHED_COUNTS, *COMPUTED_COUNTS])
def test_counts_on_vit_b16_are_the_published_ones(vit_base: VisionTransformer, spec: str) -> None:
    expected = COMPUTED_COUNTS[spec] if spec in COMPUTED_COUNTS else listed_counts()[PUBLISHED_COUNTS[spec]]
    assert parse(spec).expected_params(vit_base) == expected
