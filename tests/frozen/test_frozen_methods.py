"""Every method keeps its arguments, its tensors with their names, and what those start at.

The data are what `record()` in tests/support/freeze.py wrote: `python tests/support/freeze.py`.
"""

import freeze
import pytest

METHODS = freeze.frozen("methods")
ADAPTERS = freeze.frozen("adapters")


def installed(name: str) -> None:
    if package := METHODS[name]["needs"]:
        pytest.importorskip(package)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_its_name_version_and_arguments(name: str) -> None:
    assert freeze.method(name) == METHODS[name]


@pytest.mark.parametrize("case", ADAPTERS)
def test_an_adapter_keeps_its_tensors_and_their_initial_values(case: str) -> None:
    """Sums agree within 1e-6 of the sum of absolute values."""
    spec, _, backbone = case.partition(" on ")
    installed(spec.partition("(")[0])
    made = freeze.adapter(spec, backbone)
    assert {name: row[:2] for name, row in made.items()} == {name: row[:2] for name, row in ADAPTERS[case].items()}
    for name, (*_, total, size) in ADAPTERS[case].items():
        assert made[name][3] == pytest.approx(size, rel=1e-6, abs=1e-9), name
        if spec not in freeze.SIGN_IS_FREE:
            assert made[name][2] == pytest.approx(total, rel=0, abs=1e-6 * size + 1e-9), name
