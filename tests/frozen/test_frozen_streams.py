"""Every random stream derives from its seed as before, and gives the same draws.

The data are what `record()` in tests/support/freeze.py wrote: `python tests/support/freeze.py`.
"""

import freeze
import pytest

FROZEN = freeze.frozen("streams")


def test_every_use_of_a_seed_derives_to_the_same_stream() -> None:
    assert freeze.streams() == {use: seeds for use, seeds in FROZEN.items() if use != "draws"}


def test_every_use_in_the_code_is_a_frozen_one() -> None:
    assert freeze.uses_in_the_code() == set(freeze.USES)


@pytest.fixture(scope="module")
def draws() -> dict:
    return freeze.draws()


@pytest.mark.parametrize("of", FROZEN["draws"])
def test_draws_are_the_same(draws: dict, of: str) -> None:
    assert close(draws[of], FROZEN["draws"][of])


def close(made: object, frozen: object) -> bool:
    """The same structure, and numbers within 1e-6."""
    if isinstance(frozen, dict):
        return set(made) == set(frozen) and all(close(made[name], frozen[name]) for name in frozen)
    if isinstance(frozen, list):
        return len(made) == len(frozen) and all(map(close, made, frozen))
    return made == (pytest.approx(frozen, rel=1e-6, abs=1e-5) if isinstance(frozen, float) else frozen)
