"""How tables print parameters, accuracies, differences and learning rates."""

import pytest
from vtab_peft.benchmark.reporting.tables import count, learning_rate, percent, signed


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((0, "0"), (7, "7"), (812, "812"), (999, "999"), (1000, "1.00k"), (9996, "10.0k"), (36_864, "36.9k")),
        *((294_912, "295k"), (999_400, "999k"), (999_600, "1.00M"), (85_798_656, "85.8M"), (304_000_000, "304M")),
    ],
)
def test_parameters_are_printed_with_three_digits(number, text):
    assert count(number) == text


@pytest.mark.parametrize(("unit", "size"), [("k", 1000), ("M", 1_000_000)])
def test_parameters_that_lie_half_way_go_up(unit, size):
    step = size // 100  # of what is printed below ten units
    for number in range(size + step // 2, 999 * step, step):
        assert count(number) == f"{(number + step // 2) / size:.2f}{unit}"


ODD = range(1, 2000, 2)
"""Counts of 2000 images that are ties at one decimal; in binary half of them fall short of the tie."""


def test_what_lies_half_way_goes_up():
    assert [percent(right / 2000) for right in ODD] == [f"{(right + 1) / 20:.1f}" for right in ODD]


@pytest.mark.parametrize(
    ("points", "text"),
    [(4.25, "+4.3"), (-4.25, "-4.3"), (0.04, "+0.04"), (-0.003, "-0.003"), (-1e-15, "0.0"), (-0.06, "-0.1")],
)
def test_a_difference_shows_its_side_of_zero(points: float, text: str) -> None:
    assert signed(points) == text
    assert percent(-1e-15) == "0.0"


@pytest.mark.parametrize(("lr", "text"), [(1e-3, "1e-3"), (2.5e-4, "2.5e-4"), (0.05, "5e-2"), (1.0, "1e0"), (0, "0")])
def test_learning_rates_are_short(lr, text):
    assert learning_rate(lr) == text
