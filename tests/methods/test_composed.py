"""Combinations of methods in one spec."""

import pytest
import torch
from raises import raises_naming
from vtab_peft.benchmark.execution.method_info import method_ref
from vtab_peft.benchmark.method_checks import checks
from vtab_peft.benchmark.method_checks.tiny_models import Case, inject_copy, tiny
from vtab_peft.benchmark.reporting.leaderboards import method_labels
from vtab_peft.benchmark.reporting.published_vs_measured import method_name
from vtab_peft.methods import METHODS, parse

FITTING = (
    "lora(rank=4) + bitfit",
    "oft + layernorm",
    "lora + vpt_deep",
    "lora + dyt",
    "bitfit + adaptformer + linear",
    "lora + hst",
    "lora + rslora(sites='fc1,fc2')",
    "dora(sites='o,fc2') + lora",
    "lora + miss(sites='fc1')",
    "ia3(sites='k,v') + miss(sites='fc1')",
    "lora + hf(type='ln_tuning')",
)


def test_a_combination_keeps_the_order_and_the_arguments() -> None:
    method = parse("LoRA(rank=4)  +  BitFit")
    assert method.spec() == "lora(rank=4) + bitfit"
    assert parse(method.spec()) == method != parse("bitfit + lora(rank=4)")
    assert method.title == "LoRA + BitFit"
    assert method.args()["lora"]["rank"] == 4


def test_a_combination_is_identified_by_all_parts() -> None:
    ref = method_ref(parse("adalora + bitfit"))
    parts = {name: method_ref(parse(name)) for name in ("adalora", "bitfit")}
    assert ref.name == "adalora+bitfit"
    assert ref.args == {name: part.args for name, part in parts.items()}
    assert ref.version == sum(part.version for part in parts.values())
    assert ref.plugin is None


def test_the_facts_of_a_combination_follow_from_its_parts() -> None:
    combined = parse("lora + dyt")
    assert not combined.starts_as_identity
    assert not combined.mergeable()
    assert combined.backbones == ("vit",)
    assert combined.copies == METHODS["dyt"].copies == 2
    assert parse("oft + layernorm").needs == "peft"
    assert parse("bitfit + linear").frozen_features is False
    assert parse("lora + partial").lr == METHODS["partial"].lr


@pytest.mark.parametrize("spec", FITTING)
def test_combinations_pass_the_checks(spec: str) -> None:
    case = Case(parse(spec), "LayerScale")
    checks.check_gradients_reach_all(case)
    checks.check_frozen_unchanged(case)
    checks.check_adapter_roundtrip(case)
    checks.check_adapter_contents(case)
    checks.check_merge_equivalence(case)


@pytest.mark.parametrize("spec", FITTING)
def test_a_combination_trains_what_its_parts_train(spec: str) -> None:
    vit, parts = tiny("plain"), spec.split(" + ")
    expected = sum(parse(part).expected_params(vit) for part in parts)
    assert parse(spec).expected_params(vit) == inject_copy(vit, parse(spec)).trainable_params() == expected


def test_penalties_and_steps_of_all_parts_are_used() -> None:
    alone, combined = (inject_copy(tiny("plain"), parse(spec)).vit for spec in ("adalora", "adalora + bitfit"))
    expected = parse("adalora").penalty(alone)
    found = parse("adalora + bitfit").penalty(combined)
    assert expected is not None
    assert found is not None
    torch.testing.assert_close(found, expected)
    assert parse("lora + bitfit").penalty(combined) is None


@pytest.mark.parametrize("wrong", [0.5, torch.tensor(0.5)], ids=["a float", "without gradient"])
def test_a_penalty_without_effect_is_refused_in_a_combination(wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    combined = parse("adalora + bitfit")
    vit = inject_copy(tiny("plain"), combined).vit
    monkeypatch.setattr(METHODS["bitfit"], "penalty", lambda self, vit: wrong)
    with raises_naming(TypeError, "BitFit.penalty", "0.5"):
        combined.penalty(vit)


def test_learning_rates_of_the_parts_are_kept() -> None:
    vit = inject_copy(tiny("plain"), method := parse("lora_plus(ratio=3.0) + bitfit")).vit
    factors = method.lr_factors(vit)
    assert {name for name, p in vit.named_parameters() if p in factors} == {
        f"blocks.{block}.attn.qkv.updates.{site}.b" for block in (0, 1) for site in "qv"
    }
    assert set(factors.values()) == {3.0}


def test_variants_combine_those_of_the_parts() -> None:
    specs = [variant.spec() for variant in parse("lora + partial").variants()]
    assert specs[0] == "lora + partial"
    assert "lora(alpha=80.0) + partial(blocks=4)" in specs
    assert len(specs) == len(set(specs)) == len(parse("lora").variants()) * len(parse("partial").variants())


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("lora + lora(rank=2)", ("lora(rank=2)",)),
        ("lora + gps", ("gps", "images")),
        ("pace + dyt", ("pace", "dyt")),
        ("lora + nope", ("'nope'",)),
        ("lora + ", ("''",)),
        ("lora(rank=0) + bitfit", ("rank", "0")),
    ],
)
def test_impossible_combinations_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    with raises_naming(ValueError, *facts):
        parse(spec)


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("lora + dora", ("dora",)),
        ("bitfit + full", ("full", "patch_embed.proj.bias")),
        ("adaptformer + bitfit", ("bitfit", "down.bias")),
        ("vpt_deep + lora", ("lora",)),
        ("hst + vpt_deep", ("does not run",)),
        ("res_tuning + vpt_shallow", ("no gradient", "blocks.0.prompts.tokens")),  # the side network detaches its input
        ("difffit + res_tuning", ("no gradient", "patch_embed.proj.bias")),
    ],
)
def test_parts_that_overlap_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    with raises_naming(ValueError, spec, *facts):
        parse(spec).expected_params(tiny("plain"))


def test_a_backbone_that_one_part_does_not_support_is_refused() -> None:
    with raises_naming(ValueError, "lora + dyt", "Swin"):
        inject_copy(tiny("Swin"), parse("lora + dyt"))


def labels_of(*specs: str) -> list[str]:
    facts = {"method_version": 1, "plugin": None, "args": "{}", "lr": 1e-3}
    return method_labels([{"method": parse(spec).title, "spec": spec, **facts} for spec in specs])


def test_labels_and_published_rows_tell_combinations_apart() -> None:
    specs = ("lora(rank=4) + bitfit", "lora + bitfit", "lora(rank=4)")
    assert labels_of(*specs) == ["lora(rank=4) + bitfit", "lora + bitfit", "LoRA(rank=4)"]
    assert method_name("lora(rank=4)") == "lora"
    assert method_name("lora(rank=4) + bitfit") == "lora(rank=4) + bitfit"


def test_a_row_of_the_bridge_says_which_tuner_of_peft_it_is() -> None:
    alone, combined = "hf(type='ia3')", "bitfit + hf(type='ia3')"
    assert labels_of(alone, combined, "lora(rank=4)") == ["peft(type='ia3')", combined, "LoRA(rank=4)"]


@pytest.mark.parametrize("spec", ["glora + arc", "qgoft + kadaptation(terms=4)", "mlae + kadaptation(terms=4)"])
def test_parts_merge_in_the_order_that_works(spec: str) -> None:
    """The adapters of ARC merge into the maps that GLoRA changes; KAdaptation wraps maps that are wrapped already."""
    checks.check_merge_equivalence(Case(parse(spec)))


def test_parts_that_cannot_be_merged_together_are_named() -> None:
    method = parse("pace + kadaptation(terms=4)")
    with raises_naming(TypeError, "pace", "kadaptation"):
        method.merge(inject_copy(tiny("plain"), method).vit)


def test_rates_of_a_part_are_those_of_its_own_tensors() -> None:
    """The side network of DTL has low-rank maps too."""
    method = parse("lora_plus + dtl")
    vit = inject_copy(tiny("plain"), method).vit
    factors = method.lr_factors(vit)
    assert {name.split(".")[-1] for name, p in vit.named_parameters() if p in factors} == {"b"}
    assert not any("sides" in name for name, p in vit.named_parameters() if p in factors)
