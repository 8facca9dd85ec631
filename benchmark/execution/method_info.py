"""Methods as plain data: what a worker finds out about the methods that a command names.  Imports torch when called."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from ...datasets.task import nearest
from ..canonical import canonical_json
from ..plan import MethodInfo
from ..recipes import ALIASES, FIELDS
from ..spec import MethodRef

if TYPE_CHECKING:
    from ...methods import Method
    from ..engine.backbone import Backbone


def all_methods(backbone: "Backbone") -> tuple[list["Method"], list[str]]:
    """Return the methods that `all` means for a backbone, and notes on those it leaves out."""
    from ...methods import METHODS, default_specs, parse
    from ...methods.anatomy import FAMILIES, backbone_family
    from ...methods.base import check_backbone, missing_packages

    family = backbone_family(backbone.vit)
    names = default_specs()
    candidates = [parse(name) for name in names if family in METHODS[name].backbones]
    fitting, notes = [], []
    if left_out := len(names) - len(candidates):
        notes.append(f"`all` leaves out {left_out} of {len(names)} methods, which do not support {FAMILIES[family]}")
    for method in candidates:
        try:
            check_backbone(method, backbone.vit)
            fitting.append(method)
        except ValueError as error:
            notes.append(f"`all` leaves out a method: {error}")
    for package in sorted(missing_packages()):
        needing = [name for name, cls in METHODS.items() if cls.needs == package and not cls.stands_for_many]
        if left_out := ", ".join(name for name in needing if family in METHODS[name].backbones):
            hint = f"package {package} is missing; pip install 'vtab-peft[{package}]'"
            notes.append(f"`all` leaves out {left_out}: {hint}")
    return fitting, notes


def variants_of(method: "Method", grid: Mapping[str, Sequence[Any]] | None) -> list["Method"]:
    """Return the points of the method's own grid, or of the given one, those with most default arguments first.

    Raises:
        ValueError: the method lacks an argument of the grid, has another value for it, or does not take a value.
    """
    from ...methods.base import default_of
    from ...methods.composed import Composed

    if grid is None:
        return method.variants()
    own, default = method.args(), {f.name: default_of(f) for f in fields(method)}
    if grid and isinstance(method, Composed):
        raise ValueError(
            f"--grid tries no arguments of a combination, so not {next(iter(grid))} of {method.spec()}; write them in "
            "--methods, as in 'lora(rank=4) + bitfit'"
        )
    for name in grid:
        if name not in own:
            near = nearest(ALIASES.get(name, name), [*own, *FIELDS])
            raise ValueError(
                f"--grid: {method.spec()} has no argument {name!r}{near}; it takes: "
                f"{', '.join(own) or 'no arguments'}.  Tune methods without it in another command"
            )
        if own[name] != default[name]:
            raise ValueError(f"--grid: {name} is fixed in {method.spec()}; leave it out of one of them")
    try:
        found = [replace(method, **dict(zip(grid, values, strict=True))) for values in product(*grid.values())]
    except (TypeError, ValueError) as error:
        raise ValueError(f"--grid: {method.spec()}: {error}") from None
    return sorted(found, key=lambda variant: sum(variant.args()[name] != own[name] for name in grid))


def trainable_params(method: "Method", backbone: "Backbone") -> int:
    """Return the number of parameters that the method trains on the backbone, without the head.

    Raises:
        ValueError: the method cannot be injected, such as with a rank above the width; then every run would fail.  Or
            it has parameters that no run would train.
    """
    import torch

    from ...methods import Method
    from ...methods.base import method_name
    from ...methods.plugin import described
    from ..engine.injection import wants_examples

    closed_form = type(method).expected_params is not Method.expected_params
    try:
        with torch.random.fork_rng(devices=[]):
            if closed_form and method.spec() != method_name(type(method)):  # it may count what cannot be injected
                method.inject(copy.deepcopy(backbone.vit))
            params = method.expected_params(backbone.vit)
    except Exception as error:
        raise ValueError(f"{method.spec()} does not fit {backbone.ref.name}: {described(error)}") from None
    if method.frozen_features and params:
        raise ValueError(
            f"{method.spec()} has frozen_features = True, with which a run trains the head alone, and {params:,} "
            "trainable parameters; remove frozen_features from the class"
        )
    if not (params or method.frozen_features or wants_examples(method)):
        raise ValueError(
            f"{method.spec()} trains no parameter of {backbone.ref.name}: let `inject` set new ones on modules of the "
            "model, or unfreeze its own. If it only changes features that no training changes, set frozen_features = "
            "True in the class"
        )
    return params


def method_ref(method: "Method") -> MethodRef:
    """Return the part of a spec that identifies a method."""
    from ...methods.base import method_name
    from ...methods.plugin import plugin_sha256

    return MethodRef(
        name=method_name(type(method)),
        args=json.loads(canonical_json(method.hashed_args())),  # no objects of a plug-in reach the parent
        version=method.version,
        plugin=plugin_sha256(method),
        spec=method.spec(),
    )


def identity(ref: MethodRef) -> tuple[str, str, int, str | None]:
    """Return what two references to one method share, however the user named it."""
    return ref.name, ref.args_json, ref.version, ref.plugin


def method_info(method: "Method", backbone: "Backbone") -> MethodInfo:
    """Return what a plan needs to know about a method."""
    return MethodInfo(
        ref=method_ref(method),
        title=method.title,
        lr=method.lr,
        frozen_features=method.frozen_features,
        trainable_params=trainable_params(method, backbone),
        arguments=tuple(method.args()),
    )
