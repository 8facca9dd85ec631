"""Benchmark of parameter-efficient fine-tuning methods on Vision Transformers; docs/python.md shows the functions.

The names in `__all__` are public: they change only with an entry in CHANGELOG.md.  All other modules may change.
Names are imported when they are first used, because torch takes seconds to import and most of them do not need it.
None is imported here: in a clone called `vtab-peft`, which is no name of a package, pytest imports this file alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmark import __version__
    from .benchmark.api.models import adapter, apply, load_adapter, merge, plain_vit, trainable
    from .benchmark.api.results import compare, leaderboard, load_results, published, run, to_bencheval
    from .benchmark.spec import Recipe
    from .methods.base import Method, method

__all__ = [
    "Method",
    "Recipe",
    "__version__",
    "adapter",
    "apply",
    "compare",
    "leaderboard",
    "load_adapter",
    "load_results",
    "merge",
    "method",
    "plain_vit",
    "published",
    "run",
    "to_bencheval",
    "trainable",
]

_MODULES = {
    **dict.fromkeys(("adapter", "apply", "load_adapter", "merge", "plain_vit", "trainable"), "benchmark.api.models"),
    **dict.fromkeys(
        ("compare", "leaderboard", "load_results", "published", "run", "to_bencheval"), "benchmark.api.results"
    ),
    **{"Recipe": "benchmark.spec", "Method": "methods", "method": "methods", "__version__": "benchmark"},
}
"""Module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
