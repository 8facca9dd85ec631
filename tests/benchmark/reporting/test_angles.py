"""Angles, norms, ranks and the bound, compared with scipy and closed forms."""

import numpy as np
import pytest
from scipy import integrate, stats
from vtab_peft.benchmark.analysis import angles, spectra
from vtab_peft.benchmark.analysis.bounds import rademacher


def gaussian(n: int, dimension: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dimension))


def orthonormal(n: int, dimension: int) -> np.ndarray:
    return np.linalg.qr(gaussian(dimension, n))[0].T


def test_orthogonal_rows_are_at_90_degrees() -> None:
    found = angles.measure([3.0 * orthonormal(40, 64)])
    assert found is not None
    assert found.pairs == 40 * 39 / 2
    assert found.mean == pytest.approx(90, abs=1e-9)
    assert found.off_90 == pytest.approx(0, abs=1e-9)
    assert found.spread == pytest.approx(0, abs=1e-12)
    assert found.distance == pytest.approx(0.5, abs=1 / angles.GRID)


def test_known_angles_are_found() -> None:
    vectors = np.array([[2.0, 0, 0], [1, 1, 0], [-1, 0, 0]])  # 45, 180 and 135 degrees
    assert np.degrees(np.arccos(angles.cosines(vectors))) == pytest.approx([45, 180, 135])


def test_zero_vectors_are_excluded_and_counted() -> None:
    found = angles.measure([np.array([[1.0, 0], [0, 0], [0, 2]])])
    assert found is not None
    assert (found.pairs, found.left_out) == (1, 1)
    assert angles.measure([np.array([[1.0, 0], [0, 0]])]) is None


@pytest.mark.parametrize("dimension", [3, 32, 192, 768])
def test_random_directions_have_spread_one(dimension: int) -> None:
    found = angles.measure([gaussian(200, dimension)])
    assert found is not None
    assert found.spread == pytest.approx(1, abs=0.03)
    assert found.off_90 == pytest.approx(np.degrees(dimension**-0.5), rel=0.03 if dimension > 3 else 0.2)


@pytest.mark.parametrize("dimension", [3, 8, 192])
def test_density_is_a_power_of_the_sine(dimension: int) -> None:
    degrees = np.array([20.0, 70, 90, 120])
    constant, _ = integrate.quad(lambda angle: np.sin(np.radians(angle)) ** (dimension - 2), 0, 180)
    expected = np.sin(np.radians(degrees)) ** (dimension - 2) / constant
    assert angles.density(degrees, dimension) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.2, 3.0])
def test_distance_equals_scipys_kstest(scale: float) -> None:
    dimension, half = 24, 23 / 2
    found = np.clip(scale * angles.cosines(gaussian(60, dimension)), -1, 1)
    expected = stats.kstest((1 + found) / 2, stats.beta(half, half).cdf).statistic
    assert angles.distance(found, dimension) == pytest.approx(expected, abs=1 / angles.GRID)


def test_null_contains_random_but_not_orthogonal_rows() -> None:
    null = angles.null(((8, 64),) * 10)
    random = angles.measure([gaussian(8, 64, seed) for seed in range(1, 11)])
    orthogonal = angles.measure([orthonormal(8, 64)] * 10)
    assert random is not None
    assert orthogonal is not None
    assert null.spread[0] < 1 < null.spread[1]
    assert null.spread[0] < random.spread < null.spread[1]
    assert random.distance < null.distance[1]
    assert orthogonal.spread < null.spread[0]
    assert orthogonal.distance > null.distance[1]


def test_null_is_as_narrow_as_for_independent_pairs() -> None:
    """Cosines of random directions are pairwise independent; var(cos^2) = 2 (D - 1) / (D^2 (D + 2))."""
    dimension, pairs = 16, 24 * 28
    low, high = angles.null(((8, dimension),) * 24).spread
    std = np.sqrt(2 * (dimension - 1) / (dimension + 2) / pairs) / 2  # of the root of the mean square
    assert (high - low) / 2 == pytest.approx(1.96 * std, rel=0.2)


def test_large_matrices_are_thinned_evenly() -> None:
    rows = np.arange(1000.0)[:, None]
    assert len(angles.thinned(rows)) == angles.MOST_VECTORS
    assert angles.thinned(rows)[[0, -1], 0].tolist() == [0, 999]
    assert angles.thinned(rows[:9]) is not None
    assert len(angles.thinned(rows[:9])) == 9


def test_norms_equal_numpys() -> None:
    matrix = gaussian(5, 9)
    size = spectra.size("a", "update of q", "trained", matrix, weight=2 * matrix)
    assert size.spectral == pytest.approx(np.linalg.norm(matrix, 2))
    assert size.frobenius == pytest.approx(np.linalg.norm(matrix))
    assert size.relative == pytest.approx(0.5)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_the_effective_rank_of_a_projector_is_its_rank(rank: int) -> None:
    basis = orthonormal(rank, 20)
    size = spectra.size("a", "down", "start", basis.T @ basis)
    assert size.effective_rank == pytest.approx(rank)
    assert size.stable_rank == pytest.approx(rank)


def test_effective_rank_is_exp_of_the_entropy() -> None:
    values = np.array([3.0, 1.0])
    shares = np.array([0.75, 0.25])
    assert spectra.effective_rank(values) == pytest.approx(np.exp(stats.entropy(shares)))
    assert spectra.stable_rank(values) == pytest.approx(10 / 9)


def test_a_matrix_of_zeros_has_no_rank() -> None:
    size = spectra.size("a", "up", "start", np.zeros((4, 6)))
    assert (size.spectral, size.frobenius, size.effective_rank, size.stable_rank) == (0, 0, 0, 0)


def test_the_bound_of_one_direction_is_that_of_a_random_walk() -> None:
    m = 900
    found = rademacher("here", 2.0, np.tile([3.0, 4.0], (m, 1)))
    assert found.expectation == pytest.approx(5 * np.sqrt(2 * m / np.pi), rel=0.05)
    assert found.at_most == pytest.approx(5 * np.sqrt(m))
    assert found.bound == pytest.approx(2.0 * found.expectation / m)


def test_jensens_bound_is_tight_for_orthogonal_inputs() -> None:
    found = rademacher("here", 1.0, 3.0 * np.eye(50))
    assert found.expectation == pytest.approx(found.at_most)
