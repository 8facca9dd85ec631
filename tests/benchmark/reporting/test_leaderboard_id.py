"""Who may be compared with whom: checked by numbers worked out by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from leaderboards import VTAB, leaderboards, only, put_vtab
from vtab_peft.benchmark.reporting.leaderboard_id import LeaderboardId, by_leaderboard, distinct_titles


def test_an_empty_store_has_no_board(store):
    assert leaderboards(store) == []


def test_validation_runs_never_enter(store, put):
    put("flowers", "lora", 0, 0.5)
    put("flowers", "lora", 1, 0.9, split="val")
    put("cars", "lora", 0, 0.9, split="val")
    board = only(store)
    assert [task.name for task in board.tasks] == ["flowers"]
    assert board.rows[0]["accuracy_flowers"] == 0.5
    assert board.rows[0]["seeds"] == 1


def test_only_validation_runs_make_no_board(store, put):
    put("flowers", "lora", 0, 0.5, split="val")
    assert leaderboards(store) == []


def test_official_and_own_tasks_of_one_name_never_mix(store, put):
    put("caltech101", "lora", 0, 0.9, suite="vtab1k", data="aa" * 32, provenance="lossless")
    put("caltech101", "lora", 0, 0.3, suite="own", data="bb" * 32)
    own, official = leaderboards(store)
    assert [board.id.suite for board in (own, official)] == ["own", "vtab1k"]
    assert own.rows[0]["mean_tasks"] == 0.3
    assert official.rows[0]["mean_tasks"] == 0.9


@pytest.mark.parametrize("text", ["", "own@4shot.seed0", "own_4shot", "@4shot", "uniform"])
def test_a_leaderboard_is_found_by_the_names_in_it(store, put, text):
    put("flowers", "lora", 0, 0.5, suite="own@4shot.seed0")
    assert only(store).id.is_named(text)
    assert not only(store).id.is_named("own@4shot.seed1")


def board_of(spec):
    normalisation = f"mean {spec.mean} std {spec.std}"
    return LeaderboardId.of(SimpleNamespace(spec=spec, normalisation=normalisation))


def other_weights(spec):
    return replace(spec, backbone=replace(spec.backbone, sha256="77" * 32))


def other_backbone(spec):
    return replace(spec, backbone=replace(spec.backbone, name="vit_base_patch16_224.orig_in21k"))


def other_recipe(spec):
    return replace(spec, recipe=replace(spec.recipe, name="uniform"), recipe_base="uniform:12345678")


def edited_recipe(spec):
    return replace(spec, recipe_base="uniform_3ep:12345678")


def other_normalisation(spec):
    return replace(spec, mean=(0.485, 0.456, 0.406))


def other_interpolation(spec):
    return replace(spec, interpolation="bilinear")


def other_size(spec):
    return replace(spec, recipe=replace(spec.recipe, image_size=384))


def other_provenance(spec):
    return replace(spec, task=replace(spec.task, provenance="jpeg75"))


def other_suite(spec):
    return replace(spec, task=replace(spec.task, suite="mine"))


@pytest.mark.parametrize(
    "change",
    [
        *(other_weights, other_backbone, other_recipe, edited_recipe, other_normalisation),
        *(other_interpolation, other_size, other_provenance, other_suite),
    ],
)
def test_ranks_and_means_never_cross_leaderboards(store, fake, put, change):
    put("flowers", "lora", 0, 0.5)
    store.save(change(fake.spec("flowers", "ssf")), fake.record(0.9, title="SSF"), np.zeros(1, dtype=int))
    found = leaderboards(store)
    assert sorted(len(board.rows) for board in found) == [1, 1]
    assert [board.rows[0]["rank"] for board in found] == [1, 1]
    assert len({board.id.slug for board in found}) == 2
    assert len(set(distinct_titles([board.id for board in found]))) == 2


def test_jpeg_caltech101_completes_lossless_leaderboard(store, put):
    put_vtab(put, skip=["caltech101"])
    put("caltech101", "lora", 0, 0.01, suite="vtab1k", provenance="jpeg75")
    board = only(store)
    assert board.id.provenance == "lossless"
    assert [task.label for task in board.tasks][:3] == ["cifar", "caltech101@jpeg75", "dtd"]
    assert board.rows[0]["accuracy_caltech101@jpeg75"] == 0.01
    assert board.rows[0]["mean_19"] == pytest.approx(0.09)  # 0 .. 18


def test_jpeg_caltech101_is_on_the_jpeg_leaderboard_too(store, put):
    put_vtab(put, skip=["caltech101"])
    put_vtab(put, provenance="jpeg75", accuracy=lambda place: place / 50)
    jpeg, lossless = sorted(leaderboards(store), key=lambda board: board.id.provenance)
    assert {task.label for task in jpeg.tasks} == set(VTAB)
    assert jpeg.rows[0]["mean_19"] == pytest.approx(0.18)
    assert lossless.rows[0]["accuracy_caltech101@jpeg75"] == jpeg.rows[0]["accuracy_caltech101"] == 0.02


@pytest.mark.parametrize("facts", [{"task": "cifar", "suite": "vtab1k"}, {"task": "caltech101", "suite": "mine"}])
def test_no_other_task_joins_the_lossless_leaderboard(store, put, facts):
    put("dtd", "lora", 0, 0.5, suite=facts["suite"], provenance="lossless")
    put(**facts, method="lora", seed=0, accuracy=0.5, provenance="jpeg75")
    assert [len(board.tasks) for board in leaderboards(store)] == [1, 1]


def test_caltech101_from_the_archive_alone_is_a_jpeg_board(store, put):
    put("caltech101", "lora", 0, 0.5, suite="vtab1k", provenance="jpeg75")
    board = only(store)
    assert (board.id.provenance, [task.label for task in board.tasks]) == ("jpeg75", ["caltech101"])


def test_a_slug_is_readable_and_safe_as_a_file_name(store, put):
    put("flowers", "lora", 0, 0.5, suite="../a b|c\n")
    slug = only(store).id.slug
    assert slug.startswith(".._a_b_c_--vit_tiny_patch16_224.augreg_in21k_ft_in1k--uniform_3ep--")
    assert "/" not in slug


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (other_normalisation, "normalisation"),
        (other_interpolation, "interpolation"),
        (other_provenance, "provenance"),
        (edited_recipe, "recipe_base"),
    ],
)
def test_leaderboards_of_one_name_show_what_differs(fake, change, differs):
    spec = fake.spec("flowers", "lora")
    boards = [board_of(spec), board_of(change(spec)), board_of(other_suite(spec))]
    *same, other = distinct_titles(boards)
    assert other == boards[2].title
    assert same == [f"{board.title} · {board.details[differs]}" for board in boards[:2]]
    assert same[0] != same[1]


def test_real_images_come_before_procedural_suites(store, put):
    put("texture", "lora", 0, 0.5, suite="toy")
    put("flowers", "lora", 0, 0.5, suite="zoo")
    assert [board.procedural for board, _ in by_leaderboard(store.load_runs()[0])] == [False, True]
