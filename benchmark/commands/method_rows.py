"""Rows of `list methods`: all facts of the registered methods."""

import inspect
from typing import Any

from ...methods import METHODS, Method
from .method_docs import proof_of
from .method_facts import Measurer, MethodFacts


def methods() -> list[dict[str, Any]]:
    """Return one row per registered method at its defaults, sorted by name."""
    measurer = Measurer()
    return [_row(name, cls(), measurer.facts(cls())) for name, cls in sorted(METHODS.items())]


def _row(name: str, method: Method, facts: MethodFacts) -> dict[str, Any]:
    cls, paper = type(method), method.paper
    description, details = _docstring(cls)
    return {
        "name": name,
        "title": cls.title or name,
        "description": description,
        "details": details,
        "venue": paper and paper.venue,
        "year": paper and paper.year,
        "arxiv": paper and paper.arxiv,
        "code": paper and paper.code,
        "equation": cls.equation,
        "targets": cls.targets,
        "backbones": list(cls.backbones),
        "defaults": method.args(),
        "search": {field: list(values) for field, values in cls.search.items()},
        "lr": cls.lr,
        "params_vit_b16": facts.params_vit_b16,
        "mergeable": cls.mergeable(),
        "starts_as_identity": cls.starts_as_identity,
        "change_at_start": facts.change_at_start,
        "evidence": cls.evidence,
        "differs": cls.differs,
        "evidence_sources": list(proof_of(name, cls.evidence).sources),
        "needs": cls.needs,
        "version": cls.version,
    }


def _docstring(cls: type[Method]) -> tuple[str, str]:
    """Return the first paragraph and the rest."""
    first, _, rest = (inspect.getdoc(cls) or "").partition("\n\n")
    return " ".join(first.split()), rest
