"""Test which specs and arguments are refused, and that the errors name what helps."""

from collections.abc import Iterator
from dataclasses import MISSING, FrozenInstanceError, field, fields
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from raises import raises_naming
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from vtab_peft.benchmark.execution.method_info import variants_of
from vtab_peft.methods import METHODS, LinearUpdateMethod, Method, method, parse
from vtab_peft.methods.arguments import PositiveInt, coerce
from vtab_peft.methods.lora import LoRA


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("lorra", ("'lorra'", "lora")),
        ("Lo RA(rank=4)", ("lora",)),
        ("AOFTLoRA", ("aoft_lora",)),
        ("VPT Deep(tokens=5)", ("vpt_deep",)),
        ("Adapter(Houlsby)", ("adapter_houlsby",)),
        ("unheard_of", ("'unheard_of'", "list methods", "--plugin FILE")),
        ("lora,linear", ("spaces",)),
        ("lora,", ("spaces",)),
        ("lora(x=4)", ("'x'", "rank", "alpha", "sites")),
        ("lora(Rank=4)", ("'Rank'", "rank", "alpha", "sites")),
        ("lora(rnak=4)", ("'rnak'", "rank")),
        ("lora(rank=0)", ("rank", "0")),
        ("lora(4)", ("name(argument=value",)),
        ("lora(rank=4", ("name(argument=value",)),
        ("lora(rank=__import__('os'))", ("rank", "number")),
        ("lora(sites=qv)", ("sites='qv'",)),
        ("dora(rank=4, sites=none)", ("sites=None",)),
        ("lora(rank=2)(rank=4)", ("name(argument=value",)),
        ("lora(sites='qx')", ("sites='qx'", "q, k, v, o, fc1, fc2")),
        ("lora(sites='qq')", ("sites='qq'", "once")),
        ("lora(sites='')", ("sites=''", "q, k, v, o, fc1, fc2")),
        ("bitfit(rank=4)", ("'rank'", "no arguments")),
        ("aoft_lora(form='papr')", ("form", "paper", "released", "exact")),
        ("aoft_lora(form='exact', start='zeros')", ("form='exact'", "zero", "start")),
        ("", ("name(argument=value",)),
        ("lora\x00", ("name(argument=value",)),
    ],
)
def test_wrong_specs_are_refused_with_help(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)


@given(st.text(max_size=60))
def test_any_text_is_a_method_or_a_value_error(text: str) -> None:
    try:
        parsed = parse(text)
    except ValueError:
        return
    assert isinstance(parsed, Method)


@pytest.fixture
def tried() -> Iterator[type[Method]]:
    """A method with one field of each kind, registered for the test."""
    with patch.dict(METHODS):

        @method("tried")
        class Tried(Method):
            rank: PositiveInt = 4
            scale: float = 1.0
            part: Literal["attn", "mlp"] = "attn"

            def validate(self) -> None:
                if self.part == "mlp" and self.rank > 8:
                    raise ValueError("rank is at most 8 on the MLP")

        yield Tried


def test_the_decorator_makes_a_frozen_dataclass(tried: Any) -> None:
    made = tried(rank=2, scale=3)
    assert made == parse("tried(rank=2, scale=3.0)")
    assert made.spec() == "tried(rank=2, scale=3.0)"
    with pytest.raises(FrozenInstanceError):
        made.rank = 3


@pytest.mark.parametrize(
    "arguments",
    [{"rank": 0}, {"rank": 1.5}, {"rank": "4"}, {"part": "head"}, {"scale": "1"}, {"rank": 9, "part": "mlp"}],
)
def test_constructors_check_types_literals_and_rules(tried: Any, arguments: dict[str, Any]) -> None:
    with raises_naming(ValueError, next(iter(arguments))):
        tried(**arguments)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2])
@pytest.mark.parametrize("field", ["vpt_deep(dropout", "snell(drop_path", "mlae(drop", "spt_lora(drop_path"])
def test_rates_are_at_least_0_and_below_1(field: str, rate: float) -> None:
    with raises_naming(ValueError, field.partition("(")[2], "below 1"):
        parse(f"{field}={rate})")
    assert parse(f"{field}=0)") == parse(f"{field}=0.0)")


def test_a_field_must_have_a_plain_default() -> None:
    with patch.dict(METHODS):

        @method("takes_a_dtype")
        class TakesADtype(Method):
            dtype: Any = torch.float32

        with raises_naming(ValueError, "dtype"):
            parse("takes_a_dtype")


def test_parameters_are_counted_without_a_formula(vit: VisionTransformer) -> None:
    """Both defaults equal LoRA's closed form and leave model and random stream unchanged."""

    class Counted(LoRA):
        update_params = LinearUpdateMethod.update_params

    class Injected(LoRA):
        expected_params = Method.expected_params

    expected = parse("lora").expected_params(vit)
    before = torch.get_rng_state()
    assert Counted().expected_params(vit) == expected
    assert torch.equal(torch.get_rng_state(), before)
    assert Injected().expected_params(vit) == expected
    assert not any(parameter.requires_grad for parameter in vit.parameters())


def test_spec_shows_only_what_differs() -> None:
    assert parse("lora(rank=8, alpha=4.0)").spec() == "lora(alpha=4.0)"


@pytest.mark.parametrize("spec", ["lora(alpha={})", "adaptformer(scale={})"])
def test_a_whole_number_is_the_same_argument_as_a_float(spec: str) -> None:
    whole, fraction = parse(spec.format("4")), parse(spec.format("4.0"))
    assert repr(whole.args()) == repr(fraction.args())
    assert whole.spec() == fraction.spec() == spec.format("4.0")
    assert repr(parse("lora(rank=4)").args()["rank"]) == "4"


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("lora(rank=1.5)", ("rank", "whole number", "1.5")),
        ("lora(rank=True)", ("rank", "whole number", "True")),
        ("lora(rank='4')", ("rank", "whole number", "'4'")),
        ("lora(alpha=1e999)", ("alpha", "number", "inf")),
        (f"lora(alpha=1{'0' * 309})", ("alpha", "number")),
        ("lora(sites=b'qv')", ("sites", "text", "b'qv'")),
        ("hf(options={'a': {1, 2}})", ("options", "dictionary", "None")),
    ],
)
def test_arguments_of_another_kind_are_refused(spec: str, facts: tuple[str, ...]) -> None:
    assert_refused(spec, *facts)


def test_a_linear_update_without_sites_is_refused() -> None:
    with patch.dict(METHODS), raises_naming(ValueError, "Siteless", "`sites`"):

        @method("siteless")
        class Siteless(LinearUpdateMethod):
            """Says nothing of the maps that it modifies."""

            rank: int = 2

        Siteless()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_defaults_and_search_values_have_their_type(name: str) -> None:
    cls = METHODS[name]
    coerce(cls, {own.name: own.default for own in fields(cls) if own.default is not MISSING})
    for searched, values in cls.search.items():
        for value in values:
            coerce(cls, {searched: value})


def test_lists_and_dictionaries_have_defaults_and_are_searched() -> None:
    with patch.dict(METHODS):

        @method("listed")
        class Listed(Method):
            ranks: list[int] = field(default_factory=lambda: [2, 2])
            options: dict[str, float] = field(default_factory=dict)
            search = {"ranks": ([2, 2], [4, 4]), "options": ({}, {"scale": 2.0})}

        assert Listed().spec() == "listed"
        assert [variant.spec() for variant in Listed(options={"scale": 3.0}).variants()] == [
            "listed(options={'scale': 3.0})",
            "listed(ranks=[4, 4], options={'scale': 3.0})",
        ]
        assert len(Listed().variants()) == 4
        assert len(variants_of(Listed(), {"ranks": [[1, 1], [2, 2]]})) == 2


def test_a_tuple_is_refused_with_advice() -> None:
    with patch.dict(METHODS):

        @method("tupled")
        class Tupled(Method):
            ranks: tuple[int, int] = (2, 2)

        with raises_naming(ValueError, "ranks", "annotated as list", "(2, 2)"):
            Tupled()


def test_an_unresolved_annotation_leaves_other_fields_checked() -> None:
    """It is legal: an import for type checkers, which others may name in strings."""
    cls = type("Sparse", (METHODS["lora"],), {"__annotations__": {"mask": "Missing | None"}, "mask": None})
    assert coerce(cls, {"mask": 3, "alpha": 4})["alpha"] == 4.0
    with pytest.raises(ValueError, match="rank must be"):
        coerce(cls, {"rank": "four"})


def test_scalars_of_numpy_are_those_of_python() -> None:
    lora = METHODS["lora"](rank=np.int64(4), alpha=np.float32(2), sites=np.str_("qk"))
    assert lora == METHODS["lora"](rank=4, alpha=2.0, sites="qk")
    assert {type(value) for value in lora.args().values()} == {int, float, str}
