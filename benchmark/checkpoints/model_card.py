"""Model card of an exported model: results, training settings, and how to load it."""

import json
import shlex
from typing import Any

from ..escaping import markdown, terminal
from ..reporting.text_table import text_table
from ..reporting.wording import pluralize
from .restore import TrainedModel, head_name, timm_arguments, with_head

LIBRARY = {"adapter": "vtab-peft", "merged": "timm", "peft": "peft"}


def card(model: TrainedModel, form: str, folder: str) -> str:
    """Return the model card as Markdown with the header that model hubs read."""
    spec = model.spec
    tables = [
        ("Result", _result(model)),
        ("What it was trained on and how", _training(model)),
        ("Made with", _made_with(model.record)),
    ]
    head = "\n".join(["---", f"library_name: {LIBRARY[form]}", "pipeline_tag: image-classification", "---"])
    title = f"# {markdown(spec.method.spec)} on {markdown(spec.task.name)} ({markdown(spec.backbone.name)})"
    parts = [head, title, WHAT[form], _how(model, form, folder)]
    for name, rows in tables:
        table = text_table(["", ""], rows, "ll", "markdown")
        parts.append(f"## {name}\n\n{table}")
    if model.class_names:
        names = ", ".join(f"{index} {markdown(name)}" for index, name in enumerate(model.class_names))
        parts.append(f"## Classes\n\n{names}")
    return "\n\n".join(parts) + "\n"


WHAT = {
    "adapter": "The trained parameters and the classifier of one run of vtab-peft. The backbone is not included.",
    "merged": "A plain timm model: the trained update is folded into the weights, in fp32.",
    "peft": "The trained update as LoRA factors, and the classifier, for Hugging Face peft on the plain timm model. "
    "timm computes query, key and value with one linear layer, so an update of some of them is an update of the whole "
    "layer with rows of zeros. The factors come from its singular value decomposition, and `lora_alpha` equals `r`.",
}


def _how(model: TrainedModel, form: str, folder: str) -> str:
    name, arguments = timm_arguments(model.backbone, model.checkpoint.head.out_features)
    if form == "adapter":
        plugin = " --plugin FILE" if model.spec.method.plugin or model.backbone.plugin else ""
        return f"```\nvtab-peft predict FOLDER_OF_IMAGES --adapter {terminal(shlex.quote(folder))}{plugin}\n```"
    first = f"# first import the plug-in file that registers {name}; its SHA-256 is below"
    head = [*([first] if model.backbone.plugin else []), "import timm"]
    if form == "merged":
        lines = [*head, "", f"model = timm.create_model({f'local-dir:{folder}'!r}, pretrained=True).eval()"]
        lines += ["transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"]
        return "```python\n" + "\n".join(lines) + "\n```"
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    lines = [*head, "from peft import PeftModel", ""]
    lines += [f'plain = timm.create_model("{name}", {given})  # and the weights named below']
    lines += [f"model = PeftModel.from_pretrained(plain, {folder!r}).eval()"]
    return "```python\n" + "\n".join(lines) + "\n```\n\n" + _preparation(model)


def _preparation(model: TrainedModel) -> str:
    spec, head = model.spec, head_name(with_head(model.backbone, model.backbone.vit, model.checkpoint.head))
    return (
        f"Images are resized to {model.backbone.image_size} pixels ({spec.recipe.framing}, {spec.interpolation}) and "
        f"normalised by mean {_numbers(spec.mean)} and std {_numbers(spec.std)}. The classifier is `{head}`."
    )


def _result(model: TrainedModel) -> list[tuple[str, Any]]:
    if model.record is None:
        return [("accuracy", "not stored with this file")]
    result = model.record["result"]
    where = "test" if model.spec.split == "test" else "val"
    return [
        (f"accuracy, {where}, after the last epoch", f"{100 * result['accuracy']:.2f} % (seed {model.spec.seed})"),
        ("trainable parameters, without the head", f"{result['trainable_params']:,}"),
        ("parameters of the head", f"{result['head_params']:,}"),
        ("training", f"{result['train_seconds']:.0f} s on {model.record['provenance']['device']}"),
        ("evaluated as", f"trained, unmerged, {model.spec.recipe.precision}"),
    ]


def _training(model: TrainedModel) -> list[tuple[str, Any]]:
    spec, recipe = model.spec, model.spec.recipe
    epochs = pluralize(recipe.epochs, "epoch")
    return [
        ("run ID", spec.run_id()),
        ("method", f"{spec.method.spec}, version {spec.method.version}"),
        *([("SHA-256 of its plug-in file", spec.method.plugin)] if spec.method.plugin else []),
        ("all arguments", json.dumps(spec.method.args)),
        ("backbone", spec.backbone.name),
        *([("SHA-256 of its plug-in file", plugin)] if (plugin := model.backbone.plugin) else []),
        ("SHA-256 of its weights" + (" and that file" if plugin else ""), spec.backbone.sha256),
        ("task", f"{spec.task.suite}/{spec.task.name}, version {spec.task.version}"),
        ("data fingerprint", f"{spec.task.data} ({spec.task.provenance})"),
        ("recipe", f"{spec.recipe_base}: {epochs}, lr {recipe.lr:g}, batch {recipe.batch_size}"),
        ("images", f"{model.backbone.image_size} px, {recipe.framing}, {spec.interpolation}"),
        ("normalisation", f"mean {_numbers(spec.mean)}, std {_numbers(spec.std)}"),
    ]


def _made_with(record: dict[str, Any] | None) -> list[tuple[str, Any]]:
    if record is None:
        return [("versions", "not stored with this file")]
    made = record["provenance"]
    versions = ", ".join(f"{name} {number}" for name, number in sorted(made["versions"].items()))
    return [("when", made["created"]), ("versions", versions), ("commit", made.get("git_sha") or "unknown")]


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)
