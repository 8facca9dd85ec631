"""The table of original files: addresses, sizes and checksums."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from vtab_peft.datasets.fetch import items
from vtab_peft.datasets.raw.sources import SOURCES
from vtab_peft.datasets.tasks import find


def test_tasks_of_the_same_files_fetch_them_once(tmp_path: Path) -> None:
    tasks = find(["clevr_dist", "clevr_count", "svhn"], "vtab1k", tmp_path)
    found = items(tasks, tmp_path, SOURCES)
    assert [wanted.tasks for wanted in found] == [("clevr_dist", "clevr_count"), ("svhn",), ("svhn",)]
    assert {wanted.folder for wanted in found} == {tmp_path / "clevr", tmp_path / "svhn"}


def test_every_task_of_both_suites_can_be_fetched_or_says_how(tmp_path: Path) -> None:
    for suite in ("vtab1k", "fgvc"):
        found = items(find(["all"], suite, tmp_path), tmp_path, SOURCES)
        for wanted in found:
            assert wanted.file.url.startswith(("https://", "http://"))
            assert wanted.state in ("to fetch", "manual", "archive only")
            if wanted.state == "to fetch":
                assert wanted.file.sha256, f"{wanted.file.url} has no checksum"


def test_toy_and_custom_tasks_are_not_fetched(tmp_path: Path, make_folder: Any) -> None:
    toys = find(["all"], "toy", tmp_path)
    with pytest.raises(ValueError):
        items(toys[:1], tmp_path, SOURCES)
    with pytest.raises(ValueError):
        items(find([str(make_folder())], "vtab1k", tmp_path), tmp_path, SOURCES)


def test_sizes_and_checksums_belong_to_the_files() -> None:
    assert SOURCES["svhn"].files[1].known.size == 64_275_384  # url_checksums/svhn_cropped.txt
    files = [file for source in SOURCES.values() for file in source.files]
    assert all(len(file.sha256) == 64 for file in files if file.sha256)
    assert all(file.sha256 for file in files if file.bytes)


def torchvision_on(data_set: str) -> str:
    """The text of torchvision's module, which states addresses and checksums; importing it takes seconds."""
    spec = find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "datasets" / f"{data_set}.py").read_text()


@pytest.mark.parametrize(
    ("task", "data_set"), [("dtd", "dtd"), ("oxford_iiit_pet", "oxford_iiit_pet"), ("svhn", "svhn")]
)
def test_urls_are_those_of_torchvision(task: str, data_set: str) -> None:
    assert all(f'"{file.url}"' in torchvision_on(data_set) for file in SOURCES[task].files)


def test_eurosat_mirror_has_the_md5_of_torchvision() -> None:
    mirror = SOURCES["eurosat"].files[0].mirror
    assert mirror is not None
    assert f'"{mirror.md5}"' in torchvision_on("eurosat")
