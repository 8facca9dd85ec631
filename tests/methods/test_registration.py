"""Test what may be registered as a method, and what the decorator makes of a class."""

from typing import Any
from unittest.mock import patch

import pytest
from raises import raises_naming
from vtab_peft.methods import METHODS, Method, method
from vtab_peft.methods.base import Paper
from vtab_peft.methods.lora import LoRA


@pytest.mark.parametrize("name", ["all", "lambda", "méthode", "\ufb01ne", "1x", "A"])
def test_names_that_no_command_could_mean_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="method name"):
        method(name)(type("Own", (Method,), {}))


def test_a_name_is_registered_once() -> None:
    class Another(Method):
        """Another LoRA."""

    with raises_naming(ValueError, "'lora'"):
        method("lora")(Another)
    with raises_naming(ValueError, "Lo-RA"):
        method("Lo-RA")(Another)
    assert METHODS["lora"] is not Another


def test_a_post_init_is_refused() -> None:
    class Own(Method):
        def __post_init__(self) -> None:
            pass

    with patch.dict(METHODS), raises_naming(ValueError, "validate"):
        method("own")(Own)


def test_the_decorator_needs_a_name_and_a_method() -> None:
    with raises_naming(TypeError, '@method("my_method")'):
        method(type("Bare", (Method,), {}))  # pyright: ignore
    with raises_naming(TypeError, "NotOne", "must inherit from Method"):
        method("not_one")(type("NotOne", (), {}))  # pyright: ignore


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"__annotations__": {"rank": int}}, ("'rank'", "no default")),
        ({"__annotations__": {"args": int}, "args": 3}, ("'args'", "Method.args()", "rename")),
        ({"__annotations__": {"merge": bool}, "merge": True}, ("'merge'", "Method.merge()", "rename")),
    ],
)
def test_arguments_have_defaults_and_names_of_their_own(body: dict[str, Any], named: tuple[str, ...]) -> None:
    with raises_naming(ValueError, *named):
        method("wrong_one")(type("WrongOne", (Method,), body))
    assert "wrong_one" not in METHODS


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("paper", "CVPR 2024"),
        ("paper", Paper("CVPR", "2024")),  # pyright: ignore[reportArgumentType]
        ("paper", Paper("CVPR", 2024, code=7)),  # pyright: ignore[reportArgumentType]
        ("evidence", 3),
        ("evidence", "obvious"),
        ("backbones", "vit"),
        ("backbones", ("vit", "resnet")),
        ("backbones", ()),
        ("needs", True),
        ("starts_as_identity", "no"),
        ("stands_for_many", 1),
        ("restores_without_examples", None),
        ("version", 0),
    ],
)
def test_facts_of_another_kind_are_refused_at_registration(fact: str, value: Any) -> None:
    with raises_naming(ValueError, "'wrong_one'", f"{fact} must be ", repr(value)[:60]):
        method("wrong_one")(type("WrongOne", (Method,), {fact: value}))
    assert "wrong_one" not in METHODS


def test_a_search_grid_has_arguments_of_the_method_and_values_of_their_type() -> None:
    with raises_naming(ValueError, "'wrong_one'", "search", "rnak"):
        method("wrong_one")(type("WrongOne", (LoRA,), {"search": {"rnak": (1, 2)}}))
    with patch.dict(METHODS):
        mistyped: Any = method("mistyped")(type("Mistyped", (LoRA,), {"search": {"rank": (4, 2.5)}}))
        with raises_naming(ValueError, "mistyped", "search", "rank", "2.5"):
            mistyped().variants()


def test_a_method_of_another_file_inherits_no_paper_and_no_evidence() -> None:
    """It may compute something else; what its fields and `inject` bring along stays."""
    with patch.dict(METHODS):
        child = method("child")(type("Child", (LoRA,), {"equation": "W"}))
        grandchild = method("grandchild")(type("Grandchild", (child,), {}))
    for cls in (child, grandchild):
        assert (cls.title, cls.paper, cls.equation, cls.evidence, cls.differs) == ("", None, "W", "none", "")
        assert (cls.targets, cls.search, cls.backbones) == (LoRA.targets, LoRA.search, LoRA.backbones)


def test_a_cell_that_defines_a_method_can_be_run_again() -> None:
    with patch.dict(METHODS):
        first, second = (method("of_a_cell")(type("OfACell", (Method,), {"__module__": "__main__"})) for _ in range(2))
        assert METHODS["of_a_cell"] is second
        assert first().spec() == second().spec() == "of_a_cell"
