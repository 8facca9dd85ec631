"""Long lists in messages end with the number of names that were left out."""

import pytest
from vtab_peft.datasets.first_of import first_of


@pytest.mark.parametrize(
    ("names", "separator", "text"),
    [
        ("", ", ", ""),
        ("ab", ", ", "a, b"),
        ("abcd", "; ", "a; b and 2 more"),
        ("abc", "\n  ", "a\n  b\n  and 1 more"),
    ],
)
def test_the_first_names_and_how_many_follow(names: str, separator: str, text: str) -> None:
    assert first_of([*names], 2, separator) == text
