"""Warnings about labels and images that are valid, but that nobody can have meant."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from .first_of import first_of
from .task import SUITES, SplitName, Task

SHOWN = 10
"""Labels that a warning names (our choice)."""


def label_warnings(
    task: Task, labels: Mapping[SplitName, Sequence[int] | np.ndarray], classes: int | None = None
) -> list[str]:
    """Return warnings about unused labels and about classes that no method can learn.

    In official tasks, classes only in test are meant: 1,000 images do not show all classes of sun397.
    """
    used = {split: set(np.unique(np.asarray(values)).tolist()) for split, values in labels.items()}
    everywhere = set().union(*used.values())
    classes = classes or task.classes
    count = classes - len(everywhere)
    unused = list(islice((label for label in range(classes) if label not in everywhere), SHOWN))
    untrained = sorted(used.get("test", set()) - used.get("train", set()) - used.get("val", set()))
    found = []
    if twice := [name for name, times in Counter(task.class_names).items() if times > 1]:
        found.append(f"classes.txt names {len(twice)} classes more than once: {first_of(twice, SHOWN)}")
    if unused == [0]:
        found.append(f"no image has label 0: the labels are 1 to {max(everywhere)}, but should start at 0; subtract 1")
    elif unused:
        found.append(f"no image has {_named(unused, count)}; number the classes without gaps, or correct classes.txt")
    if untrained and task.suite not in SUITES:
        named = _named(untrained, len(untrained))
        found.append(f"test has {named}, which train and val do not have, so that no method can learn it")
    return found


def repetition_warnings(task: Task, repeated: int) -> list[str]:
    """Return a warning if test images are byte for byte in train or val; some official test sets contain such."""
    if not repeated or task.suite in SUITES:
        return []
    named = "1 test image is" if repeated == 1 else f"{repeated} test images are"
    return [f"{named} byte for byte in train or val; `data check --deep` names them"]


def _named(labels: Sequence[int], count: int) -> str:
    """Return the first of `count` labels as text."""
    shown = ", ".join(map(str, labels[:SHOWN]))
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return f"label{'s' if count > 1 else ''} {shown}{more}"
