"""Test the facts about methods that a plan needs, and how methods that cannot be injected are named."""

from pathlib import Path

import pytest
from vtab_peft.benchmark.engine.backbone import load
from vtab_peft.benchmark.execution.method_info import method_info
from vtab_peft.methods import METHODS, parse
from vtab_peft.methods.plugin import load_plugin

BROKEN = """
from vtab_peft.methods import Method, method


@method("misspelled")
class Misspelled(Method):
    depth: int = 3

    def inject(self, vit):
        vit.blocks[self.depth].nothing.weight
"""


@pytest.mark.parametrize("spec", ["misspelled", "misspelled(depth=1)"])
def test_an_error_of_inject_names_the_method_and_the_line(spec: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    known = set(METHODS)
    load_plugin(tmp_path / "broken.py")
    try:
        with pytest.raises(ValueError, match=r"misspelled.* does not fit toy_vit: AttributeError.* in broken.py:10: "):
            method_info(parse(spec), load("toy_vit", "random"))
    finally:
        for name in set(METHODS) - known:
            del METHODS[name]


def test_a_closed_form_does_not_hide_arguments_that_do_not_fit() -> None:
    backbone = load("toy_vit", "random")
    assert method_info(parse("apla"), backbone).trainable_params > 0
    with pytest.raises(ValueError, match="129"):
        method_info(parse("apla(rank=129)"), backbone)


def test_a_method_that_trains_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse, for example, a method that returns a new model from `inject`."""
    monkeypatch.setattr(METHODS["layernorm"], "inject", lambda self, vit: None)
    monkeypatch.setattr(METHODS["layernorm"], "expected_params", lambda self, vit: 0)
    with pytest.raises(ValueError, match=r"layernorm.* trains no parameter"):
        method_info(parse("layernorm"), load("toy_vit", "random"))


def test_parameters_that_no_run_would_train_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with frozen features computes them once and trains the head alone."""
    monkeypatch.setattr(METHODS["bitfit"], "frozen_features", True)
    with pytest.raises(ValueError, match="frozen_features"):
        method_info(parse("bitfit"), load("toy_vit", "random"))
