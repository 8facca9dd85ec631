"""Spec strings and the registry: what is refused, and how well the refusal helps."""

import re
from collections.abc import Iterator
from dataclasses import MISSING, FrozenInstanceError, fields
from typing import Any, Literal
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from vtab_peft.methods import METHODS, LinearUpdateMethod, Method, method, parse
from vtab_peft.methods.arguments import PositiveInt, coerce
from vtab_peft.methods.lora import LoRA


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("lorra", "did you mean lora"),
        ("LoRA", r"no method 'LoRA'; did you mean lora\? There are: adalora, "),
        ("LoRA(rank=4)", r"no method 'LoRA'; did you mean lora\?"),
        ("AOFT-LoRA", r"name\(argument=value, ...\); did you mean aoft_lora\?$"),
        ("VPT-Deep(tokens=5)", r"; did you mean vpt_deep\?$"),
        ("Adapter+", r"; did you mean adapter_plus\?$"),
        ("Adapter (Houlsby)", r"; did you mean adapter_houlsby\?$"),
        ("unheard_of", "no method 'unheard_of'. There are: adalora, .*; one of a plug-in file needs --plugin FILE"),
        ("lora,linear", "separate methods by spaces"),
        ("lora,", "separate methods by spaces"),
        ("lora(x=4)", r"has no argument 'x'\. It takes: "),
        ("lora(Rank=4)", r"did you mean rank\? It takes: "),
        ("lora(rnak=4)", "did you mean rank"),
        ("lora(rank=0)", "rank must be at least 1"),
        ("lora(4)", "write it as name"),
        ("lora(rank=4", "write it as name"),
        ("lora(rank=__import__('os'))", "plain literal"),
        ("lora(rank=2)(rank=4)", "write it as name"),
        ("lora(sites='qx')", "must name each of q, k, v, o, fc1, fc2"),
        ("lora(sites='qq')", "at most once"),
        ("lora(sites='')", "must name"),
        ("bitfit(rank=4)", "takes: no arguments"),
        ("aoft_lora(form='papr')", "form must be one of paper, released, exact"),
        ("aoft_lora(form='exact', start='zeros')", "divides by"),
        ("", "write it as name"),
        ("lora\x00", "write it as name"),
    ],
)
def test_wrong_specs_are_refused_with_help(spec: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(spec)


@given(st.text(max_size=60))
def test_any_text_is_a_method_or_a_value_error(text: str) -> None:
    try:
        parsed = parse(text)
    except ValueError:
        return
    assert isinstance(parsed, Method)


def test_a_name_is_registered_once() -> None:
    class Another(Method):
        """Another LoRA."""

    with pytest.raises(ValueError, match="registered twice"):
        method("lora")(Another)
    with pytest.raises(ValueError, match="lower-case"):
        method("Lo-RA")(Another)
    assert METHODS["lora"] is not Another


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
    with pytest.raises(ValueError, match=r"rank|part|scale"):
        tried(**arguments)


def test_a_field_must_have_a_plain_default() -> None:
    with patch.dict(METHODS):

        @method("takes_a_dtype")
        class TakesADtype(Method):
            dtype: Any = torch.float32

        with pytest.raises(ValueError, match="dtype must be a plain value"):
            parse("takes_a_dtype")


def test_a_post_init_is_refused() -> None:
    class Own(Method):
        def __post_init__(self) -> None:
            pass

    with patch.dict(METHODS), pytest.raises(ValueError, match="validate"):
        method("own")(Own)


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
    ("spec", "says"),
    [
        ("lora(rank=1.5)", "rank must be a whole number, not 1.5"),
        ("lora(rank=True)", "rank must be a whole number, not True"),
        ("lora(rank='4')", "rank must be a whole number, not '4'"),
        ("lora(alpha=1e999)", "alpha must be a number, not inf"),
        (f"lora(alpha=1{'0' * 309})", "alpha must be a number, not 1000"),
        ("lora(sites=b'qv')", "sites must be a text in quotes, not b'qv'"),
        ("hf(options={'a': {1, 2}})", "options must be a dictionary of plain values or None"),
    ],
)
def test_arguments_of_another_kind_are_refused(spec: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse(spec)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_default_and_every_value_of_a_search_is_of_its_kind(name: str) -> None:
    cls = METHODS[name]
    coerce(cls, {field.name: field.default for field in fields(cls) if field.default is not MISSING})
    for field, values in cls.search.items():
        for value in values:
            coerce(cls, {field: value})
