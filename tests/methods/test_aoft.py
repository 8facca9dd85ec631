"""AO(q) against the D x D matrix it is cut from, and what the paper says of it."""

import copy
import re
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from aoft_products import matrices, rank_two
from raises import raises_naming
from timm.models.vision_transformer import VisionTransformer
from vtab_peft.benchmark.method_checks.tiny_models import tiny
from vtab_peft.methods import METHODS, parse
from vtab_peft.methods.aoft import POLE_GUARD, AOFTUpdate, AOFTUpdates, approximately_orthogonal, initial_vector
from vtab_peft.methods.vpt import PromptedBlock


def whole_matrix(q: np.ndarray) -> np.ndarray:
    """Q(q) as printed: [[q0, -q'^T], [q', I - q' q'^T / (1 + q0)]]."""
    q0, tail = q[0], q[1:]
    lower = np.eye(len(tail)) - np.outer(tail, tail) / (1 + q0)
    return np.block([[np.array([[q0]]), -tail[None]], [tail[:, None], lower]])


@pytest.mark.parametrize("columns", [1, 2, 8, 24])
def test_it_is_the_first_columns_of_the_whole_matrix(columns: int) -> None:
    q = np.random.default_rng(0).normal(size=24) * 0.3
    ours = approximately_orthogonal(torch.from_numpy(q), columns)
    np.testing.assert_allclose(ours.numpy(), whole_matrix(q)[:, :columns], atol=1e-14)


def test_a_unit_vector_gives_the_rotation_that_takes_e0_to_it() -> None:
    q = np.random.default_rng(1).normal(size=24)
    q /= np.linalg.norm(q)
    rotation = approximately_orthogonal(torch.from_numpy(q), 24).numpy()
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(24), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-12)
    np.testing.assert_allclose(rotation[:, 0], q, atol=1e-14)


def test_the_exact_form_is_orthonormal_for_any_vector() -> None:
    q = 3 * torch.randn(24, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    columns = approximately_orthogonal(q, 8, "exact")
    torch.testing.assert_close(columns.T @ columns, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-12)


def test_columns_start_nearly_orthogonal_in_768_dimensions() -> None:
    """At our start, |q| is near one: no pair of columns is closer to parallel than 0.02."""
    q = torch.cat([torch.zeros(1), torch.randn(767, generator=torch.Generator().manual_seed(3)) / 768**0.5])
    columns = torch.nn.functional.normalize(approximately_orthogonal(q, 8), dim=0)
    cosines = columns.T @ columns - torch.eye(8)
    assert cosines.abs().max() < 0.02


def test_prompts_are_columns_that_each_block_reads_and_drops() -> None:
    """[class, AO(q)^T, patches] into the block, class and patches out of it."""
    vit, x = tiny("plain").double(), torch.randn(3, 5, 32, dtype=torch.float64)
    block = vit.blocks[1]
    parse("aoft_vpt(tokens=4)").inject(vit)
    prompted = cast(PromptedBlock, vit.blocks[1].double().eval())
    columns = whole_matrix(prompted.prompts.get_parameter("q").detach().numpy())[:, :4]
    tokens = torch.from_numpy(columns.T).expand(3, -1, -1)
    with torch.no_grad():
        expected = block(torch.cat([x[:, :1], tokens, x[:, 1:]], dim=1))[:, [0, 5, 6, 7, 8]]
        torch.testing.assert_close(prompted(x), expected)


@pytest.mark.parametrize("q0", [-1.0, -1 + 1e-9, -1 - 1e-9])
def test_the_pole_is_guarded(q0: float) -> None:
    q = torch.full((16,), 0.1, dtype=torch.float64)
    q[0] = q0
    q.requires_grad_(True)
    columns = approximately_orthogonal(q, 4)
    columns.sum().backward()
    assert columns.abs().max() < 1 + 0.01 / POLE_GUARD
    assert q.grad is not None
    assert q.grad.isfinite().all()


def test_released_form_lets_no_gradient_through_the_corner() -> None:
    q = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    approximately_orthogonal(q, 3, "released")[0, 0].backward()
    assert q.grad is not None
    assert q.grad.abs().max() == 0


@pytest.mark.parametrize("rank", [1, 2, 8, 24])
def test_products_with_the_matrix_equal_identity_plus_rank_two(rank: int) -> None:
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).mul_(0.3).requires_grad_()

    inputs = normal(3, 5, 24), normal(24), normal(32)
    with_matrices, without = matrices(*inputs, rank), rank_two(*inputs, rank)
    torch.testing.assert_close(with_matrices, without, rtol=0, atol=1e-12)
    weights = torch.randn(with_matrices.shape, dtype=torch.float64, generator=generator)
    ours = torch.autograd.grad((with_matrices * weights).sum(), inputs)
    theirs = torch.autograd.grad((without * weights).sum(), inputs)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_the_update_is_the_scaled_product_of_both_matrices() -> None:
    update = AOFTUpdate(24, 32, 4, "paper", "normal", "normal").double()
    down, up = (whole_matrix(q.detach().numpy())[:, :4] for q in (update.q_down, update.q_up))
    expected = up @ np.diag(update.scale.detach().numpy()) @ down.T
    np.testing.assert_allclose(update.delta().detach().numpy(), expected, atol=1e-12)
    x = torch.randn(2, 3, 24, dtype=torch.float64)
    np.testing.assert_allclose(update(x).detach().numpy(), x.numpy() @ expected.T, atol=1e-12)


def test_starts_are_what_they_are_called() -> None:
    torch.manual_seed(5)
    assert initial_vector(768, "zeros").abs().max() == 0
    assert initial_vector(768, "identity").tolist() == [1.0] + [0.0] * 767
    normal = initial_vector(768, "normal")
    assert normal[0] == 0
    assert abs(float(normal.norm()) - 1) < 0.1
    identity = approximately_orthogonal(initial_vector(768, "identity"), 8)
    assert torch.equal(identity, torch.eye(768, 8))


def test_released_start_is_a_diagonal_without_its_first_entry() -> None:
    update = AOFTUpdate(24, 32, 4, "released", "ones", "zeros")
    expected = torch.zeros(32, 24)
    expected[1, 1] = expected[2, 2] = expected[3, 3] = 1
    assert torch.equal(update.delta(), expected)


def test_a_rank_above_the_width_is_refused() -> None:
    with raises_naming(ValueError, "rank", 33, 32):
        AOFTUpdate(64, 32, 33, "paper", "zeros", "normal")


def documented_norms() -> list[tuple[str, str]]:
    page = (Path(__file__).parents[2] / "docs" / "aoft.md").read_text()
    table = page[page.index("| norm of ΔW |") :].partition("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", table, re.MULTILINE)


def test_all_entries_with_updates_have_their_norm_documented() -> None:
    with_updates = {name for name, method in METHODS.items() if issubclass(method, AOFTUpdates)}
    assert {name for name, _ in documented_norms()} == with_updates


@cache
def vit_b() -> VisionTransformer:
    return VisionTransformer(embed_dim=768, depth=12, num_heads=12, num_classes=0).requires_grad_(False)


@pytest.mark.parametrize(("name", "norm"), documented_norms())
def test_norm_of_the_update_at_the_start_is_as_documented(name: str, norm: str) -> None:
    vit = copy.deepcopy(vit_b())
    torch.manual_seed(0)
    parse(name).inject(vit)
    norms = [module.delta().norm().item() for module in vit.modules() if isinstance(module, AOFTUpdate)]
    assert f"{sum(norms) / len(norms):.2f}" == norm
