"""What a PEFT method is, and the registry of all of them."""

import ast
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from itertools import product
from typing import Any, ClassVar, Literal, TypeVar

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .anatomy import KINDS, Kind, kind
from .arguments import coerce

METHODS: dict[str, type["Method"]] = {}

Evidence = Literal["golden", "closed form", "peft", "paper only"]
"""How we know that an entry computes what its name says: its authors' code gave the same numbers (`golden`), its
definition leaves no choice (`closed form`), Hugging Face peft computes it (`peft`), or a test writes the paper's
equations once more (`paper only`)."""


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    venue: str
    """And where there is none, "arXiv"."""
    year: int
    arxiv: str | None = None
    code: str | None = None
    """The official code, as owner/name on GitHub."""

    def __str__(self) -> str:
        return f"{self.venue} {self.year}"


@dataclass(frozen=True)
class Method:
    """A PEFT method: its hyper-parameters are the fields, `inject` is the one required verb.

    The engine hands `inject` a fully frozen fp32 timm ViT (or `SwinTransformer`, where `backbones` has "swin") on
    the CPU, with torch's global generator seeded.  Parameters that `inject` creates are trainable because they are
    new; pretrained ones stay frozen unless `inject` unfreezes them.  All state lives in parameters and buffers of
    modules, never on the method, and there is no dtype or device code in a method file.  The head is the engine's.
    """

    title: ClassVar[str]
    """What tables call it."""
    paper: ClassVar[Paper | None]
    """None for what needs no paper, such as the linear probe."""
    equation: ClassVar[str]
    """LaTeX, the heart of it in one line; x and h are token features, W a pretrained weight [out, in]."""
    places: ClassVar[str]
    """What it touches by default, in words: "q, v", "after each block"."""
    evidence: ClassVar[Evidence]
    version: ClassVar[int] = 1
    """Raised when the same spec means other mathematics; results of different versions never mix."""
    lr: ClassVar[float | None] = None
    """Replaces the recipe's learning rate where that is known to be wrong for this method; say the source."""
    search: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Grid for tuning: field name -> values."""
    frozen_features: ClassVar[bool] = False
    """True when the features never change, so that the engine may compute them once."""
    starts_as_identity: ClassVar[bool] = True
    """Whether the injected model computes exactly what the pretrained one does."""
    stands_for_many: ClassVar[bool] = False
    """True for an entry that means little without arguments; `--methods all` leaves it out."""
    restores_without_examples: ClassVar[bool] = False
    """For a method with `prepare`: whether all that it chose there lies in tensors of the adapter, none of them made
    by it, so that what was learned goes into a model that has seen no training images."""
    backbones: ClassVar[tuple[Kind, ...]] = ("vit",)
    """What it can be put into; anything else is refused before a cell is run."""
    needs: ClassVar[str | None] = None
    """A package that the method imports when it is put in; an extra of this name installs it."""

    def inject(self, vit: VisionTransformer) -> None:
        """Put the method into `vit`, in place."""
        raise NotImplementedError(f"{type(self).__name__} must define inject(vit)")

    def expected_params(self, vit: VisionTransformer) -> int:
        """Closed-form number of trainable parameters for the plain `vit`, without head."""
        raise NotImplementedError(f"{type(self).__name__} must define expected_params(vit)")

    def prepare(self, vit: VisionTransformer, images: Tensor, labels: Tensor) -> None:
        """Look at the training data before training, on the device that trains, after `inject`.

        images: [n, 3, height, width], normalised; labels: [n].  Gradients left behind are dropped.
        """

    def penalty(self, vit: VisionTransformer) -> Tensor | None:
        """An extra loss term, or None."""
        return None

    def after_step(self, vit: VisionTransformer, step: int, steps: int) -> None:
        """Called after each optimiser step, gradients still there; `step` counts from 1 to `steps`."""

    def merge(self, vit: VisionTransformer) -> None:
        """Fold what was learned into the plain timm model, in fp32, in place.

        Raises:
            TypeError: the method cannot be expressed as weights of the plain model.
        """
        raise TypeError(f"{self.spec()} cannot be merged into the plain model")

    @classmethod
    def mergeable(cls) -> bool:
        return cls.merge is not Method.merge

    def args(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def variants(self) -> list["Method"]:
        """The method first, then the rest of its `search` grid, as far as the class takes it.

        An argument that is not at its default was chosen by someone and stays.
        """
        free = [f.name for f in fields(self) if f.name in self.search and getattr(self, f.name) == f.default]
        found = {self.spec(): self}
        for values in product(*(self.search[name] for name in free)):
            try:
                variant = replace(self, **dict(zip(free, values, strict=True)))
            except ValueError:  # two values of the grid that exclude each other
                continue
            found.setdefault(variant.spec(), variant)
        return list(found.values())

    def spec(self) -> str:
        """The shortest text that `parse` turns back into this method: `lora(rank=4)`."""
        changed = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        name = registered_name(type(self))
        return f"{name}({', '.join(changed)})" if changed else name


def check_backbone(method: Method, vit: nn.Module) -> None:
    """Raises `ValueError` when the method is not made for this kind of model; the message says which are."""
    here = kind(vit)
    if here not in method.backbones:
        others = ", ".join(sorted(name for name, cls in METHODS.items() if here in cls.backbones))
        made_for = " or ".join(KINDS[there] for there in method.backbones)
        raise ValueError(f"{method.spec()} is made for {made_for}, and this is {KINDS[here]}; on it run: {others}")


def require_positive(**sizes: int) -> None:
    """Check of hyper-parameters: `require_positive(rank=self.rank)`.

    Raises:
        ValueError: one of them is below 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")


M = TypeVar("M", bound=type[Method])


def register(name: str) -> Callable[[M], M]:
    """Class decorator, outermost, that enters a method into `METHODS`.

    Raises:
        ValueError: the name is taken or is not lower-case letters, digits and underscores.
    """

    def add(cls: M) -> M:
        if name in METHODS:
            raise ValueError(f"method {name!r} is registered twice: by {METHODS[name].__module__} and {cls.__module__}")
        if not name.isidentifier() or name != name.lower():
            raise ValueError(f"method name {name!r} must be lower-case letters, digits and underscores")
        METHODS[name] = cls
        return cls

    return add


def default_specs() -> list[str]:
    """What `--methods all` means: every entry at its defaults, as far as the packages that it needs are there."""
    missing = missing_packages()
    return [name for name, cls in METHODS.items() if cls.needs not in missing and not cls.stands_for_many]


def missing_packages() -> set[str]:
    """Those that registered methods need and that are not installed."""
    return {needs for needs in {cls.needs for cls in METHODS.values()} if needs and find_spec(needs) is None}


def registered_name(cls: type[Method]) -> str:
    return next(name for name, registered in METHODS.items() if registered is cls)


def parse(spec: str) -> Method:
    """The method that a spec string means: `"lora"`, `"lora(rank=4)"`.

    Raises:
        ValueError: syntax, unknown method, unknown or wrong argument; the message says what exists.
    """
    name, arguments = _split(spec)
    if name not in METHODS:
        there = f"There are: {', '.join(sorted(METHODS))}"
        raise ValueError(
            f"no method {name!r}{_meant(_near(name)) or '.'} {there}; one of a plug-in file needs --plugin FILE"
        )
    cls = METHODS[name]
    known = [field.name for field in fields(cls)]
    for argument in arguments:
        if argument not in known:
            hint = _meant(difflib.get_close_matches(argument.casefold(), known, n=1)) or "."
            takes = ", ".join(known) or "no arguments"
            raise ValueError(f"method {name!r} has no argument {argument!r}{hint} It takes: {takes}")
    try:
        return cls(**coerce(cls, arguments))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{spec}: {error}") from None


def _near(spec: str) -> list[str]:
    """Registered names that a wrong spec may mean, at most three: those that it is but for case, spaces, hyphens and
    underscores, or whose title it is, with arguments or not; else those that are spelled nearly so."""
    names = {_plain(text): known for known, cls in METHODS.items() for text in (cls.title, known)}
    wanted = _plain(spec), _plain(spec.partition("(")[0])
    close = [text for text in wanted if text in names] or difflib.get_close_matches(wanted[1], names, n=3)
    return list(dict.fromkeys(names[text] for text in close))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.casefold())


def _meant(close: list[str]) -> str:
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _split(spec: str) -> tuple[str, dict[str, Any]]:
    hint = "" if spec.partition("(")[0] in METHODS else _meant(_near(spec))
    malformed = ValueError(f"cannot read method {spec!r}: write it as name or name(argument=value, ...){hint}")
    try:
        node = ast.parse(spec.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise malformed from None
    if isinstance(node, ast.Name):
        return node.id, {}
    if isinstance(node, ast.Tuple):
        raise ValueError(f"cannot read method {spec!r}: separate methods by spaces, not by commas")
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise malformed
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise malformed
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise ValueError(f"method {spec!r}: the value of {keyword.arg!r} must be a plain literal") from None
    return node.func.id, arguments
