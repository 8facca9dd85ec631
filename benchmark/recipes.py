"""The named training recipes.  Existing recipes are never edited; add a new entry instead.

Values that differ from task to task are in `recipe_tables/`, one CSV file per recipe; its first line names the source.
Only the values are taken from papers, not how they were selected: most authors report the best epoch on the test
images.  Recipes are about training.  Arguments of methods that papers tune per task, such as FacT's scale, are not
included: use `tune`, which selects them on val200.
"""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

from .spec import Recipe

TABLES = Path(__file__).with_name("recipe_tables")


def task_table(name: str) -> dict[str, dict[str, Any]]:
    """Read `recipe_tables/<name>.csv`: task -> fields of `Recipe` that it replaces."""
    kinds = {"batch_size": int, "augmentation": str}  # all others are floats
    lines = (TABLES / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {
        row["task"]: {field: kinds.get(field, float)(text) for field, text in row.items() if field != "task"}
        for row in rows
    }


UNIFORM = Recipe(
    name="uniform",
    source="adapter_plus's one setting for all (conf/experiment, visinf/adapter_plus 191c4ab); no per-task tuning",
    optimizer="adamw",
    lr=1e-3,
    weight_decay=1e-4,
    decayed="all",
    momentum=0.0,
    epochs=100,
    probe_epochs=100,
    warmup_epochs=10,
    warmup_lr=0.0,
    min_lr=0.0,
    cooldown_epochs=0,
    schedule_per="step",  # ours: the same curve, also suitable for short recipes
    schedule_lag=0,
    cosine_from="warmup",
    batch_size=64,
    drop_last=True,  # as FacT; all batches have one shape, and each epoch drops other images
    drop_path=0.1,
    branch_dropout=0.0,
    mlp_dropout=0.0,
    label_smoothing=0.0,
    clip_norm=None,
    head_init="trunc_normal",
    image_size=None,
    framing="squash",
    augmentation="none",
    precision="bf16",
    tuned=False,
    tasks={},
    search={},
)

FACT = replace(
    UNIFORM,
    name="fact",
    source="FacT/fact_tt.py of JieShibo/PETL-ViT 546bde3, the same in Convpass and RepAdapter: timm's cosine, stepped "
    "after the epoch; fp32. Best test epoch of every tenth there, the last epoch here. Their input is normalised with "
    "ImageNet's mean: --normalisation imagenet",
    warmup_lr=1e-6,
    min_lr=1e-5,
    schedule_per="epoch",
    schedule_lag=1,
    cosine_from="start",
    head_init="uniform",
    precision="fp32",
)

RLRR = replace(
    UNIFORM,
    name="rlrr",
    source="train_vtab.py and RLRRDatasets/VTABConfig.py of zstarN70/RLRR 287c772: per task; 10 epochs more at min_lr; "
    "'drop path' is element-wise dropout; float16 there. Best test epoch there, the last epoch here",
    weight_decay=5e-5,
    decayed="matrices",  # by name in the original; of RLRR's tensors, rows and columns are decayed, shifts are not
    warmup_lr=1e-7,
    min_lr=1e-8,
    cooldown_epochs=10,
    schedule_per="epoch",
    schedule_lag=1,
    cosine_from="start",
    batch_size=32,
    drop_last=False,
    drop_path=0.0,
    head_init="zeros",
    tuned=True,
    tasks=task_table("rlrr"),
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        UNIFORM,
        replace(
            UNIFORM,
            name="uniform_3ep",
            source="ours: `uniform` cut to 3 epochs of small batches, for a look at real data on a CPU. Batch and "
            "drop-path were chosen on val200 of dsprites_loc with LoRA: 0.54, against 0.45 at batch 16 and lr 2e-3",
            epochs=3,
            warmup_epochs=0.3,
            batch_size=8,
            drop_path=0.0,
        ),
        replace(
            UNIFORM,
            name="toy",
            source="ours: `uniform` shortened to what a CPU does in minutes for the toy suite",
            epochs=30,
            warmup_epochs=3,
            batch_size=32,
            precision="fp32",
        ),
        replace(
            UNIFORM,
            name="smoke",
            source="ours: small batches and a high rate, so that two epochs tell methods from the probe",
            lr=5e-3,
            epochs=2,
            probe_epochs=30,
            warmup_epochs=0.2,
            batch_size=16,
            drop_path=0.0,
            precision="fp32",
        ),
        FACT,
        replace(
            FACT,
            name="osu",
            source="main.py, engine/trainer.py and experiment/config of OSU-MLB/ViT_PEFT_Vision cea7e21: FacT's "
            "schedule, two rates and two decays to search with `tune`; their input is not normalised: "
            "--normalisation none",
            search={"lr": (1e-3, 1e-2), "weight_decay": (1e-4, 1e-3)},
        ),
        replace(
            UNIFORM,
            name="vpt",
            source="tune_vtab.py, configs/base-prompt.yaml and src/ of KMnP/vpt 7f3942e: SGD, ten rates (there per "
            "256 images, here per 64) and four decays, meant for `tune`; without it the first rate of their list. "
            "Chosen on val200 after the last epoch, as here",
            optimizer="sgd",
            lr=1.25,
            decayed="no biases, no norms",  # the original excludes the head's bias; prompts have none
            momentum=0.9,
            schedule_per="epoch",
            drop_last=False,
            drop_path=0.0,
            head_init="kaiming",
            precision="fp32",
            search={
                "lr": (1.25, 0.625, 0.25, 12.5, 6.25, 2.5, 0.125, 0.0625, 0.025, 0.0125),
                "weight_decay": (1e-2, 1e-3, 1e-4, 0.0),
            },
        ),
        replace(
            UNIFORM,
            name="ssf",
            source="train.py and train_scripts/vit/vtab of dongzelian/SSF: per task; timm's cosine, 10 epochs more at "
            "min_lr, as train.py's default; float16 there. Best test epoch there, the last epoch here",
            decayed="matrices",
            warmup_lr=1e-7,
            min_lr=1e-8,
            cooldown_epochs=10,
            schedule_per="epoch",
            cosine_from="start",
            drop_path=0.0,
            tuned=True,
            tasks=task_table("ssf"),
        ),
        RLRR,
        replace(
            RLRR,
            name="aoft_released",
            source="train_vtab.py, model/configs.py and AOFTDatasets/VTABConfig.py of CalliopeYang/AOFT 2ffd89c: as "
            "RLRR, but MLP dropout, as its ViT-B has, and another table. drop_last as RLRR's (their loader is not "
            "released). Best test epoch there, the last epoch here. Their FGVC settings are left out",
            decayed="no biases, no norms",  # the original looks for "bias" and "norm" anywhere in the name
            mlp_dropout=0.1,
            tasks=task_table("aoft_released"),
        ),
        # FGVC: `uniform` with random crops; adapter_plus uses one setting for FGVC too.
        replace(
            UNIFORM,
            name="fgvc",
            source="`uniform` with VPT's crops for FGVC (src/data/transforms.py, KMnP/vpt 7f3942e): shorter side to "
            "256, 224 cut out and mirrored at random, the centre in evaluation. Ours: what is cut at random comes "
            "from the middle square",
            framing="square_crop",
            augmentation="crop_flip",
        ),
        replace(
            UNIFORM,
            name="fgvc_squash",
            source="`uniform` with RLRR's and AOFT's crops for FGVC (RLRRDatasets/fgvc_tranforms.py, zstarN70/RLRR "
            "99d2087): squashed to 256 x 256, 224 cut out and mirrored at random, the centre in evaluation",
            framing="squash_crop",
            augmentation="crop_flip",
        ),
    )
}
