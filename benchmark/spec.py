"""What a run is: the protocol, the recipe and the spec whose hash names the result.

Everything that can change the number is in `RunSpec`, and nothing else.  A spec is plain data: it is
built, hashed and compared without torch, so a plan can be made on any machine.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

PROTOCOL = 1
"""Version of the rules every result obeys; it is hashed into every key.

1: train on train800 + val200 (`split="test"`) or on train800 (`split="val"`); evaluate once, after the
   last epoch, the trained unmerged model, on test or on val200.
"""


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, ASCII; floats as Python prints them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of a JSON-able value."""
    return digest(canonical_json(value), length)


def digest(text: str, length: int = 16) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def versioned_field(neutral: Any) -> Any:
    """A recipe field that came after results existed: at `neutral`, what was done before, keys stay as they were."""
    return field(metadata={"neutral": neutral})


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a spec is made of.  Many specs share a part, and its text is made once: a plan has 50,000 keys."""

    def hashed(self) -> dict[str, Any]:
        """All that can change a number."""
        return asdict(self)

    @cached_property
    def canonical(self) -> str:
        return canonical_json(self.hashed())


@dataclass(frozen=True, kw_only=True)
class Recipe(Part):
    """Every number of the training protocol.  No field has a default: a recipe hides no choice.

    Results hang on the hash of its fields, so a new field is declared with `versioned_field`.
    """

    name: str
    source: str
    """Where the numbers come from: paper and table, repository path, or "ours" with the reason."""
    optimizer: Literal["adamw", "sgd"]
    lr: float
    """Peak learning rate; a method's own `lr` replaces it (and is printed in every table)."""
    weight_decay: float
    decayed: Literal["all", "matrices", "no biases, no norms"]
    """What weight decay acts on: every trainable tensor, those with two or more axes, or those whose own name does not
    say bias and that are no LayerNorm's."""
    momentum: float
    """Of SGD; AdamW uses betas 0.9 and 0.999."""
    epochs: int
    probe_epochs: int
    """Epochs of methods that leave the features as they are: they train on cached features in seconds."""
    warmup_epochs: float
    """Linear from `warmup_lr` to `lr`."""
    warmup_lr: float
    min_lr: float
    """Where the cosine ends."""
    cooldown_epochs: float
    """Extra epochs at `min_lr` after the cosine."""
    schedule_per: Literal["step", "epoch"]
    schedule_lag: int = versioned_field(0)
    """Epochs that the schedule is late: 1 where `step(epoch)` is called after epoch `epoch`, so that the first two run
    at `warmup_lr`."""
    cosine_from: Literal["warmup", "start"] = versioned_field("warmup")
    """Where the cosine is at its top: after the warm-up, or at epoch 0, under the warm-up (timm's default)."""
    batch_size: int
    drop_last: bool
    drop_path: float
    """Stochastic depth; the rate grows linearly from 0 to this with depth."""
    branch_dropout: float
    """Element-wise dropout on each branch output instead, growing the same way (RLRR's and AOFT's "drop path")."""
    mlp_dropout: float = versioned_field(0.0)
    """Dropout after both layers of each MLP, the same in every block."""
    label_smoothing: float
    clip_norm: float | None
    head_init: Literal["trunc_normal", "zeros", "uniform", "kaiming"]
    """Of the weight [k, d]: sigma 0.02, cut at 2 sigma; zeros; uniform up to 1/sqrt(d), as torch's own; normal with
    sigma sqrt(2/k).  The bias starts at zero."""
    image_size: int | None
    """Side in pixels; None: what the backbone was trained at (resolved before it is hashed)."""
    framing: Literal["squash", "squash_crop", "square_crop"] = versioned_field("squash")
    """How images come to the model's size, as `datasets.pixels.Preprocessing` says; results of before squashed all."""
    augmentation: Literal["none", "flip", "crop_flip"]
    """Of training images: mirrored at random, or cut at random and mirrored.  Evaluation takes the centre."""
    precision: Literal["bf16", "fp32"]
    tuned: bool
    """Whether its numbers were tuned per method or task; tables made with an untuned recipe say so."""
    tasks: Mapping[str, Mapping[str, Any]] = versioned_field({})
    """Task -> the fields that it replaces; empty: the same numbers for all."""
    search: Mapping[str, tuple[float, ...]] = versioned_field({})
    """What `tune` searches: field -> values; empty: `tuning.FACTORS` and `tuning.WEIGHT_DECAYS`."""

    def __post_init__(self) -> None:
        problems = []
        for name, low in [("epochs", 1), ("probe_epochs", 1), ("batch_size", 1), ("lr", 0), ("weight_decay", 0)]:
            if getattr(self, name) < low:
                problems.append(f"{name} must be at least {low}, not {getattr(self, name)}")
        for name in ("drop_path", "branch_dropout", "mlp_dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                problems.append(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if self.drop_path and self.branch_dropout:
            problems.append("drop_path and branch_dropout exclude each other")
        if self.augmentation == "crop_flip" and self.framing == "squash":
            problems.append("augmentation 'crop_flip' needs a framing that leaves something to cut off")
        if self.warmup_epochs > self.epochs:
            problems.append(f"warmup_epochs ({self.warmup_epochs}) exceeds epochs ({self.epochs})")
        if problems:
            raise ValueError(f"recipe {self.name!r}: " + "; ".join(problems))

    @property
    def base(self) -> str:
        """`name:hash` of the recipe as named, before anything is resolved: what a board is made with."""
        return f"{self.name}:{fingerprint(self.hashed(), 8)}"

    def hashed(self) -> dict[str, Any]:
        """All that can change a number; what came later only where it does."""
        known = {name: value for name, value in asdict(self).items() if name not in ("source", "tuned")}
        return {name: value for name, value in known.items() if self.neutral().get(name, ...) != value}

    @classmethod
    def neutral(cls) -> dict[str, Any]:
        """The later fields, each at the value that changes nothing."""
        return {f.name: f.metadata["neutral"] for f in fields(cls) if "neutral" in f.metadata}

    def for_task(self, task: str) -> "Recipe":
        """The numbers for one task: its row filled in, and neither table nor grid left.

        Raises:
            ValueError: the recipe has a table without this task.
        """
        if self.tasks and task not in self.tasks:
            raise ValueError(
                f"recipe {self.name!r} has no numbers for task {task!r}, only for {', '.join(self.tasks)}; "
                "take one that is the same for all tasks, such as uniform"
            )
        return replace(self, **self.tasks.get(task, {}), tasks={}, search={})

    def for_probe(self) -> "Recipe":
        """The recipe of a method that leaves the features as they are: the same shape over `probe_epochs`."""
        stretch = self.probe_epochs / self.epochs
        return replace(
            self,
            epochs=self.probe_epochs,
            warmup_epochs=self.warmup_epochs * stretch,
            cooldown_epochs=self.cooldown_epochs * stretch,
            drop_path=0.0,
            branch_dropout=0.0,
            mlp_dropout=0.0,
        )


@dataclass(frozen=True, kw_only=True)
class BackboneRef(Part):
    """A frozen ViT: timm's explicit name with its tag, and the hash of the weights it was loaded from."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class TaskRef(Part):
    """A task and the very data it was run on."""

    suite: str
    name: str
    version: int
    data: str
    """Hash of split lists, labels and image bytes."""
    provenance: str
    """"lossless", "jpeg75" or "own"."""


@dataclass(frozen=True, kw_only=True)
class MethodRef(Part):
    """A method with every hyper-parameter spelled out, also those left at their default."""

    name: str
    args: dict[str, Any]
    version: int
    plugin: str | None
    """SHA-256 of the plug-in file, None for a method of the suite."""
    spec: str
    """The short form people type, only what differs from the defaults; derived, so not hashed."""
    asked: str | None = None
    """The short form that `tune` was given, where it chose the arguments; None: they were given by hand."""

    def hashed(self) -> dict[str, Any]:
        known = {"name": self.name, "args": self.args, "version": self.version, "plugin": self.plugin}
        return known if self.asked is None else known | {"asked": self.asked}


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One cell: all that can change its number, nothing else."""

    backbone: BackboneRef
    task: TaskRef
    method: MethodRef
    recipe: Recipe
    """Resolved: the method's learning rate, the task's row and the image size are filled in."""
    recipe_base: str
    """`Recipe.base` of the recipe it was resolved from."""
    split: Literal["val", "test"]
    seed: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str

    def to_json(self) -> dict[str, Any]:
        return json.loads(canonical_json(asdict(self)))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "RunSpec":
        """Raises `ValueError` naming the field when `data` is not a spec of this version of the code."""
        try:
            parts = {name: _part(name, canonical_json(data[name])) for name in PARTS}
            return cls(**{**data, **parts, "mean": tuple(data["mean"]), "std": tuple(data["std"])})
        except (KeyError, TypeError, AttributeError) as error:
            known = ", ".join(f.name for f in fields(cls))
            raise ValueError(f"not a run spec ({error}); its fields are {known}") from None

    def run_id(self) -> str:
        """16 hexadecimal digits naming this cell; equal specs have equal keys, on every machine."""
        values = {"protocol": PROTOCOL, **{f.name: getattr(self, f.name) for f in fields(self)}}
        texts = {name: v.canonical if isinstance(v, Part) else canonical_json(v) for name, v in values.items()}
        return digest("{" + ",".join(f'"{name}":{text}' for name, text in sorted(texts.items())) + "}")


PARTS: dict[str, type[Part]] = {"backbone": BackboneRef, "task": TaskRef, "method": MethodRef, "recipe": Recipe}


@lru_cache(maxsize=4096)
def _part(name: str, text: str) -> Part:
    """A part of a spec from its JSON; thousands of records share a few.  Raises `TypeError` when it is none."""
    absent = Recipe.neutral() if name == "recipe" else {}
    return PARTS[name](**{**absent, **json.loads(text)})
