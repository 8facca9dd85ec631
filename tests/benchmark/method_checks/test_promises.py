"""The contract itself: for every check a method that breaks it and nothing else."""

import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import broken_methods
import pytest
from broken_methods import BREAKERS, Right
from vtab_peft.benchmark.commands.check_method import complaint
from vtab_peft.benchmark.method_checks import checks as contract
from vtab_peft.benchmark.method_checks.checks import CHECKS, SLOW, Check
from vtab_peft.benchmark.method_checks.tiny_models import Case, Violation
from vtab_peft.methods import METHODS, Method, parse, register

FAST = [check for check in CHECKS if check not in SLOW]

VITS = ("plain", "LayerScale")
"""What the breakers are written for."""


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    with patch.dict(METHODS):
        yield


def broken_by(cls: type[Method], checks: list[Check], backbone: str) -> dict[Check, str]:
    register("tried")(cls)
    said = {check: complaint(check, Case(parse("tried"), backbone), Path(broken_methods.__file__)) for check in checks}
    return {check: text for check, text in said.items() if text}


@pytest.mark.parametrize("backbone", VITS)
@pytest.mark.parametrize(("check", "cls", "says"), BREAKERS, ids=[cls.__name__ for _, cls, _ in BREAKERS])
def test_each_breaker_breaks_its_check_alone(check: Check, cls: type[Method], says: str, backbone: str) -> None:
    broken = broken_by(cls, FAST, backbone)
    assert list(broken) == [check] * (check in FAST)
    assert all(re.search(says, text) for text in broken.values()), broken


@pytest.mark.slow
def test_what_compiles_is_told_from_what_does_not() -> None:
    with patch.dict(METHODS):
        assert not broken_by(Right, list(SLOW), "plain")
    broken = broken_by(broken_methods.DecidesByValues, list(SLOW), "plain")
    says = next(says for _, cls, says in BREAKERS if cls is broken_methods.DecidesByValues)
    assert re.search(says, broken[contract.it_compiles_as_one_graph])


def test_every_check_has_a_breaker_and_the_right_one_breaks_none() -> None:
    assert {check for check, _, _ in BREAKERS} == set(CHECKS)
    for backbone in VITS:
        with patch.dict(METHODS):
            assert not broken_by(Right, FAST, backbone)


def test_a_violation_says_what_where_and_what_to_do() -> None:
    METHODS["tried"] = broken_methods.ForgetsATensor
    with pytest.raises(Violation) as caught:
        contract.every_trainable_tensor_learns(Case(parse("tried"), "LayerScale"))
    assert str(caught.value) == (
        "on the LayerScale backbone no gradient within 3 steps for blocks.0.norm1.bias, blocks.1.norm1.bias. "
        "Use it in `forward`, and of two factors start only one at zero."
    )
