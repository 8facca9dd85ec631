"""How every task is built: each module of this folder that has a tuple `SOURCES` adds to the table, and nothing else
has to be edited.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from ..task import DataError, SplitName, Task
from ..tasks import find, suite_tasks
from ..vtab1k import VTAB1K
from .fgvc import FGVC_SOURCES
from .source import Examples, Source


def _not_reproducible(_: Path) -> Mapping[SplitName, Examples]:
    """TFDS draws 30 images a class (tensorflow/datasets image_classification/caltech.py, `np.random.choice` with
    seed 1234) over directory listings that it does not sort, so the draw hangs on the machine it once ran on.
    """
    raise DataError(
        "vtab1k/caltech101 cannot be built from the original files: its official 1000 images were drawn at random over "
        "unsorted directory listings of one machine, and nobody can repeat that draw.  Take the folder caltech101 "
        "from the shared vtab-1k archive (docs/data.md)"
    )


def _all() -> dict[str, Source]:
    found = {"caltech101": Source("caltech101", "caltech101", (), (), _not_reproducible)}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem == Path(__file__).stem:
            continue
        for source in getattr(import_module(f".{path.stem}", __package__), "SOURCES", ()):
            if source.task in found:
                raise TypeError(f"{path} builds {source.task}, which another module of this folder does as well")
            found[source.task] = source
    return {name: found[name] for name in VTAB1K if name in found} | FGVC_SOURCES


SOURCES: dict[str, Source] = _all()
"""By the task's name: VTAB-1k in the order papers print it, then FGVC."""


def find_official(names: Sequence[str], suite: str, data: Path | None) -> list[Task]:
    """As `tasks.find`, where a name may also be that of a raw data set: `dsprites` means both tasks made of it."""
    rows = suite_tasks(suite)
    made_of = {
        name: [task for task in rows if task in SOURCES and SOURCES[task].raw == name]
        for name in names
        if name not in rows
    }
    return find([task for name in names for task in made_of.get(name) or [name]], suite, data)
