"""The released 1000 of every task agree with the rule, as far as keys alone can say.

Of n keys with evenly spread hashes, the k-th smallest lies near k / n, within a few times sqrt(k / n (1 - k / n) / n).
So the largest hash of the released 800 tells that nothing between them was left out, without the other keys.
"""

from dataclasses import dataclass

import pytest
from official_splits import released_lists
from raw_pictures import part_of_range

FAR = 4.5
"""Standard deviations that count as agreement; a right list leaves them once in 100,000 times."""


@dataclass(frozen=True)
class Rule:
    """How many keys a TFDS split has, and which ranks VTAB-1k takes of it; `key` is from the released name."""

    task: str
    train: int
    val: int
    """Keys of the split that val200 comes from."""
    val_from: int = 0
    val_salt: str = "validation"
    repeat: bool = False
    """Whether the key is the file name behind the name of its class."""

    def key(self, name: str) -> str:
        return f"{name.rsplit('_', 1)[0]}_{name}" if self.repeat else name


RULES = (
    Rule("dtd", 1880, 1880),
    Rule("oxford_flowers102", 1020, 1020),
    Rule("oxford_iiit_pet", 3680, 3680, 2944, "train"),
    Rule("sun397", 76_128, 10_875),
    Rule("eurosat", 27_000, 27_000, 16_200, "train", repeat=True),
    Rule("resisc45", 31_500, 31_500, 18_900, "train", repeat=True),
    Rule('diabetic_retinopathy(config="btgraham-300")', 35_126, 10_906),
    Rule('clevr(task="count_all")', 70_000, 70_000, 63_000, "train"),
    Rule('clevr(task="closest_object_distance")', 70_000, 70_000, 63_000, "train"),
    Rule("dmlab", 65_550, 22_628),
    Rule('kitti(task="closest_vehicle_distance")', 6347, 423),
)
"""Sizes of the splits: TFDS's own, as its dataset_info files state them."""


def hashes(rule: Rule, split: str, salt: str) -> list[float]:
    return [part_of_range(salt, rule.key(name)) for name in released_lists(rule.task)[split]]


def near(value: float, rank: int, of: int) -> bool:
    share = rank / of
    return abs(value - share) <= FAR * (share * (1 - share) / of) ** 0.5 + 1 / of


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.task)
def test_the_released_800_have_the_smallest_hashes(rule: Rule) -> None:
    found = hashes(rule, "train", "train")
    assert len(set(found)) == 800
    assert near(max(found), 800, rule.train)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.task)
def test_the_released_200_have_the_hashes_of_their_ranks(rule: Rule) -> None:
    found = hashes(rule, "val", rule.val_salt)
    assert len(set(found)) == 200
    assert near(min(found), rule.val_from + 1, rule.val)
    assert near(max(found), rule.val_from + 200, rule.val)


@pytest.mark.parametrize("rule", [rule for rule in RULES if "kitti" not in rule.task], ids=lambda rule: rule.task)
def test_the_released_200_are_in_the_order_of_their_hashes(rule: Rule) -> None:
    """Lists that were read from several of TFDS's files at once, as all of the 800 and kitti's 200, are not."""
    found = hashes(rule, "val", rule.val_salt)
    assert found == sorted(found)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.train > 2000], ids=lambda rule: rule.task)
def test_another_salt_does_not_agree(rule: Rule) -> None:
    assert not near(max(hashes(rule, "train", "test")), 800, rule.train)
