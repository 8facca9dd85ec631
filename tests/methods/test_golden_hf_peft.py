"""The bridge to peft: its tuners against stored numbers of its code, and our LoRA family against its own."""

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from golden_blocks import one_block_vit
from golden_cases import MANIFEST, Case, linear
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from vtab_peft.benchmark.commands import method_docs as catalogue
from vtab_peft.benchmark.method_checks import checks as contract
from vtab_peft.methods import METHODS, parse
from vtab_peft.methods.adalora import AdaLoRA
from vtab_peft.methods.dora import Decomposed
from vtab_peft.methods.hf_peft import HF, FromPeft, Rows, SplitQKV, adapt, tuned_layers
from vtab_peft.methods.lora import LowRank

NAMED = sorted(name for name, method in METHODS.items() if method.needs == "peft" and name != "hf")


def images(count: int = 2, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def trained(layer: nn.Module) -> dict[str, Tensor]:
    """By the names of the cases, which do not have the adapter's."""
    named = {name.replace(".default", ""): p for name, p in layer.named_parameters() if p.requires_grad}
    named.pop("ranknum", None)  # of AdaLoRA: frozen, but not after peft casts it to float64
    return named


def around(case: Case, spec: str, name: str = "fc1") -> Any:
    """What peft puts around the linear map of the case."""
    model = nn.ModuleDict({"mlp": nn.ModuleDict({name: linear(case)})})
    adapt(model, [f"mlp.{name}"], *cast(FromPeft, parse(spec)).tuner())
    return model.get_submodule(f"mlp.{name}")


GOLDEN = {
    "oft_neumann": "oft(block=8)",
    "oft_exact_cayley": "oft(block=8, exact=True)",
    "boft_m1": "boft(block=4)",
    "hra": "hra(rank=4)",
    "hra_gs": "hra(rank=4, gram_schmidt=True)",
    "vera": "vera(rank=7)",
    "vera_shared_larger": "vera(rank=7)",
    "randlora_rect": "randlora(rank=4, scale=3.0)",
    "randlora_tall": "randlora(rank=4, scale=3.0)",
    "loha": "loha(rank=4, alpha=8.0)",
    "lokr": "lokr(rank=2, alpha=3.0)",
    "lokr_full_w2": "lokr(rank=6, alpha=3.0)",
    "fourierft": "fourierft(coefficients=60, scale=20.0, rate=1.0)",
    "ia3_output": "ia3",
    "ia3_feedforward": "ia3",
    "adalora": "adalora(rank=4, target_rank=1, alpha=8.0)",
    "lora": "hf(type='lora', options={'r': 4, 'lora_alpha': 9})",
    "rslora": "hf(type='lora', options={'r': 4, 'lora_alpha': 9, 'use_rslora': True})",
    "dora": "hf(type='lora', options={'r': 4, 'lora_alpha': 8, 'use_dora': True})",
}
"""Case -> what computes it."""


@pytest.mark.parametrize("name", GOLDEN)
def test_stored_numbers(name: str) -> None:
    case = Case(name)
    layer = around(case, GOLDEN[name], "fc2" if name == "ia3_feedforward" else "fc1")
    for buffers, stored in case.part("frozen.").items():
        if buffers.startswith(("vera_", "randlora_")):  # the shared random matrices
            getattr(layer, buffers)["default"] = stored
    loose = {"y_atol": 1e-5, "grad_atol": 1e-5} if name == "fourierft" else {}  # the case was computed in float32
    case.compare(layer, trained(layer), **loose)
    layer.merge()
    case.check_merged("merged.weight", layer.get_base_layer().weight)
    case.check_merged("merged.bias", layer.get_base_layer().bias)


def test_fourier_coefficients_lie_where_they_did() -> None:
    case = Case("fourierft")
    assert torch.equal(around(case, GOLDEN["fourierft"]).indices["default"].double(), case["frozen.indices"])


@pytest.mark.parametrize("method", [name for name in NAMED if name != "fourierft"])  # that starts at zero
def test_method_starts_as_published(method: str) -> None:
    case = next(case for case, spec in GOLDEN.items() if spec.partition("(")[0] == method)
    vit = one_block_vit(768)
    torch.manual_seed(0)
    parse(method).inject(vit)
    ours, official = trained(vit.get_submodule("blocks.0.attn.qkv.v")), MANIFEST[case]["official_init_d768"]
    assert set(ours) == set(official)
    for name, theirs in official.items():
        values = ours[name].detach()
        assert list(values.shape) == theirs["shape"]
        assert bool((values == 0).all()) == theirs["all_zero"]
        assert bool((values == 1).all()) == theirs["all_one"]
        # Two draws of n numbers differ by about std / sqrt(n) in either; the manifest has six digits
        slack = 4 * theirs["std"] / values.numel() ** 0.5 + 1e-5 * abs(theirs["mean"])
        assert abs(float(values.mean()) - theirs["mean"]) <= slack, name
        assert abs(float(values.std(unbiased=False)) - theirs["std"]) <= slack, name


def test_coefficients_that_count_more_learn_as_at_a_higher_rate() -> None:
    """As with the authors' two learning rates, 2e-1 beside 1e-3, from the same start."""
    plain, learned = one_block_vit(), []
    cotangent = torch.randn(2, 48, generator=torch.Generator().manual_seed(2))
    for rate, lr in ((200.0, 1e-3), (1.0, 0.2)):
        vit = copy.deepcopy(plain)
        parse(f"fourierft(coefficients=60, scale=768.0, rate={rate})").inject(vit)
        optimizer = torch.optim.AdamW([p for p in vit.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
        for _ in range(5):
            optimizer.zero_grad()
            (vit(images()) * cotangent).sum().backward()
            optimizer.step()
        learned.append(vit(images()).detach())
    assert (learned[0] - plain(images())).abs().max() > 0.01
    torch.testing.assert_close(*learned, rtol=1e-3, atol=1e-4)


def test_fourier_coefficients_of_one_size_move_the_same_share_of_a_weight_at_each_width() -> None:
    """Where the entries of weights are of one size: |dW| / |W| is |dW| / d, and at 768 as large as the authors'."""
    shares = []
    for width in (128, 256, 768):
        vit = VisionTransformer(img_size=32, patch_size=16, embed_dim=width, depth=1, num_heads=2, num_classes=0)
        parse("fourierft(coefficients=200, scale=300.0, rate=1.0)").inject(vit)
        layer = tuned_layers(vit)["blocks.0.attn.qkv.q"]
        nn.init.ones_(layer.fourierft_spectrum["default"])
        shares.append(layer.get_delta_weight("default").detach().norm().item() / width)
    assert shares == pytest.approx([300.0 * (200 / 2) ** 0.5 / 768**2] * 3, rel=0.03)  # half is in the real part


def test_reflections_start_in_equal_pairs() -> None:
    vit = one_block_vit()
    parse("hra(rank=4)").inject(vit)
    u = cast(Any, vit.get_submodule("blocks.0.attn.qkv.q")).hra_u["default"]
    assert torch.equal(u[:, ::2], u[:, 1::2])


def test_orthonormalised_reflections_start_finite() -> None:
    vit = one_block_vit()
    parse("hra(gram_schmidt=True)").inject(vit)
    assert vit(images()).isfinite().all()


def test_random_matrices_of_randlora_are_not_left_in_half_precision() -> None:
    vit = one_block_vit()
    parse("randlora").inject(vit)
    assert {tensor.dtype for tensor in vit.buffers()} == {torch.float32}


PAIRS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
}
"""Ours -> what makes peft's LoRA the same."""


@pytest.mark.parametrize("name", PAIRS)
def test_our_lora_family_is_that_of_peft(name: str) -> None:
    ours = one_block_vit()
    theirs = copy.deepcopy(ours)
    parse(f"{name}(rank=4, alpha=8.0)").inject(ours)
    HF(type="lora", options={"r": 4, "lora_alpha": 8, **PAIRS[name]}).inject(theirs)
    ours, theirs = ours.double(), theirs.double()
    generator = torch.Generator().manual_seed(2)
    pairs: list[tuple[Tensor, Tensor]] = []
    for site in "qv":
        layer = cast(Any, theirs.get_submodule(f"blocks.0.attn.qkv.{site}"))
        wrapped = cast(Any, ours.get_submodule("blocks.0.attn.qkv"))
        put_in = (wrapped.transforms if name == "dora" else wrapped.updates)[site]
        factors = put_in.direction if isinstance(put_in, Decomposed) else put_in
        pairs += [(factors.a, layer.lora_A["default"].weight), (factors.b, layer.lora_B["default"].weight)]
        if isinstance(put_in, Decomposed):
            pairs.append((put_in.magnitude, layer.lora_magnitude_vector["default"].weight))
    with torch.no_grad():
        for mine, yours in pairs:
            mine += 0.1 * torch.randn(mine.shape, generator=generator, dtype=mine.dtype)
            yours.copy_(mine)
    x = images().double()
    cotangent = torch.randn(2, 48, generator=generator, dtype=x.dtype)
    close = {"rtol": 0, "atol": 1e-5 if name == "pissa" else 1e-10}  # peft decomposes in float32
    torch.testing.assert_close(ours(x), theirs(x), **close)
    (ours(x) * cotangent).sum().backward()
    (theirs(x) * cotangent).sum().backward()
    for mine, yours in pairs:
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, cast(Tensor, yours.grad), **close)


def test_our_pissa_starts_from_the_same_product_as_that_of_peft() -> None:
    ours = one_block_vit()
    theirs = copy.deepcopy(ours)
    parse("pissa(rank=4, alpha=8.0)").inject(ours)
    HF(type="lora", options={"r": 4, "lora_alpha": 8, "init_lora_weights": "pissa"}).inject(theirs)
    update = cast(LowRank, cast(Any, ours.get_submodule("blocks.0.attn.qkv")).updates["q"])
    layer = cast(Any, theirs.get_submodule("blocks.0.attn.qkv.q"))
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(update.b @ update.a, product, rtol=0, atol=1e-5)


def test_split_qkv_computes_from_the_tensors_of_the_checkpoint() -> None:
    vit = one_block_vit()
    before = {id(tensor) for tensor in vit.parameters()}
    expected = vit(images())
    parse("vera").inject(vit)
    split = cast(SplitQKV, vit.get_submodule("blocks.0.attn.qkv"))
    assert before <= {id(tensor) for tensor in vit.parameters()}
    assert sum(isinstance(module, Rows) for module in vit.modules()) == 3
    assert torch.equal(vit(images()), expected)
    with torch.no_grad():
        split.fused.weight.zero_()
        split.fused.bias.zero_()
    assert torch.equal(split(torch.randn(1, 2, 48)), torch.zeros(1, 2, 3 * 48))


def test_a_copy_of_the_model_is_independent() -> None:
    vit = one_block_vit()
    parse("oft(block=8)").inject(vit)
    other = copy.deepcopy(vit)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.1
        assert not torch.equal(vit(images()), other(images()))
        untouched = one_block_vit()
        untouched.load_state_dict(plain(vit).state_dict())
        assert torch.equal(untouched(images()), vit(images()))


def plain(vit: VisionTransformer) -> VisionTransformer:
    merged = copy.deepcopy(vit)
    parse("oft(block=8)").merge(merged)
    return merged


def fit(vit: VisionTransformer, method: AdaLoRA, steps: int, seen: Callable[[int], None]) -> None:
    """As the engine does it: gradients are still there when `after_step` is called."""
    own = [parameter for parameter in vit.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(own, lr=0.1)
    for step in range(1, steps + 1):
        (vit(images(4)).square().mean() + method.penalty(vit)).backward()
        optimizer.step()
        method.after_step(vit, step, steps)
        optimizer.zero_grad()
        seen(step)


def triplets(vit: VisionTransformer) -> list[int]:
    """How many of each weight are on."""
    return [int((layer.lora_E["default"] != 0).sum()) for layer in tuned_layers(vit).values()]


@pytest.mark.parametrize("copied", [False, True])
def test_adalora_switches_triplets_off_until_the_target_is_met(copied: bool) -> None:
    method = cast(AdaLoRA, parse("adalora(rank=6, target_rank=2, hold=0.2, settle=0.4)"))
    vit = one_block_vit()
    torch.manual_seed(0)
    method.inject(vit)
    vit = copy.deepcopy(vit) if copied else vit
    on: list[int] = []
    fit(vit, method, 20, lambda _: on.append(sum(triplets(vit))))
    # q and v of one block: 12 triplets for 4 of 20 steps, then 4 + int(8 * (1 - (step - 4) / 8)^3) of them
    assert on[:4] == [12] * 4
    assert on[4:12] == [4 + int(8 * (1 - (step - 4) / 8) ** 3) for step in range(5, 13)]
    assert on[12:] == [4] * 8


def test_adalora_keeps_the_triplets_that_matter() -> None:
    """Those of the value alone, where the query has no influence on the output."""
    method = cast(AdaLoRA, parse("adalora(rank=4, target_rank=2, hold=0.2, settle=0.4, orthogonality=0.0)"))
    vit = one_block_vit()
    torch.manual_seed(0)
    with torch.no_grad():
        attention = cast(Any, vit.get_submodule("blocks.0.attn"))
        attention.qkv.weight[48:96] = 0  # keys: all alike, so that queries do not matter
        attention.qkv.bias[48:96] = 0
    method.inject(vit)
    fit(vit, method, 20, lambda _: None)
    assert triplets(vit) == [0, 4]


def test_penalty_of_adalora() -> None:
    method = cast(AdaLoRA, parse("adalora(rank=2, target_rank=1, orthogonality=0.5)"))
    vit = one_block_vit()
    method.inject(vit)
    with torch.no_grad():
        for layer in tuned_layers(vit).values():
            layer.lora_A["default"].copy_(torch.eye(2, 48))  # orthonormal: nothing
            layer.lora_B["default"].zero_()  # |I| = sqrt 2
    torch.testing.assert_close(method.penalty(vit), torch.tensor(0.5 * (0 + 2**0.5) / 2))


OTHERS: dict[str, dict[str, Any]] = {
    "beft": {},
    "c3a": {"block_size": 8},
    "deft": {},
    "delora": {},
    "glora": {},
    "gralora": {"r": 8},
    "hira": {},
    "lily": {},
    "ln_tuning": {},
    "miss": {"r": 8},
    "osf": {},
    "peanut": {},
    "psoft": {},
    "pvera": {},
    "road": {"group_size": 8},
    "shira": {"r": 4},
    "supertuning": {},
    "tinylora": {},
    "unilora": {},
    "vblora": {"vector_length": 8, "topk": 2, "num_vectors": 16},
    "waveft": {"n_frequency": 100},
}
"""Tuners without an entry of their own, with options for a model this small."""


def randn_like_takes_a_generator() -> bool:
    try:
        torch.randn_like(torch.empty(1), generator=torch.Generator())
    except TypeError:
        return False
    return True


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's, of what SHiRA does
@pytest.mark.parametrize("tuner", OTHERS)
def test_any_tuner_of_peft_can_be_put_in(tuner: str) -> None:
    pytest.importorskip(f"peft.tuners.{tuner}", reason="this peft is older than the tuner")
    if tuner == "pvera" and not randn_like_takes_a_generator():
        pytest.skip("this torch is older than what the tuner asks of it")
    case = contract.Case(HF(type=tuner, options=OTHERS[tuner]))
    contract.features_keep_their_shape(case)
    contract.every_trainable_tensor_learns(case)
    contract.frozen_weights_do_not_move(case)
    contract.what_was_learned_goes_into_a_fresh_model(case)
    if tuner == "lily":
        with pytest.raises(TypeError, match=r"hf\(type='lily'.*cannot be merged into the plain model"):
            contract.if_it_merges_the_plain_model_computes_the_same(case)
    else:
        contract.if_it_merges_the_plain_model_computes_the_same(case)


@pytest.mark.parametrize("sites", ["k", "o", "qkvo,fc1,fc2"])
@pytest.mark.parametrize("method", [name for name in NAMED if name != "ia3"])
def test_every_site_is_counted_and_merges(method: str, sites: str) -> None:
    case = contract.Case(parse(f"{method}(sites={sites!r})"))
    contract.the_parameter_count_is_the_closed_form(case)
    contract.if_it_merges_the_plain_model_computes_the_same(case)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("vera(sites='qx')", "sites='qx' must name each of"),
        ("vera(rank=0)", "rank must be at least 1, not 0"),
        ("oft(block=0)", "block must be at least 1"),
        ("fourierft(coefficients=0)", "coefficients must be at least 1"),
        ("hra(rank=3)", "rank must be even, not 3"),
        ("adalora(target_rank=12)", "target_rank=12 must be below rank=12"),
        ("adalora(hold=0.5, settle=0.5)", "must be shares of the steps that leave some"),
        ("hf(type='adalora')", "there is a method adalora"),
    ],
)
def test_wrong_hyperparameters_are_refused(spec: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(spec)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("oft(block=5)", "block=5 does not divide the 48 inputs"),
        ("boft(block=5)", "must be divisible by boft_block_size"),
        ("hf(type='nora')", "has no tuner 'nora'; it has .*adalora"),
        ("hf(options={'rank': 8})", "peft cannot put lora on a ViT with {'rank': 8}.*'rank'"),
        ("hf(options={'bias': 'all'})", "would train the pretrained bias of query, key or value"),
        ("hf(type='boft', options={'boft_n_butterfly_factor': 2})", "has one butterfly factor here"),
        ("hf(type='prefix_tuning')", "peft cannot put prefix_tuning on a ViT"),
    ],
)
def test_what_peft_cannot_do_here_is_refused(spec: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(spec).inject(one_block_vit())


def test_importing_the_methods_does_not_import_peft() -> None:
    code = "import sys, vtab_peft.methods; assert 'peft' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("method", [*NAMED, "hf"])
def test_without_peft_a_method_says_what_to_install(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r'pip install "vtab-peft\[peft\]"'):
        parse(method).inject(one_block_vit(64))


def test_methods_are_listed_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    with_peft = {row["name"]: row for row in catalogue.methods()}
    monkeypatch.setitem(sys.modules, "peft", None)
    rows = catalogue.methods()
    for row in rows:
        unknown = {"change_at_start": None} if row["needs"] else {}
        unknown |= {"params_vit_b16": None} if row["name"] == "hf" else {}
        assert row == with_peft[row["name"]] | unknown
    listed = {line.split()[0]: line for line in catalogue.table(rows).splitlines() if line}
    assert all("needs peft" in listed[name] for name in [*NAMED, "hf"])
    assert "needs peft" not in listed["lora"]
