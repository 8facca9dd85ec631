"""Define a run: the protocol, the recipe and the spec whose hash is the run ID.

`RunSpec` holds everything that can change the accuracy, and nothing else.  It is plain data without torch.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, cast

import msgspec

from ..datasets.schema import Count, Invalid, Positive, Whole, from_json, from_values
from .canonical import Part, canonical_json, digest, fingerprint, versioned_field

PROTOCOL = 1
"""Version of the evaluation protocol; part of every run ID.

1: train on train800 + val200 (`split="test"`) or on train800 (`split="val"`).  Evaluate the trained, unmerged model
   once, after the last epoch, on test or on val200.
"""

OTHERS = "others"
"""Key of `Recipe.tasks` for the tasks without a table."""

Number = float | int
"""A finite number.  Whole numbers stay whole, because run IDs hash 3 and 3.0 differently."""
ImageSize = Annotated[int, msgspec.Meta(ge=1, le=4096)]  # pixels; larger models fit into no memory (ours)


@dataclass(frozen=True, kw_only=True)
class Recipe(Part):
    """All hyper-parameters of training.

    No field has a default, so that every choice is visible; only those added after results existed have a neutral one.
    The hash of the fields is part of the run ID: declare new fields with `versioned_field`.
    """

    name: str
    source: str
    """Source of the values: paper and table, repository path, or "ours" with the reason."""
    optimizer: Literal["adamw", "sgd"]
    lr: Number
    """Peak learning rate; a method's own `lr` replaces it, unless `lr_for_all`."""
    lr_for_all: bool = versioned_field(False)
    """True if the user chose `lr`: it then also holds for methods with their own."""
    weight_decay: Number
    decayed: Literal["all", "matrices", "no biases, no norms"]
    """Weight-decay parameters: all, those with at least two axes, or all except biases and LayerNorms."""
    momentum: Number
    """Momentum of SGD; AdamW uses betas 0.9 and 0.999."""
    epochs: Whole
    probe_epochs: Whole
    """Epochs of methods with frozen features, which train on cached features."""
    warmup_epochs: Number
    """Epochs of linear warm-up from `warmup_lr` to `lr`."""
    warmup_lr: Number
    min_lr: Number
    cooldown_epochs: Number
    """Extra epochs at `min_lr`, the final rate of the cosine."""
    schedule_per: Literal["step", "epoch"]
    schedule_lag: int = versioned_field(0)
    """Delay of the schedule in epochs: 1 if `step(epoch)` is called after epoch `epoch` (two epochs at `warmup_lr`)."""
    cosine_from: Literal["warmup", "start"] = versioned_field("warmup")
    """Begin of the cosine: after the warm-up, or at epoch 0, hidden by the warm-up (timm's default)."""
    cosine_epochs: float | int | None = versioned_field(None)
    """Epoch at which the cosine reaches `min_lr`; None: `epochs`.  Training may end before it, as Hydra's does."""
    warmup_until: Literal["end", "last epoch"] = versioned_field("end")
    """Point at which the warm-up reaches `lr`: its end, or already its last epoch, as in Adapter+."""
    batch_size: Whole
    drop_last: bool
    drop_path: Number
    """Rate of stochastic depth in the last block; it grows linearly from 0 with depth."""
    branch_dropout: Number
    """Rate of element-wise dropout on branch outputs, growing in the same way ("drop path" of RLRR and AOFT)."""
    mlp_dropout: float | int = versioned_field(0.0)
    """Rate of dropout after both layers of each MLP, equal in all blocks."""
    label_smoothing: Number
    clip_norm: Number | None
    clip_value: float | int | None = versioned_field(None)
    """Largest absolute entry of a gradient; larger entries are cut to it, as in DA-VPT."""
    head_init: Literal["trunc_normal", "normal", "zeros", "uniform", "kaiming"]
    """Initialisation of the head's weight [k, d]; the bias is zero.

    trunc_normal: sigma 0.02, cut at 2 sigma; normal: sigma 0.01; uniform: up to 1/sqrt(d); kaiming: sigma sqrt(2/k).
    """
    image_size: ImageSize | None
    """Side in pixels; None: the backbone's own size, filled in before hashing."""
    framing: Literal["squash", "squash_crop", "square_crop"] = versioned_field("squash")
    """Resize mode, see `datasets.pixels.Preprocessing`."""
    augmentation: Literal["none", "flip", "crop_flip"]
    """Augmentation of training images: random flip, or random crop and flip.  Evaluation uses the centre crop."""
    precision: Literal["bf16", "fp32"]
    tuned: bool
    """True if the values were tuned per method or task; tables mark untuned recipes."""
    tasks: Mapping[str, Mapping[str, Any]] = versioned_field({})
    """Task -> fields that it replaces; empty: all tasks use the same values.  `OTHERS` stands for all other tasks."""
    search: Mapping[str, tuple[Number, ...]] = versioned_field({})
    """Search space of `tune`: field -> values; empty: the default space of `commands.tuning_space`."""

    def __post_init__(self) -> None:
        problems = []
        lowest = {"epochs": 1, "probe_epochs": 1, "batch_size": 1, "lr": 0, "weight_decay": 0}
        for name, low in {**lowest, "cosine_epochs": self.epochs}.items():
            if (value := getattr(self, name)) is not None and value < low:
                problems.append(f"{name} must be at least {low}, not {value}")
        for name in ("drop_path", "branch_dropout", "mlp_dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                problems.append(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if self.drop_path and self.branch_dropout:
            problems.append("drop_path and branch_dropout exclude each other")
        if self.augmentation == "crop_flip" and self.framing == "squash":
            problems.append("augmentation 'crop_flip' needs framing 'squash_crop' or 'square_crop'")
        if self.warmup_epochs > self.epochs:
            problems.append(f"warmup_epochs ({self.warmup_epochs}) exceeds epochs ({self.epochs})")
        if problems:
            raise ValueError(f"recipe {self.name!r}: " + "; ".join(problems))

    @property
    def base(self) -> str:
        """`name:hash` of the recipe before `resolve`; part of a leaderboard's identity."""
        return f"{self.name}:{fingerprint(self.hashed(), 8)}"

    def hashed(self) -> dict[str, Any]:
        """Return the fields that can change the accuracy, without versioned fields at their neutral value."""
        known = {name: value for name, value in asdict(self).items() if name not in ("source", "tuned")}
        return {name: value for name, value in known.items() if self.neutral().get(name, ...) != value}

    @classmethod
    def neutral(cls) -> dict[str, Any]:
        """Return the neutral value of each versioned field."""
        return {f.name: f.metadata["neutral"] for f in fields(cls) if "neutral" in f.metadata}

    def for_task(self, task: str) -> "Recipe":
        """Return the recipe for one task: its values filled in, table and search space removed.

        Raises:
            ValueError: The recipe has a table without this task.
        """
        own = self.tasks.get(task, self.tasks.get(OTHERS, {}))
        if self.tasks and not {task, OTHERS} & set(self.tasks):
            raise ValueError(
                f"recipe {self.name!r} has no values for task {task!r}, only for {', '.join(self.tasks)}; "
                "use a recipe with the same values for all tasks, such as uniform"
            )
        return replace(self, **own, tasks={}, search={})

    def rate_for(self, own: float | None) -> float:
        """Return the learning rate of a method whose own is `own`; a tuned recipe keeps its, chosen for the task."""
        return self.lr if self.tuned or self.lr_for_all else own or self.lr

    def for_probe(self) -> "Recipe":
        """Return the recipe for frozen features: the schedule scaled to `probe_epochs`, no dropout in the backbone."""
        stretch = self.probe_epochs / self.epochs
        return replace(
            self,
            epochs=self.probe_epochs,
            warmup_epochs=min(self.warmup_epochs * stretch, self.probe_epochs),  # rounding may exceed the epochs
            cosine_epochs=self.cosine_epochs and self.cosine_epochs * stretch,
            cooldown_epochs=self.cooldown_epochs * stretch,
            **dict.fromkeys(("drop_path", "branch_dropout", "mlp_dropout"), 0.0),
        )


@dataclass(frozen=True, kw_only=True)
class BackboneRef(Part):
    """A frozen backbone: timm's name with its tag, and the SHA-256 of its weights."""

    name: str
    sha256: str
    """SHA-256 of the file of the weights; for a model of a plug-in, of both hashes."""


@dataclass(frozen=True, kw_only=True)
class TaskRef(Part):
    """A task and its data."""

    suite: str
    name: str
    version: Positive
    data: str
    """Hash of split lists, labels and image bytes."""
    provenance: str
    """Provenance of the images: "lossless", "jpeg75" or "own"."""


@dataclass(frozen=True, kw_only=True)
class MethodRef(Part):
    """A method with all its hyper-parameters, including defaults."""

    name: str
    args: dict[str, Any]
    version: Positive
    plugin: str | None
    """SHA-256 of the plug-in file; None for built-in methods."""
    spec: str
    """Short form as typed, without defaults; derived from the rest, so not hashed."""
    asked: str | None = None
    """Short form given to `tune`, where it chose the arguments; None: the user chose them."""

    @cached_property
    def args_json(self) -> str:
        """Canonical JSON of all hyper-parameters."""
        return canonical_json(self.args)

    def hashed(self) -> dict[str, Any]:
        """Return the fields that can change the accuracy."""
        known = {"name": self.name, "args": self.args, "version": self.version, "plugin": self.plugin}
        return known if self.asked is None else known | {"asked": self.asked}


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """The specification of a run: everything that can change its accuracy, and nothing else."""

    backbone: BackboneRef
    task: TaskRef
    method: MethodRef
    recipe: Recipe
    """Resolved recipe: the method's learning rate, the task's values and the image size are filled in."""
    recipe_base: str
    """`Recipe.base` of the recipe before it was resolved."""
    split: Literal["val", "test"]
    seed: Count
    mean: tuple[Number, Number, Number]
    std: tuple[Number, Number, Number]
    interpolation: Literal["bicubic", "bilinear"]

    def __post_init__(self) -> None:
        if not min(self.std) > 0:
            raise ValueError(f"std must be positive, not {self.std}")

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return json.loads(canonical_json(asdict(self)))

    @classmethod
    def from_json(cls, data: Any) -> "RunSpec":
        """Build a spec from JSON values.

        Raises:
            Invalid: `data` is not a spec of this version of the code; the message names the field.
        """
        return from_json(canonical_json(data), SpecText).build()

    def with_seed(self, seed: int) -> "RunSpec":
        """Return the spec with another seed; both share the canonical text, which makes run IDs fast."""
        _ = self._text_around_seed
        other = object.__new__(RunSpec)
        other.__dict__.update(self.__dict__, seed=seed)
        other.__dict__.pop("_run_id", None)
        return other

    def run_id(self) -> str:
        """Return the run ID, 16 hexadecimal digits; equal specs have equal IDs on every machine."""
        return self._run_id

    @cached_property
    def _run_id(self) -> str:
        before, after = self._text_around_seed
        return digest(f"{before}{self.seed:d}{after}")

    @cached_property
    def _text_around_seed(self) -> tuple[str, str]:
        """Canonical JSON of protocol and spec before and after the value of the seed."""
        values = {"protocol": PROTOCOL} | {f.name: getattr(self, f.name) for f in fields(self)}
        texts = {name: v.canonical if isinstance(v, Part) else canonical_json(v) for name, v in values.items()}
        items = [f'"{name}":{text}' for name, text in sorted(texts.items())]
        seed = sorted(texts).index("seed")
        return f'{{{",".join(items[:seed])},"seed":', f",{','.join(items[seed + 1 :])}}}"


class SpecText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A spec in a JSON file, whose parts are still text, because thousands of files share them."""

    backbone: msgspec.Raw
    task: msgspec.Raw
    method: msgspec.Raw
    recipe: msgspec.Raw
    recipe_base: str
    split: Literal["val", "test"]
    seed: Count
    mean: msgspec.Raw
    std: msgspec.Raw
    interpolation: Literal["bicubic", "bilinear"]

    def build(self, field: str = "") -> RunSpec:
        """Return the spec; raise `Invalid`, with the path of the value below `field`, if a part is not valid."""
        parts = tuple(bytes(getattr(self, name)) for name in _PARTS)
        return _without_seed(parts, self.recipe_base, self.split, self.interpolation, field).with_seed(self.seed)


_PARTS: dict[str, Any] = {
    **{"backbone": BackboneRef, "task": TaskRef, "method": MethodRef, "recipe": Recipe},
    **dict.fromkeys(("mean", "std"), tuple[Number, Number, Number]),
}
"""Fields of `RunSpec` that many runs share, and their types."""


@lru_cache(maxsize=4096)
def _without_seed(parts: tuple[bytes, ...], recipe_base: str, split: Any, interpolation: Any, field: str) -> RunSpec:
    """Build the spec with seed 0; thousands of records differ only in the seed."""
    values = {n: _part(n, text, f"{field}.{n}".removeprefix(".")) for n, text in zip(_PARTS, parts, strict=True)}
    try:
        return RunSpec(**values, recipe_base=recipe_base, split=split, seed=0, interpolation=interpolation)
    except ValueError as error:
        raise Invalid(str(error), field) from None


@lru_cache(maxsize=4096)
def _part(name: str, text: bytes, field: str) -> Any:
    """Build a part from its JSON text, which thousands of records share; raise `Invalid` if it is not valid."""
    kind = _PARTS[name]
    if not is_dataclass(kind):
        return from_json(text, kind, field)
    values = from_json(text, dict[str, Any], field)
    if unknown := values.keys() - {f.name for f in fields(kind)}:
        raise Invalid("is an unknown field", f"{field}.{min(unknown)}")
    return from_values({**(Recipe.neutral() if kind is Recipe else {}), **values}, cast(type, kind), field)
