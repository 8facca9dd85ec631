"""The `Method` base class, the `@method` decorator and the registry of all methods."""

import copy
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from importlib.util import find_spec
from itertools import product
from keyword import iskeyword
from typing import Any, ClassVar, TypeVar, dataclass_transform

from torch import Tensor, nn

from .anatomy import FAMILIES, Family, backbone_family
from .arguments import coerce
from .facts import Evidence, Paper, without_inherited, wrong_fact

Loss = Callable[[Tensor, Tensor], Tensor]
"""Maps logits [n, classes] and labels [n] to their mean loss."""

METHODS: dict[str, type["Method"]] = {}
"""Registered methods by name."""


def later(*, default: Any) -> Any:
    """Declare a hyper-parameter that was added after results existed.

    Run IDs leave it out at its default, which means the earlier behaviour.
    """
    return field(default=default, metadata={"later": True})


def default_of(argument: Field[Any]) -> Any:
    """Return the default of a hyper-parameter; lists and dictionaries have a factory of it."""
    return argument.default if argument.default_factory is MISSING else argument.default_factory()


@dataclass(frozen=True)
class Method:
    """Base class of PEFT methods: fields are hyper-parameters, and `inject` puts the method into a model.

    The engine passes `inject` a fully frozen fp32 `VisionModel` of one of the `backbones`, on the CPU, after seeding
    torch's global generator.  Parameters created by `inject` are trainable because they are new.  Pretrained
    parameters stay frozen unless `inject` unfreezes them.  All state lives in parameters and buffers of modules, never
    on the method.  Method files contain no dtype or device code.  The engine owns the head.
    """

    title: ClassVar[str] = ""
    """Display name in tables; the registered name if empty."""
    paper: ClassVar[Paper | None] = None
    equation: ClassVar[str] = ""
    """One line of LaTeX; x and h are token features, W is a pretrained weight [out, in]."""
    targets: ClassVar[str] = ""
    """Parts that the defaults modify, in words: "q, v", "after each block"."""
    evidence: ClassVar[Evidence] = "none"
    """How the implementation was verified, see `Evidence`."""
    differs: ClassVar[str] = ""
    """How the defaults differ from the authors' training code, in one or two sentences; empty if no way is known."""
    version: ClassVar[int] = 1
    """Raise it when the same spec comes to mean other mathematics; results of different versions never mix."""
    lr: ClassVar[float | None] = None
    """Learning rate that replaces the recipe's where that is known to fail; give the source."""
    search: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Tuning grid: field name -> values."""
    frozen_features: ClassVar[bool] = False
    """True if training never changes the features; the engine may then compute them once."""
    starts_as_identity: ClassVar[bool] = True
    """True if the injected model initially computes exactly what the pretrained model does."""
    stands_for_many: ClassVar[bool] = False
    """True for a wrapper that is only useful with arguments; `--methods all` excludes it."""
    restores_without_examples: ClassVar[bool] = False
    """For methods with `prepare`: True if the adapter's tensors contain every choice made there and `prepare` creates
    no tensors.  An adapter can then be restored without training images."""
    copies: ClassVar[int] = 1
    """Copies of a training batch that pass the model together, [images, images, ...]; `loss` gets all their logits."""
    needs_whole_batch: ClassVar[bool] = False
    """True if the gradient of a batch is not the mean over its parts, as with batch norms or a loss between images.

    Then a batch is never split: a run fails where memory does not hold it.
    """
    backbones: ClassVar[tuple[Family, ...]] = ("vit",)
    """Supported backbone families; others are refused before training."""
    needs: ClassVar[str | None] = None
    """Package that `inject` imports; an extra of this name installs it."""
    part_types: ClassVar[tuple[type["Method"], ...]] = ()
    """Classes of the methods that a combination consists of."""

    def __post_init__(self) -> None:
        for name, value in coerce(type(self), self.args()).items():
            object.__setattr__(self, name, value)
        self.validate()

    def validate(self) -> None:
        """Check rules that type annotations cannot express, such as one field dividing another.

        Raises:
            ValueError: the hyper-parameters are invalid.
        """

    def validate_backbone(self, vit: Any) -> None:
        """Check rules that `backbones` cannot express, before a run starts; `vit` is unmodified.

        Raises:
            ValueError: the method does not support this model.
        """

    def inject(self, vit: Any) -> None:
        """Modify `vit` in place: add modules and unfreeze what the method trains.

        If the features get another width, set `vit.num_features` to it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define inject(vit)")

    def expected_params(self, vit: Any) -> int:
        """Return the number of trainable parameters without the head, for the unmodified `vit`.

        Override it with a closed form to verify `inject`.  By default a modified copy is counted.
        """
        injected = copy.deepcopy(vit).requires_grad_(False)
        self.inject(injected)
        return sum(parameter.numel() for parameter in injected.parameters() if parameter.requires_grad)

    def prepare(self, vit: Any, images: Tensor, labels: Tensor) -> None:
        """Use the training data once, after `inject` and before training, on the training device.

        images: [n, 3, height, width], normalised; labels: [n].  Remaining gradients are discarded.
        """

    def loss(self, vit: Any, logits: Tensor, labels: Tensor, cross_entropy: Loss) -> Tensor:
        """Return the mean training loss of a batch, or of a micro-batch if the batch does not fit into memory.

        logits: [copies * n, classes], one copy after the other; labels: [n].  cross_entropy: maps logits [n, classes]
        and labels [n] to their mean cross-entropy, with the recipe's label smoothing.
        """
        return cross_entropy(logits, labels)

    def penalty(self, vit: Any) -> Tensor | None:
        """Return a loss term that does not depend on the batch, added once per step, or None."""
        return None

    def lr_factors(self, vit: Any) -> Mapping[nn.Parameter, float]:
        """Return factors of the learning rate, warm-up and final rate included; tensors that it omits have 1.

        They may depend on the hyper-parameters, which are part of the run ID.  The head has the recipe's rate.
        """
        return {}

    def after_step(self, vit: Any, step: int, steps: int) -> None:
        """Run after each optimiser step, before gradients are cleared; `step` counts from 1 to `steps`."""

    def merge(self, vit: Any) -> None:
        """Fold the trained parameters into the plain timm model, in fp32, in place.

        Raises:
            TypeError: weights of the plain model cannot express the method.
        """
        raise TypeError(f"{self.spec()} cannot be merged into the plain model")

    @classmethod
    def mergeable(cls) -> bool:
        """Return True if the class defines `merge`."""
        return cls.merge is not Method.merge

    def skip_tokens(self, vit: Any) -> None:
        """Let evaluation leave out the work for tokens whose result would be masked, in place.

        The features stay the same up to rounding.  The suite evaluates with masks; `cost` measures what skipping saves.
        """

    @classmethod
    def skips_tokens(cls) -> bool:
        """Return True if the class defines `skip_tokens`."""
        return cls.skip_tokens is not Method.skip_tokens

    def args(self) -> dict[str, Any]:
        """Return all hyper-parameters by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def hashed_args(self) -> dict[str, Any]:
        """Return the hyper-parameters of the run ID: all, except those added `later` that have their default."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not self._is_left_out(f)}

    def _is_left_out(self, of: Field[Any]) -> bool:
        return "later" in of.metadata and getattr(self, of.name) == of.default

    def variants(self) -> list["Method"]:
        """Return this method and the valid combinations of its `search` grid.

        Arguments that differ from their defaults are kept fixed.

        Raises:
            ValueError: a value of the grid does not have the type of its field.
        """
        for name, values in self.search.items():
            for value in values:
                try:
                    coerce(type(self), {name: value})
                except ValueError as error:
                    raise ValueError(
                        f"{self.spec()}: its `search` has a wrong value, correct it in the class: {error}"
                    ) from None
        free = [f.name for f in fields(self) if f.name in self.search and getattr(self, f.name) == default_of(f)]
        found = {self.spec(): self}
        for values in product(*(self.search[name] for name in free)):
            try:
                variant = replace(self, **dict(zip(free, values, strict=True)))
            except ValueError:  # two values of the grid exclude each other
                continue
            found.setdefault(variant.spec(), variant)
        return list(found.values())

    def spec(self) -> str:
        """Return the shortest text that `parse` turns back into this method, such as `lora(rank=4)`."""
        values = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != default_of(f)]
        changed = [f"{name}={value!r}" for name, value in values]
        name = method_name(type(self))
        return f"{name}({', '.join(changed)})" if changed else name


def check_backbone(method: Method, vit: nn.Module) -> None:
    """Raise `ValueError` if the method does not support this backbone; the message says why."""
    family = backbone_family(vit)
    if family not in method.backbones:
        others = ", ".join(sorted(name for name, cls in METHODS.items() if family in cls.backbones))
        supported = " or ".join(FAMILIES[name] for name in method.backbones)
        raise ValueError(
            f"{method.spec()} is made for {supported}, and this is {FAMILIES[family]}; on it run: {others}"
        )
    try:
        method.validate_backbone(vit)
    except ValueError as error:
        raise ValueError(f"{method.spec()} does not support this backbone: {error}") from None


M = TypeVar("M", bound=Method)


@dataclass_transform(frozen_default=True, field_specifiers=(later,))
def method(name: str) -> Callable[[type[M]], type[M]]:
    """Return a class decorator that makes a frozen dataclass and registers it in `METHODS`.

    Each instance checks its fields against their annotations, see `arguments.coerce`, and then calls `validate`.

    A class of a notebook or script replaces an earlier one of the same name, so that a cell can be run again.

    Raises:
        TypeError: the name is missing, or the class does not inherit from `Method`.
        ValueError: a class attribute such as `version` has another type, the name is taken, is a word such as `all` or
            is not lower-case letters, digits and underscores, a field has no default or the name of a function of
            `Method`, or the class defines `__post_init__`.
    """
    if not isinstance(name, str):
        raise TypeError('the decorator needs a name: write @method("my_method")')

    def register(cls: type[M]) -> type[M]:
        if not issubclass(cls, Method):
            raise TypeError(f"method {name!r}: {cls.__name__} must inherit from Method or LinearUpdateMethod")
        if (known := METHODS.get(name)) and not _is_same_class(known, cls):
            raise ValueError(f"the method name {name!r} is taken, by {known.__name__} of {_source(known)}")
        if not (name.isidentifier() and name.isascii()) or name != name.lower():
            raise ValueError(f"method name {name!r} must be lower-case letters (a to z), digits and underscores")
        if iskeyword(name) or name == "all":
            raise ValueError(f"method name {name!r} has another meaning in --methods; choose another")
        if "__post_init__" in vars(cls):
            raise ValueError(f"method {name!r} must define validate() instead of __post_init__(), which checks types")
        without_inherited(cls, Method)
        if problem := wrong_fact(cls):
            raise ValueError(f"method {name!r}: {problem}")
        decorated = dataclass(frozen=True)(cls)
        for own in fields(decorated):
            if callable(getattr(Method, own.name, None)):
                raise ValueError(f"method {name!r}: the argument {own.name!r} hides Method.{own.name}(); rename it")
            if own.default is MISSING and own.default_factory is MISSING:
                raise ValueError(f"method {name!r}: the argument {own.name!r} has no default; give it one")
        if unknown := [field for field in decorated.search if field not in decorated.__dataclass_fields__]:
            raise ValueError(f"method {name!r}: search names {unknown[0]}, which is no argument; correct or remove it")
        METHODS[name] = decorated
        return decorated

    return register


def default_specs() -> list[str]:
    """Return the methods that `--methods all` runs: every method whose packages are installed, at its defaults."""
    missing = missing_packages()
    return [name for name, cls in METHODS.items() if cls.needs not in missing and not cls.stands_for_many]


def missing_packages() -> set[str]:
    """Return the packages that registered methods need and that are not installed."""
    return {needs for needs in {cls.needs for cls in METHODS.values()} if needs and find_spec(needs) is None}


def method_name(cls: type[Method]) -> str:
    """Return the name under which a class is registered; for a combination those of its parts, as `lora+bitfit`."""
    if cls.part_types:
        return "+".join(map(method_name, cls.part_types))
    return next(name for name, registered in METHODS.items() if registered is cls or _is_same_class(registered, cls))


def _source(cls: type[Method]) -> str:
    """Return the module of a class, or the file if that is a plug-in, whose module has a made-up name."""
    return cls.__module__ if "." in cls.__module__ else getattr(sys.modules.get(cls.__module__), "__file__", "__main__")


def _is_same_class(old: type[Method], new: type[Method]) -> bool:
    """Return True for two definitions of one class of a notebook or script."""
    return old.__module__ == new.__module__ == "__main__" and old.__qualname__ == new.__qualname__
