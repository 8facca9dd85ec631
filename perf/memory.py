"""Count the memory of training: weights, optimiser state, and activations saved for the backward pass.

    python perf/memory.py --backbone vit_base_patch16_224.augreg_in21k --batch 64
    python perf/memory.py --backbone vit_huge_patch14_224.orig_in21k --batch 32 --checkpointing --methods lora

The count is made on the CPU, from the tensors that autograd saves for two images under bf16 autocast, with frozen
weights in bf16.  It is a lower bound, not a measured peak.  It excludes temporary memory of operations, the images
(151 MB for 1000 of 224 pixels), with `--checkpointing` the activations inside one block, and fragmentation.  Writes
perf/results/memory_<backbone>.json.
"""

import argparse

import torch
from measured import save
from torch import Tensor, nn
from vtab_peft.benchmark.engine.backbone import Backbone, load
from vtab_peft.benchmark.engine.fast_path import make_fast
from vtab_peft.benchmark.engine.injection import inject, wants_examples
from vtab_peft.benchmark.recipes import UNIFORM
from vtab_peft.benchmark.reporting.text_table import text_table
from vtab_peft.methods import parse

IMAGES = 2


def kept_bytes(vit: nn.Module, images: Tensor) -> int:
    """Return the bytes that autograd saves in a forward pass, without the model's tensors and the images."""
    own = {t.untyped_storage().data_ptr() for t in [*vit.parameters(), *vit.buffers(), images]}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        found.setdefault(tensor.untyped_storage().data_ptr(), tensor)  # alive, so that its address is not reused
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        vit(images).sum()
    return sum(t.untyped_storage().nbytes() for place, t in found.items() if place not in own)


def count(spec: str, backbone: Backbone, checkpointing: bool) -> dict[str, int]:
    """Return the bytes of all weights, of gradients with AdamW's two moments, and of the activations of an image."""
    method = parse(spec)
    images = torch.randn(IMAGES, 3, backbone.image_size, backbone.image_size)
    examples = (images, torch.arange(IMAGES)) if wants_examples(method) else None
    vit = inject(backbone.vit, method, UNIFORM, 0, examples).vit
    make_fast(vit, "bf16", "cuda")
    vit.train().set_grad_checkpointing(checkpointing)
    trained = sum(p.nbytes for p in vit.parameters() if p.requires_grad)
    return {
        "weights": sum(p.nbytes for p in vit.parameters()),
        "gradients_and_moments": 3 * trained,
        "kept_per_image": kept_bytes(vit, images) // IMAGES,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="vit_base_patch16_224.augreg_in21k")
    parser.add_argument("--methods", nargs="+", default=["lora", "aoft_lora", "adaptformer", "vpt_deep", "ssf", "full"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--checkpointing", action="store_true")
    options = parser.parse_args()
    backbone = load(options.backbone, "random")
    rows = []
    for spec in options.methods:
        found = count(spec, backbone, options.checkpointing)
        total = found["weights"] + found["gradients_and_moments"] + options.batch * found["kept_per_image"]
        rows.append(
            {"method": spec, "batch": options.batch, "checkpointing": options.checkpointing, **found, "total": total}
        )
    keys = ("weights", "gradients_and_moments", "kept_per_image", "total")
    header = ("method", "weights", "gradients, moments", "activations per image", f"total at batch {options.batch}")
    cells = [(row["method"], *(f"{row[key] / 1e9:.3f} GB" for key in keys)) for row in rows]
    print(text_table(header, cells, "l" + "r" * 4))
    name = options.backbone.partition(".")[0]
    save(f"memory_{name}", {"backbone": options.backbone, "rows": rows}, torch.device("cpu"))


if __name__ == "__main__":
    main()
