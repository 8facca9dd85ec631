"""Texts that hashes are taken of, recipes, columns, fields of records, and painted data stay the same.

The data are what `record()` in tests/support/freeze.py wrote: `python tests/support/freeze.py`.
"""

import freeze
import pytest

FORMATS, RECIPES = freeze.frozen("formats"), freeze.frozen("recipes")


def test_one_value_has_the_same_one_text() -> None:
    assert freeze.canonical() == FORMATS["canonical"]
    assert all(text.isascii() for text in FORMATS["canonical"].values())
    assert freeze.fingerprint({"a": 1}) == FORMATS["fingerprint"]


def test_protocol_schema_and_columns() -> None:
    assert [FORMATS["protocol"], FORMATS["schema"]] == [freeze.PROTOCOL, freeze.SCHEMA]
    assert list(freeze.COLUMNS) == FORMATS["frame"]


def test_first_lines_of_committed_tables() -> None:
    first = {name: data.split(b"\n")[0].decode() for name, data in freeze.committed_tables().items()}
    assert {name: first.get(name) for name in FORMATS["tables"]} == FORMATS["tables"]


def test_fields_of_stored_records() -> None:
    """Later records may have more; what every record has, every record keeps."""
    today = freeze.record_fields()
    assert today["always"] == FORMATS["record"]["always"]
    assert set(FORMATS["record"]["sometimes"]) <= set(today["sometimes"])


def test_every_recipe_is_there() -> None:
    assert set(RECIPES) <= set(freeze.RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_hashes_to_the_same(name: str) -> None:
    assert freeze.recipes()[name] == RECIPES[name]


def test_hashes_of_painted_tasks_in_records() -> None:
    assert freeze.toy_data_in_records() == FORMATS["toy data"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "position" else pytest.mark.slow) for name in freeze.TOY]
)
def test_a_painted_task_hashes_to_what_records_hold(name: str) -> None:
    assert freeze.toy_data(name) in FORMATS["toy data"][name].split()
