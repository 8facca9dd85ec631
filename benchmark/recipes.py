"""The named training recipes.  A new one is an entry here; an existing one is never edited, only superseded."""

from dataclasses import replace

from .spec import Recipe

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
    schedule_per="step",  # ours: the same curve, and it makes sense for short recipes too
    batch_size=64,
    drop_last=True,  # as the FacT family does; every batch has one shape, and each epoch drops another remainder
    drop_path=0.1,
    branch_dropout=0.0,
    label_smoothing=0.0,
    clip_norm=None,
    head_init="trunc_normal",
    image_size=None,
    augmentation="none",
    precision="bf16",
    tuned=False,
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
    )
}
