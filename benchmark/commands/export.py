"""The verb `export`: a trained cell as an adapter, as a plain timm model, or as an adapter of Hugging Face peft.

    adapter   adapter.safetensors          what was trained, with its spec: `vtab-peft predict` and `analyze` read it
    merged    model.safetensors, config.json      `timm.create_model("local-dir:FOLDER", pretrained=True)`
    peft      adapter_model.safetensors, adapter_config.json      `PeftModel.from_pretrained(plain timm model, FOLDER)`

Each with a README.md that says what it is, how good, and made of what.
"""

import argparse
import json
import sys
from typing import Any

from safetensors.torch import save

from ..checkpoints import peft_format
from ..checkpoints.adapter_checkpoint import in_order
from ..checkpoints.lookup import EXPORTED
from ..checkpoints.model_card import card
from ..checkpoints.restore import TrainedModel, load_trained, timm_arguments, with_head
from ..storage.json_io import write_atomically

CROPS = {"squash": ("squash", 1.0), "squash_crop": ("squash", 0.875), "square_crop": ("center", 0.875)}
"""Our framings as timm's `crop_mode` and `crop_pct`."""


def export(options: argparse.Namespace) -> int:
    """`vtab-peft export KEY_OR_PATH --as FORM --to FOLDER`.

    Raises:
        ValueError: the cell cannot be had in this form, or the folder is taken.
        StoreError: there is no such cell, or the folder cannot be written.
    """
    if options.to.exists() and (not options.to.is_dir() or any(options.to.iterdir())):
        raise ValueError(f"{options.to} is there already; give a folder that is new or empty as --to")
    cell = load_trained(options.cell, options.results, options.weights, options.plugin)
    files = {"adapter": adapter, "merged": merged, "peft": peft}[options.form](cell)
    files["README.md"] = card(cell, options.form, options.to.resolve().name).encode()
    for name, content in files.items():
        write_atomically(options.to / name, content)
    print(f"{cell.spec.run_id()} as {options.form}: {options.to}", file=sys.stderr)
    for name, content in files.items():
        print(f"{len(content):>12,} bytes  {options.to / name}")
    return 0


def adapter(cell: TrainedModel) -> dict[str, bytes]:
    """The kept file with the record in it."""
    return {EXPORTED: cell.kept.packed(**({"record": cell.record} if cell.record else {}))}


def merged(cell: TrainedModel) -> dict[str, bytes]:
    """What timm loads: fp32 weights, and how to build the model and to prepare images."""
    plain = with_head(cell.backbone, cell.merged(), cell.kept.head)
    state = {name: tensor.detach().contiguous() for name, tensor in plain.state_dict().items()}
    return {"model.safetensors": in_order(save(state, {"format": "pt"})), "config.json": _json(timm_config(cell))}


def timm_config(cell: TrainedModel) -> dict[str, Any]:
    """timm's `config.json`; `timm.data.resolve_model_data_config` reads the preprocessing from it."""
    spec, backbone, classes = cell.spec, cell.backbone, cell.kept.head.out_features
    architecture, arguments = timm_arguments(backbone, classes)
    mode, share = CROPS[spec.recipe.framing]
    return {
        "architecture": architecture,
        "num_classes": classes,
        "num_features": backbone.vit.num_features,
        "model_args": arguments,
        **({"label_names": cell.class_names} if cell.class_names else {}),
        "pretrained_cfg": {
            "num_classes": classes,
            "input_size": [3, backbone.image_size, backbone.image_size],
            "fixed_input_size": True,
            "interpolation": spec.interpolation,
            "crop_mode": mode,
            "crop_pct": share,
            "mean": list(spec.mean),
            "std": list(spec.std),
        },
    }


def peft(cell: TrainedModel) -> dict[str, bytes]:
    """What `PeftModel.from_pretrained` loads onto the plain timm model with a head."""
    config, tensors = peft_format.lora(cell)
    return {
        "adapter_model.safetensors": in_order(save(tensors, {"format": "pt"})),
        "adapter_config.json": _json(config),
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
