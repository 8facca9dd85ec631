"""`list`: tables for people, JSON for programs."""

import json

import pytest
from vtab_peft.benchmark.cli import main


@pytest.mark.parametrize("what", ["methods", "tasks", "recipes", "backbones"])
def test_list_prints_a_table_or_json(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["list", what, "--json"]) == 0
    printed = capsys.readouterr().out
    assert main(["list", what, "--format", "json"]) == 0
    assert capsys.readouterr().out == printed
    rows = json.loads(printed)
    assert len(rows) <= len(lines) - 2 or what == "recipes"
    for row in rows:
        assert any(row["name"] in line for line in lines)


def test_json_lists_contain_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """Caltech101 has 6,084 test images in the split of TFDS and 6,085 in the archive."""
    assert main(["list", "tasks", "--json"]) == 0
    tasks = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert [tasks["caltech101"][split] for split in ("train", "val", "test")] == [800, 200, [6084, 6085]]
    assert main(["list", "tasks"]) == 0
    assert "6084/6085" in capsys.readouterr().out
    assert main(["list", "backbones", "--json"]) == 0
    backbones = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    clip = {"image_size": 336, "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    assert backbones["vit_large_patch14_clip_336.openai"].items() >= clip.items()
    assert backbones["toy_vit"]["image_size"] == 64
