"""Tests of the checks: for every check there are methods that fail only this check."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import broken_after_training
import broken_methods
import pytest
from right_method import BREAKERS, Right
from torch import Tensor
from vtab_peft.benchmark.commands.check_method import run_check
from vtab_peft.benchmark.method_checks import checks
from vtab_peft.benchmark.method_checks.checks import CHECKS, SLOW_CHECKS, Check
from vtab_peft.benchmark.method_checks.class_checks import likely_slips, missing_facts
from vtab_peft.benchmark.method_checks.tiny_models import Case, CheckFailed
from vtab_peft.methods import METHODS, Method, method, parse

FAST = [check for check in CHECKS if check not in SLOW_CHECKS]

VITS = ("plain", "LayerScale")
"""The backbones for which the failing methods are written."""


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Unregister the methods of a test after it."""
    with patch.dict(METHODS):
        yield


def register(cls: type[Method]) -> None:
    """Register a subclass as "tried", as a class can be decorated once only."""
    body = {"__doc__": cls.__doc__, "__module__": cls.__module__}  # facts are inherited within a file
    method("tried")(type(cls.__name__, (cls,), body))


def broken_by(cls: type[Method], checks: list[Check], backbone: str) -> dict[Check, str]:
    register(cls)
    file = Path(inspect.getfile(cls))
    said = {check: run_check(check, Case(parse("tried"), backbone), file) for check in checks}
    return {check: text for check, text in said.items() if text}


@pytest.mark.parametrize("backbone", ["plain", pytest.param("LayerScale", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("check", "cls", "says"), BREAKERS, ids=[cls.__name__ for _, cls, _ in BREAKERS])
def test_each_broken_method_has_one_fault(check: Check, cls: type[Method], says: str, backbone: str) -> None:
    broken = broken_by(cls, FAST, backbone)
    assert list(broken)[:1] == [check] * (check in FAST)
    assert len(set(broken.values())) <= 1  # a wrong loss stops every check that trains, with the same text
    assert all(re.search(says, text) for text in broken.values()), broken


@pytest.mark.slow
def test_the_compile_check_fails_only_a_broken_method() -> None:
    with patch.dict(METHODS):
        assert not broken_by(Right, list(SLOW_CHECKS), "plain")
    broken = broken_by(broken_after_training.DecidesByValues, list(SLOW_CHECKS), "plain")
    says = next(says for _, cls, says in BREAKERS if cls is broken_after_training.DecidesByValues)
    assert re.search(says, broken[checks.check_compiles])


def test_every_check_has_a_broken_method() -> None:
    assert {check for check, _, _ in BREAKERS} == set(CHECKS)
    for backbone in VITS:
        with patch.dict(METHODS):
            assert not broken_by(Right, FAST, backbone)


def test_a_failure_names_backbone_and_tensors() -> None:
    register(broken_methods.ForgetsATensor)
    with pytest.raises(CheckFailed) as caught:
        checks.check_gradients_reach_all(Case(parse("tried"), "LayerScale"))
    assert caught.value.backbone == "LayerScale"
    assert all(name in str(caught.value) for name in ("LayerScale", "blocks.0.norm1.bias", "blocks.1.norm1.bias"))


def test_missing_facts_are_listed_and_pass_all_checks() -> None:
    @method("bare")
    class Bare(Right):
        title = equation = targets = ""
        evidence = "none"

    assert missing_facts(Bare) == ["`title`", "`equation`", "`targets`", "`evidence`", "a docstring"]
    assert not any(run_check(check, Case(Bare()), Path(__file__)) for check in FAST)


def test_misspelt_members_and_numbers_that_are_no_arguments_are_named() -> None:
    @method("slips")
    class Slips(Right):
        """Has three slips, and names of its own."""

        rank: int = 4
        targett: ClassVar[str] = "annotated, so on purpose"
        width = 3
        titel = "Slips"
        EPS = 1e-6
        _alpha = 2.0
        part = Right.part

        def penality(self, vit: Any) -> Tensor: ...

        def merged(self, vit: Any) -> None:
            """Is a helper of `merge`, which the class defines."""

        def merge(self, vit: Any) -> None: ...

    width, titel, penality = likely_slips(Slips)
    assert "`width: int = 3`" in width
    assert "`titel`" in titel
    assert "`title`" in titel
    assert "`penalty`" in penality
    assert not any(map(likely_slips, [cls for cls in METHODS.values() if cls is not Slips]))
