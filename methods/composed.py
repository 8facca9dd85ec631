"""Several methods at once, such as `lora(rank=4) + bitfit`: they are injected one after another."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from .anatomy import FAMILIES, patch_convolution
from .base import Loss, Method, check_backbone, method_name
from .facts import EVIDENCE

CANNOT_INJECT = (AttributeError, IndexError, KeyError, RuntimeError, TypeError)
"""Errors of `inject` where another method has replaced a module that it looks for."""


@dataclass(frozen=True)
class Composed(Method):
    """Base class of combinations: the class for some types of parts is made by `compose`.

    The parts must train different tensors, and none may choose them from training images.
    """

    parts: tuple[Method, ...] = ()

    def __post_init__(self) -> None:
        """Leave out the checks of types, which the parts have passed."""

    def __reduce__(self) -> Any:
        """Copy and pickle by `compose`, as a module has no class of each combination."""
        return compose, (self.parts,)

    def spec(self) -> str:
        return " + ".join(part.spec() for part in self.parts)

    def args(self) -> dict[str, Any]:
        return {method_name(type(part)): part.args() for part in self.parts}

    def hashed_args(self) -> dict[str, Any]:
        return {method_name(type(part)): part.hashed_args() for part in self.parts}

    def variants(self) -> list[Method]:
        return [compose(parts) for parts in product(*(part.variants() for part in self.parts))]

    def validate_backbone(self, vit: Any) -> None:
        for part in self.parts:
            check_backbone(part, vit)

    def inject(self, vit: Any) -> None:
        """Inject one part after another.

        Raises:
            ValueError: two parts change the same module, or train the same tensor, or the model does not run, or no
                gradient reaches a tensor.
        """
        owners: dict[nn.Parameter, Method] = {}
        for part in self.parts:
            earlier = {name: p for name, p in vit.named_parameters() if p.requires_grad}
            vit.requires_grad_(False)  # so that what this part trains shows
            try:
                part.inject(vit)
            except CANNOT_INJECT as error:
                raise ValueError(
                    f"{part.spec()} does not find its modules after those before it in {self.spec()}: change the "
                    f"order, or combine methods that change different modules ({type(error).__name__}: {error})"
                ) from error
            remaining = {id(p) for p in vit.parameters()}
            if both := [name for name, p in earlier.items() if p.requires_grad or id(p) not in remaining]:
                raise ValueError(
                    f"{self.spec()}: {part.spec()} also trains or removes {both[0]}"
                    f"{f' and {len(both) - 1} more' if both[1:] else ''}, which a part before it trains; change the "
                    "order, or combine methods that train different tensors"
                )
            owners |= {parameter: part for parameter in vit.parameters() if parameter.requires_grad}
            for parameter in earlier.values():
                parameter.requires_grad_(True)
        try:
            idle = _without_gradient(vit)
        except CANNOT_INJECT as error:
            raise ValueError(
                f"the model with {self.spec()} does not run: change the order, or combine methods that change "
                f"different modules ({type(error).__name__}: {error})"
            ) from error
        if idle:
            raise ValueError(
                f"{self.spec()}: no gradient reaches {idle[0]}{f' and {len(idle) - 1} more' if idle[1:] else ''}, "
                f"which {owners[vit.get_parameter(idle[0])].spec()} trains; change the order, or leave it out"
            )

    def loss(self, vit: Any, logits: Tensor, labels: Tensor, cross_entropy: Loss) -> Tensor:
        own = next((part for part in self.parts if _has_own(type(part), "loss")), super())
        return own.loss(vit, logits, labels, cross_entropy)

    def penalty(self, vit: Any) -> Tensor | None:
        terms = [term for part in self.parts if (term := _penalty(part, vit)) is not None]
        return sum(terms[1:], terms[0]) if terms else None

    def lr_factors(self, vit: Any) -> Mapping[nn.Parameter, float]:
        return {parameter: factor for part in self.parts for parameter, factor in part.lr_factors(vit).items()}

    def after_step(self, vit: Any, step: int, steps: int) -> None:
        for part in self.parts:
            part.after_step(vit, step, steps)

    def merge(self, vit: Any) -> None:
        """Merge the last part first, or a part before it where that merges into what the other has replaced.

        Raises:
            TypeError: no order works.
        """
        waiting = list(reversed(self.parts))
        while waiting:
            part = next((part for part in waiting if _merges(part, vit)), None)
            if part is None:
                names = " and ".join(part.spec() for part in waiting)
                raise TypeError(f"{self.spec()} cannot be merged into the plain model: {names} change the same modules")
            part.merge(vit)
            waiting.remove(part)


def _penalty(part: Method, vit: Any) -> Tensor | None:
    """Return its penalty, which in a sum would hide that it has no gradient."""
    term = part.penalty(vit)
    if term is not None and not (isinstance(term, Tensor) and term.requires_grad):
        raise TypeError(
            f"`{type(part).__name__}.penalty` returned {term!r:.60}: it must return a scalar tensor that requires "
            "grad, or None"
        )
    return term


def compose(parts: Sequence[Method]) -> Method:
    """Return the combination of the methods, in the order of their injection.

    Raises:
        ValueError: a method appears twice, or is prepared with training images, or two have a loss of their own.
    """
    kinds = tuple(type(part) for part in parts)
    spec = " + ".join(part.spec() for part in parts)
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"{spec}: each method can be in a combination once")
    if chosen := [part.spec() for part in parts if _has_own(type(part), "prepare")]:
        raise ValueError(f"{spec}: {chosen[0]} is prepared with training images, and cannot be combined with others")
    if sum(_has_own(kind, "loss") for kind in kinds) > 1:
        raise ValueError(f"{spec}: only one method of a combination can have a loss of its own")
    if not (kind := _combination(kinds)).backbones:
        raise ValueError(f"{spec}: these methods support no backbone in common")
    return kind(tuple(parts))


@cache
def _combination(kinds: tuple[type[Method], ...]) -> type[Composed]:
    """Return the class of a combination, with the facts that follow from those of its parts."""
    rates = [kind.lr for kind in kinds if kind.lr]
    facts: dict[str, Any] = {
        "part_types": kinds,
        "title": " + ".join(kind.title or method_name(kind) for kind in kinds),
        "targets": "; ".join(kind.targets for kind in kinds),
        "evidence": max((kind.evidence for kind in kinds), key=EVIDENCE.index),
        "version": sum(kind.version for kind in kinds),  # grows with the version of any part
        "lr": min(rates) if rates else None,
        "frozen_features": all(kind.frozen_features for kind in kinds),
        "starts_as_identity": all(kind.starts_as_identity for kind in kinds),
        "stands_for_many": True,
        "copies": max(kind.copies for kind in kinds),
        "needs_whole_batch": any(kind.needs_whole_batch for kind in kinds),
        "backbones": tuple(family for family in FAMILIES if all(family in kind.backbones for kind in kinds)),
        "needs": next((kind.needs for kind in kinds if kind.needs), None),
    }
    if not all(kind.mergeable() for kind in kinds):
        facts["merge"] = Method.merge
    return type("Composed", (Composed,), facts)


def _merges(part: Method, vit: Any) -> bool:
    """Return True if a part can be merged now, tried on a copy."""
    try:
        part.merge(copy.deepcopy(vit))
    except CANNOT_INJECT:
        return False
    return True


def run_once(vit: Any) -> Tensor:
    """Return the features of one black image, so that modules show that do not fit together."""
    convolution = patch_convolution(vit)
    image = convolution.weight.new_zeros(1, convolution.in_channels, *vit.patch_embed.img_size)
    training = vit.training
    features = vit.eval()(image)
    vit.train(training)
    return features


@torch.enable_grad()
def _without_gradient(vit: Any) -> list[str]:
    """Return the names of trainable tensors that no gradient reaches."""
    features = run_once(vit)
    trained = {name: parameter for name, parameter in vit.named_parameters() if parameter.requires_grad}
    if not features.requires_grad:
        return list(trained)
    gradients = torch.autograd.grad(features.sum(), list(trained.values()), allow_unused=True)
    return [name for name, gradient in zip(trained, gradients, strict=True) if gradient is None]


def _has_own(kind: type[Method], name: str) -> bool:
    return getattr(kind, name) is not getattr(Method, name)
