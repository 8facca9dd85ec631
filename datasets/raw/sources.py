"""The sources of all official tasks: those of each module in this folder that defines `SOURCES`."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from ..official import FGVC, VTAB1K
from ..task import DataError, SplitName, Task
from ..tasks import find, suite_tasks
from .source import Examples, Source


def _not_reproducible(_: Path) -> Mapping[SplitName, Examples]:
    """Refuse to build caltech101, whose images TFDS drew from directory listings that it does not sort.

    The draw (tensorflow/datasets image_classification/caltech.py, `np.random.choice` with seed 1234, 30 images a class)
    therefore depends on the machine on which it ran.
    """
    raise DataError(
        "vtab1k/caltech101 cannot be built from the original files: its official 1000 images were drawn from unsorted "
        "directory listings of one machine.  Take the folder caltech101 from the shared vtab-1k archive (docs/data.md)"
    )


def _all() -> dict[str, Source]:
    found = {"caltech101": Source("caltech101", "caltech101", (), (), _not_reproducible)}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem == Path(__file__).stem:
            continue
        for source in getattr(import_module(f".{path.stem}", __package__), "SOURCES", ()):
            if source.task in found:
                raise TypeError(f"{path}: another module already defines a source of {source.task}")
            found[source.task] = source
    return {name: found[name] for name in (*VTAB1K, *FGVC) if name in found}


SOURCES: dict[str, Source] = _all()
"""Sources by task name: VTAB-1k in the order in which papers print it, then FGVC."""


def find_official(names: Sequence[str], suite: str, data: Path | None) -> list[Task]:
    """Find tasks like `tasks.find`; a name may also be a raw data set: `dsprites` means both of its tasks."""
    rows = suite_tasks(suite)
    expanded: list[str] = []
    for name in names:
        made_of = [task for task in rows if task in SOURCES and SOURCES[task].raw == name]
        expanded += [name] if name in rows else made_of or [name]
    return find(expanded, suite, data)
