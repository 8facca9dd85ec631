"""The command `export`: save a trained run as an adapter, a plain timm model, or a Hugging Face peft adapter.

    adapter   adapter.safetensors                              read by `vtab-peft predict` and `analyze`
    merged    model.safetensors, config.json                   timm.create_model("local-dir:FOLDER", pretrained=True)
    peft      adapter_model.safetensors, adapter_config.json   PeftModel.from_pretrained(plain timm model, FOLDER)

Each folder also gets a README.md with the run's accuracy, spec and versions.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safetensors.torch import save

from ...datasets.raw.atomic_folder import atomic_folder
from ..checkpoints import peft_format
from ..checkpoints.header import with_metadata
from ..checkpoints.lookup import EXPORTED
from ..checkpoints.model_card import card
from ..checkpoints.restore import NotMergeable, TrainedModel, head_name, load_trained, timm_arguments, with_head
from ..storage.json_io import unwritable

CROPS = {"squash": ("squash", 1.0), "squash_crop": ("squash", 0.875), "square_crop": ("center", 0.875)}
"""Our resize modes as timm's `crop_mode` and `crop_pct`."""

FORMAT = {"format": "pt"}
"""Metadata by which readers of safetensors files know weights of PyTorch."""

FIRST_CONV = "patch_embed.proj"
"""The layer of ViTs and Swin Transformers that timm adapts to another number of input channels."""


def export(options: argparse.Namespace) -> int:
    """Run `vtab-peft export RUN --as FORM --output FOLDER`.

    Raises:
        ValueError: the method cannot be exported in this form, or the folder is not empty.
        StoreError: there is no such run, or the folder cannot be written.
    """
    folder = options.to
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already; give a new or empty folder as --output")
    run = load_trained(options.cell, options.results, options.weights, options.plugin, options.backbone)
    files = {"adapter": adapter, "merged": merged, "peft": peft}[options.form](run)
    files["README.md"] = card(run, options.form, folder.resolve().name).encode()
    try:
        with atomic_folder(folder.resolve()) as staged:
            for name, content in files.items():
                (staged / name).write_bytes(content)
            if folder.exists():
                folder.resolve().rmdir()  # it is empty
    except OSError as error:
        raise unwritable(folder, error) from None
    print(f"{run.spec.run_id()} as {options.form}: {folder}", file=sys.stderr)
    for name, content in files.items():
        print(f"{len(content):>12,} bytes  {folder / name}")
    return 0


def adapter(run: TrainedModel) -> dict[str, bytes]:
    """Return the saved adapter with the run's record in its metadata."""
    return {EXPORTED: run.checkpoint.to_bytes(run.record)}


@contextmanager
def _advising() -> Iterator[None]:
    """Name the form that every method has in the error of those that cannot be merged."""
    try:
        yield
    except NotMergeable as error:
        raise ValueError(f"{error}; export it with --as adapter") from None


@_advising()
def merged(run: TrainedModel) -> dict[str, bytes]:
    """Return fp32 weights and the configuration that timm loads."""
    plain = with_head(run.backbone, run.merged(), run.checkpoint.head)
    state = {name: tensor.detach().contiguous() for name, tensor in plain.state_dict().items()}
    config = timm_config(run, head_name(plain))
    return {"model.safetensors": with_metadata(save(state), FORMAT), "config.json": _json(config)}


def timm_config(run: TrainedModel, classifier: str) -> dict[str, Any]:
    """Return timm's `config.json`; `timm.data.resolve_model_data_config` reads the preprocessing from it.

    classifier: name of the linear layer that timm replaces for another number of classes.
    """
    spec, backbone, classes = run.spec, run.backbone, run.checkpoint.head.out_features
    architecture, arguments = timm_arguments(backbone, classes)
    mode, share = CROPS[spec.recipe.framing]
    return {
        "architecture": architecture,
        "num_classes": classes,
        "num_features": backbone.vit.num_features,
        "model_args": arguments,
        **({"label_names": run.class_names} if run.class_names else {}),
        "pretrained_cfg": {
            "num_classes": classes,
            "classifier": classifier,
            "first_conv": FIRST_CONV,
            "input_size": [3, backbone.image_size, backbone.image_size],
            "fixed_input_size": True,
            "interpolation": spec.interpolation,
            "crop_mode": mode,
            "crop_pct": share,
            "mean": list(spec.mean),
            "std": list(spec.std),
        },
    }


@_advising()
def peft(run: TrainedModel) -> dict[str, bytes]:
    """Return what `PeftModel.from_pretrained` loads onto the plain timm model with a head."""
    config, tensors = peft_format.lora(run)
    return {
        "adapter_model.safetensors": with_metadata(save(tensors), FORMAT),
        "adapter_config.json": _json(config),
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
