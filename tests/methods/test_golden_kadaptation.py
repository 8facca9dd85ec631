"""Compare KAdaptation with numbers computed with its official code, and test where ours departs from that code."""

import pytest
import torch
from golden_cases import Case
from raises import raises_naming
from refusal import assert_refused
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from vtab_peft.methods import parse
from vtab_peft.methods.kadaptation import KroneckerSum, Rule
from vtab_peft.methods.updates import UpdatedLinear


@pytest.mark.parametrize(("name", "site"), [("kadaptation_q", "q"), ("kadaptation_v", "v")])
def test_kadaptation_as_released(name: str, site: str) -> None:
    """The official code uses the factors of the query for the value too."""
    case = Case(name)
    d, hyper = case.width, case.hyper
    bias, rules = nn.Parameter(torch.zeros(d)), {"q": Rule(hyper["phm_dim"]), "v": Rule(hyper["phm_dim"])}
    updates = {part: KroneckerSum(rule, bias, d, hyper["scale"], dropout=0.5) for part, rule in rules.items()}
    factors = {f"{part}_proj_adapter1_left": update.u for part, update in updates.items()}
    factors |= {f"{part}_proj_adapter1_right": update.v for part, update in updates.items()}
    factors |= {f"phm_rule{i}_left": rule.left for i, rule in enumerate(rules.values(), 1)}
    factors |= {f"phm_rule{i}_right": rule.right for i, rule in enumerate(rules.values(), 1)}
    updates["v"].u, updates["v"].v = updates["q"].u, updates["q"].v  # as published: model.py:580
    case.compare(updates[site], {**factors, "b": bias})


def test_update_is_the_sum_of_kronecker_products() -> None:
    torch.manual_seed(0)
    update = KroneckerSum(Rule(4), nn.Parameter(torch.zeros(12)), 8, scale=2.0, dropout=0.5).double()
    nn.init.normal_(update.u)
    rule = update.rule
    products = [
        torch.kron(torch.outer(rule.left[i], rule.right[i]), torch.outer(update.u[i], update.v[i]))  # [inputs, outputs]
        for i in range(4)
    ]
    torch.testing.assert_close(update.delta(), 2 * torch.stack(products).sum(0).T)


def test_which_factors_query_and_value_share(vit: VisionTransformer) -> None:
    parse("kadaptation(terms=8)").inject(vit)
    first, second = ([block.attn.qkv.updates[site] for site in ("q", "v")] for block in vit.blocks)
    for layer in (first, second):
        assert layer[0].bias is layer[1].bias
        assert layer[0].u is not layer[1].u
        assert not torch.equal(layer[0].v, layer[1].v)
    assert first[0].bias is not second[0].bias
    for here, there in zip(first, second, strict=True):
        assert here.rule is there.rule
        assert here.u is not there.u
    assert first[0].rule is not first[1].rule


def test_kadaptation_initialisation() -> None:
    torch.manual_seed(0)
    update = KroneckerSum(rule := Rule(32), nn.Parameter(torch.zeros(768)), 768, scale=160.0, dropout=0.5)
    assert 0.0095 < rule.left.abs().max() <= 0.01
    assert 0.0095 < rule.right.abs().max() <= 0.01
    assert not update.u.any()
    bound = (2 * 6 / (1 + 24)) ** 0.5  # v_i^T is [1, 768 / 32]
    assert 0.97 * bound < update.v.abs().max() <= bound


def test_dropout_acts_on_the_weights_of_the_update() -> None:
    torch.manual_seed(0)
    update = KroneckerSum(Rule(4), nn.Parameter(torch.ones(8)), 8, scale=1.0, dropout=0.5)
    nn.init.normal_(update.u)
    kept = update(torch.eye(8)).T - 1  # the identity matrix yields the weights
    doubled = kept.abs() > 1e-3 * update.delta().abs()
    torch.testing.assert_close(kept, torch.where(doubled, 2 * update.delta(), 0.0), rtol=0, atol=1e-6)
    assert 0.2 < doubled.float().mean() < 0.8


def test_merging_adds_the_bias_to_query_and_value(vit: VisionTransformer) -> None:
    before = vit.blocks[0].attn.qkv.bias.clone()
    method = parse("kadaptation")
    method.inject(vit)
    qkv = vit.blocks[0].attn.qkv
    assert isinstance(qkv, UpdatedLinear)
    nn.init.ones_(qkv.updates["q"].bias)
    method.merge(vit)
    torch.testing.assert_close(
        vit.blocks[0].attn.qkv.bias - before, torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(32)
    )


def test_terms_must_divide_the_width(vit: VisionTransformer) -> None:
    with raises_naming(ValueError, "terms=24", 32):
        parse("kadaptation(terms=24)").inject(vit)


def test_wrong_hyperparameters_are_refused() -> None:
    assert_refused("kadaptation(terms=0)", "terms", 0)
