"""What lists and docs say of the methods."""

import json
import re
from pathlib import Path

import pytest
from vtab_peft.benchmark.commands import method_cache, method_docs, method_facts, method_rows
from vtab_peft.methods import METHODS, parse

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return method_rows.methods()


def test_the_page_is_the_registry(rows: list[dict]) -> None:
    """`make docs` writes the page.  The measured column may round differently on another processor."""

    def without_measured(page: str) -> str:
        return re.sub(r"\| +[\d.]+ % ", "| moved ", page)

    assert without_measured((DOCS / "methods.md").read_text()) == without_measured(method_docs.page(rows))


def test_one_row_per_method_with_all_facts(rows: list[dict]) -> None:
    assert [row["name"] for row in rows] == sorted(METHODS)
    for row in rows:
        assert parse(row["name"]).args() == row["defaults"]
        assert row["params_vit_b16"] >= 0
        assert (row["year"] is None) == (METHODS[row["name"]].paper is None)


def test_every_method_has_measured_facts() -> None:
    stored = method_facts.load()
    assert {name: identity for name, (identity, _) in stored.items()} == {
        name: method_facts.identity_of(cls()) for name, cls in METHODS.items()
    }


@pytest.mark.parametrize("name", ["lora", "ssf", "vpt_deep", "gps"])
def test_stored_facts_are_those_measured_now(name: str) -> None:
    check_facts(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(METHODS))
def test_all_stored_facts_are_those_measured_now(name: str) -> None:
    check_facts(name)


def check_facts(name: str) -> None:
    _, stored = method_facts.load()[name]
    measured = method_facts.Measurer({}).facts(METHODS[name]())
    assert measured.params_vit_b16 == stored.params_vit_b16
    if stored.change_at_start is None:
        assert measured.change_at_start is None
    else:
        assert measured.change_at_start == pytest.approx(stored.change_at_start, rel=0.02, abs=1e-5)


def test_identity_at_start_means_unchanged_features(rows: list[dict]) -> None:
    for row in rows:
        assert (row["change_at_start"] == 0) == row["starts_as_identity"], row["name"]


def test_lists_name_the_code_that_was_compared(rows: list[dict]) -> None:
    by_name = {row["name"]: row for row in rows}
    assert by_name["lora"]["evidence_sources"][0].startswith("microsoft/LoRA@")
    assert by_name["linear"]["evidence_sources"] == []
    lines = {line.split()[0]: line for line in method_docs.table(rows).splitlines() if line}
    assert "reference implementation (ViT_PEFT_Vision)" in lines["difffit"]
    assert "golden" not in method_docs.table(rows)
    page = method_docs.page(rows)
    assert "https://github.com/OSU-MLB/ViT_PEFT_Vision/tree/cea7e21" in page


def test_columns_align(rows: list[dict]) -> None:
    lines = method_docs.table(rows).splitlines()
    rule = lines[1]
    ends = [match.end() for match in re.finditer("-+", rule)][:-1]
    assert all(line[end : end + 2].strip() == "" for line in lines[: len(rows) + 2] for end in ends)


def test_rows_are_cached_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[dict]] = []
    monkeypatch.setenv("VTAB_PEFT_CACHE", str(tmp_path))
    monkeypatch.setattr(method_rows, "methods", lambda: made.append([{"name": "lora"}]) or made[-1])
    assert method_cache.cached_rows() == method_cache.cached_rows() == [{"name": "lora"}]
    assert len(made) == 1
    for damage in (b"", b"[]", b'{"identity": 1}', b"\xff"):
        (tmp_path / "methods.json").write_bytes(damage)
        assert method_cache.cached_rows() == method_cache.cached_rows() == [{"name": "lora"}]
    assert len(made) == 5
    monkeypatch.setattr(method_cache, "METHODS", tmp_path)  # a folder with other files
    method_cache.cached_rows()
    assert len(made) == 6


def test_rows_survive_the_cache(rows: list[dict]) -> None:
    assert method_docs.page(json.loads(json.dumps(rows))) == method_docs.page(rows)
