"""Few-shot draws: balanced, disjoint, the same everywhere, and refused where images are missing."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from raises import raises_naming
from vtab_peft.datasets.cache import CachedTask, Preprocessing, build, undecoded
from vtab_peft.datasets.few_shots import Draw, FewShotTask, drawn_for, few_shot, split_suite
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.task import DataError


@pytest.fixture
def data(make_task: Callable[..., Path], tmp_path: Path) -> CachedTask:
    """12 images of each of 3 classes in train and val together."""
    return build(folder_task(make_task()), Preprocessing(32, "bicubic"), tmp_path / "cache")


def keys(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_train_and_val_have_the_shots_of_each_class_and_share_none(data: CachedTask) -> None:
    whole = keys(np.concatenate([data.images("train"), data.images("val")]))
    for shots in (1, 2, 6):
        drawn = few_shot(data, Draw(shots, 0))
        for split in ("train", "val"):
            assert np.bincount(drawn.labels(split)).tolist() == [shots] * 3
            assert len(drawn.images(split)) == drawn.counts[split] == 3 * shots
        train, val = keys(drawn.images("train")), keys(drawn.images("val"))
        assert len(train) == len(val) == 3 * shots
        assert not train & val
        assert train | val <= whole


def test_labels_are_those_of_the_images(data: CachedTask) -> None:
    """The channel of the class is the brightest, see `make_task`."""
    drawn = few_shot(data, Draw(4, 1))
    for split in ("train", "val"):
        assert drawn.images(split).mean(axis=(2, 3)).argmax(axis=1).tolist() == drawn.labels(split).tolist()


def test_draw_follows_its_definition(data: CachedTask) -> None:
    drawn = few_shot(data, Draw(2, 5))
    labels = np.concatenate([data.labels("train"), data.labels("val")])
    order = sorted(range(len(labels)), key=lambda row: hashlib.sha256(f"5 {row}".encode()).hexdigest())
    ranked = [[row for row in order if labels[row] == label] for label in range(3)]
    assert drawn.rows["train"].tolist() == sorted(row for rows in ranked for row in rows[:2])
    assert drawn.rows["val"].tolist() == sorted(row for rows in ranked for row in rows[2:4])


def test_more_shots_contain_the_training_images_of_fewer(data: CachedTask) -> None:
    few, many = (few_shot(data, Draw(shots, 3)) for shots in (2, 5))
    assert set(few.rows["train"]) < set(many.rows["train"])


def test_identity_is_that_of_the_draw(data: CachedTask) -> None:
    draws = [few_shot(data, Draw(shots, seed)) for shots in (1, 2) for seed in (0, 1)]
    assert len({drawn.data for drawn in draws} | {data.data}) == 5
    assert few_shot(data, Draw(1, 0)).data == draws[0].data
    assert [drawn.task.suite for drawn in draws[:2]] == ["own@1shot.seed0", "own@1shot.seed1"]
    assert split_suite("own@1shot.seed0") == ("own", Draw(1, 0))
    assert split_suite("vtab1k") == ("vtab1k", None)
    assert drawn_for("own", data) is data
    assert drawn_for("own@1shot.seed1", data) == draws[1]
    sent = pickle.loads(pickle.dumps(draws[3]))
    assert np.array_equal(sent.images("train"), draws[3].images("train"))


def test_val_is_never_trained_on(data: CachedTask) -> None:
    drawn = few_shot(data, Draw(2, 0))
    assert data.training_splits("test") == ("train", "val")
    assert data.training_splits("val") == ("train",)
    assert drawn.training_splits("test") == drawn.training_splits("val") == ("train",)


def test_test_stays_closed_and_whole(data: CachedTask, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    load = np.load
    monkeypatch.setattr(np, "load", lambda path, **more: opened.append(path) or load(path, **more))
    drawn = few_shot(data, Draw(2, 0))
    for split in ("train", "val"):
        drawn.images(split)
        drawn.labels(split)
    assert not set(opened) & set(data.files["test"])
    assert np.array_equal(drawn.images("test"), data.images("test"))
    assert np.array_equal(drawn.labels("test"), data.labels("test"))
    assert drawn.counts["test"] == data.counts["test"]


def test_too_few_images_are_refused_with_the_most_shots(data: CachedTask) -> None:
    assert isinstance(few_shot(data, Draw(6, 0)), FewShotTask)
    with raises_naming(DataError, "own/colours", "--shots 7", "needs 14", "0 (12)", "at most 6"):
        few_shot(data, Draw(7, 0))


def test_list_of_the_folder_replaces_the_draw(data: CachedTask) -> None:
    """It names the last images of each class, one of them from val; val is drawn from all others."""
    assert data.task.folder is not None
    files = ["train800_21", "train800_22", "val200_11"]  # of classes 0, 1 and 2
    lines = [f"images/{file}.png {label}\n" for label, file in enumerate(files)]
    path = data.task.folder / "shots_1_seed_2.txt"
    path.write_text("".join(lines))
    drawn = few_shot(data, Draw(1, 2))
    assert drawn.rows["train"].tolist() == [21, 22, 24 + 11]
    assert np.bincount(drawn.labels("val")).tolist() == [1, 1, 1]
    assert not set(drawn.rows["val"]) & set(drawn.rows["train"])
    assert few_shot(data, Draw(1, 0)).rows["train"].tolist() != [21, 22, 35]
    path.unlink()
    assert few_shot(data, Draw(1, 2)).data != drawn.data


@pytest.mark.parametrize(
    "lines",
    [
        "images/train800_0.png 0\nimages/train800_1.png 1\n",
        "images/train800_0.png 0\nimages/train800_1.png 1\nimages/train800_2.png 2\nimages/train800_5.png 2\n",
        "images/train800_0.png 0\nimages/train800_1.png 1\nimages/test_2.png 2\n",
        "images/train800_0.png 0\nimages/train800_1.png 1\nimages/train800_2.png 1\n",
    ],
)
def test_lists_that_are_no_draw_are_refused(lines: str, data: CachedTask) -> None:
    """A class is missing, one has two images, an image is of test, and a label is wrong."""
    assert data.task.folder is not None
    (data.task.folder / "shots_1_seed_0.txt").write_text(lines)
    with raises_naming(DataError, "shots_1_seed_0.txt"):
        few_shot(data, Draw(1, 0))


def test_undecoded_tasks_have_the_counts_of_the_draw(make_task: Callable[..., Path]) -> None:
    drawn = few_shot(undecoded(folder_task(make_task()), Preprocessing(32, "bicubic")), Draw(2, 0))
    assert (drawn.data, drawn.counts) == ("", {"train": 6, "val": 6, "test": 18})
