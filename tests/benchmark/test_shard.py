"""`--shard i/n`: parts that cover the plan, agree without talking, and take equally long."""

import argparse
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vtab_peft.benchmark.cli.options import part
from vtab_peft.benchmark.plan import shard


def plan(images: list[int], seconds_per_image: float = 1.0) -> tuple[list[Any], Any]:
    backbone = SimpleNamespace(seconds_per_image=seconds_per_image)
    return [SimpleNamespace(place=i, seconds=n * seconds_per_image) for i, n in enumerate(images)], backbone


def parts(images: list[int], n: int, seconds_per_image: float = 1.0) -> list[list[int]]:
    runs, backbone = plan(images, seconds_per_image)
    return [[run.place for run in shard(runs, (i, n), backbone)] for i in range(1, n + 1)]


def test_longest_run_goes_to_the_smallest_shard() -> None:
    """Graham's example for longest-processing-time-first on three machines: 11, where 9 is possible."""
    images = [5, 5, 4, 4, 3, 3, 3]
    loads = [sum(images[place] for place in own) for own in parts(images, 3)]
    assert sorted(loads) == [8, 8, 11]


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(1, 400_000), max_size=60), st.integers(1, 12), st.floats(1e-7, 10))
def test_shards_cover_the_plan_once_on_any_machine(images: list[int], n: int, seconds: float) -> None:
    found = parts(images, n)
    assert sorted(place for own in found for place in own) == list(range(len(images)))
    assert all(own == sorted(own) for own in found)
    assert parts(images, n, seconds) == found


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(1, 400_000), min_size=1, max_size=60), st.integers(1, 12))
def test_shards_respect_grahams_bound(images: list[int], n: int) -> None:
    """Mean load + (1 - 1/n) of the longest run (Graham 1966, for any order in which the least loaded takes next)."""
    longest = max(sum(images[place] for place in own) for own in parts(images, n))
    assert longest <= sum(images) / n + (1 - 1 / n) * max(images) + 1e-9


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "/", "1/0", "-1/4", "1/4/2", "a/b", "٣/٨"])
def test_invalid_shard_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="such as 3/8"):
        part(text)


def test_shard_is_parsed() -> None:
    assert part("3/8") == (3, 8)


@pytest.mark.parametrize("n", [10**9, 10**30])
def test_more_shards_than_runs_take_no_memory(n: int) -> None:
    runs, backbone = plan([5, 3, 4])
    assert [[run.place for run in shard(runs, (i, n), backbone)] for i in (1, 2, 3, 4, n)] == [[0], [2], [1], [], []]
