"""`list`: tables for people, JSON for programs."""

import json

import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.commands import backbone_facts
from vtab_peft.benchmark.engine.backbone import names


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
    assert "6,084/6,085" in capsys.readouterr().out
    assert main(["list", "backbones", "--json"]) == 0
    backbones = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    clip = {"image_size": 336, "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    assert backbones["vit_large_patch14_clip_336.openai"].items() >= clip.items()
    assert backbones["toy_vit"]["image_size"] == 64
    large = {"class": "VisionTransformer", "parameters": 303_507_456, "licence": "apache-2.0"}
    assert backbones["vit_large_patch14_clip_336.openai"].items() >= large.items()
    assert backbones["vit_large_patch14_clip_336.openai"]["hub"] == "timm/vit_large_patch14_clip_336.openai"
    assert backbones["vit_small_patch16_dinov3.lvd1689m"]["licence"] == "dinov3-license"
    order = [(row["class"], row["parameters"]) for row in backbones.values()]
    assert order == sorted(order)


def test_numbers_are_aligned_and_have_separators(capsys: pytest.CaptureFixture[str]) -> None:
    """Align the lists of tasks and backbones as that of methods."""
    for what, name, number in (("tasks", "dsprites_loc", "73,728"), ("backbones", "toy_vit", "894,080")):
        assert main(["list", what]) == 0
        head, rule, *lines = capsys.readouterr().out.splitlines()
        row = next(line for line in lines if name in line)
        column = "test" if what == "tasks" else "parameters"
        assert rule[head.index(column) + len(column) - 1 :][:2] == "- ", "the heading ends with its column"
        assert row[: head.index(column) + len(column)].endswith(number)


def test_named_backbones_are_shown_with_their_preprocessing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "backbones", "toy_vit"]) == 0
    named = capsys.readouterr().out
    assert main(["list", "backbones"]) == 0
    assert "mean" in named.splitlines()[0]
    assert "mean" not in capsys.readouterr().out.splitlines()[0]


def test_stored_sizes_are_those_of_the_models() -> None:
    sizes = backbone_facts.load()
    for name in ("toy_vit", "vit_tiny_patch16_224.augreg_in21k", "vit_small_plus_patch16_dinov3.lvd1689m"):
        assert sizes[backbone_facts.key_of(name)] == backbone_facts.count(name)


@pytest.mark.slow
def test_every_listed_backbone_has_a_stored_size() -> None:
    sizes, listed = backbone_facts.load(), names()
    assert {backbone_facts.key_of(name) for name in listed} == set(sizes)
    for name in listed[::10]:
        assert sizes[backbone_facts.key_of(name)] == backbone_facts.count(name)
