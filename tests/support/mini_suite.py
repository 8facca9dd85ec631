"""Runs of two leaderboards, from which the golden report is made."""

import random

from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import suite_tasks

OWN = {"flowers": "natural", "dtd_10cls": "natural", "rsscn7": "specialized", "dsprites_loc": "structured"}
METHODS = {
    "linear": ("Linear", 0, 1e-3),
    "lora": ("LoRA", 36_864, 1e-3),
    "aoft_lora": ("AOFT-LoRA", 9_600, 1e-3),
    "bitfit": ("BitFit", 25_728, 5e-3),
    "odd": ("Odd | 50% & more_", 1_234_567, 2.5e-4),
}


def build(put, order: int | None = None, into: Store | None = None) -> None:
    """A mini suite of four tasks with two seeds, one gap and a tie; and three methods on the 19 tasks with one seed.

    The latter has learning curves and ranks.
    """
    runs = []
    for task_place, (task, group) in enumerate(OWN.items()):
        for method_place, (method, (title, params, lr)) in enumerate(METHODS.items()):
            for seed in range(2):
                # AOFT-LoRA and LoRA tie; BitFit has no dsprites_loc.
                level = min(method_place, 1) * 0.1 - max(method_place - 2, 0) * 0.031
                accuracy = 0.5 + level + task_place * 0.07 + seed * 0.013 * (task_place % 2)
                facts = {
                    "title": title,
                    "group": group,
                    "params": params,
                    "lr": lr,
                    "head_params": 193 * (task_place + 5),
                }
                if (method, task) != ("bitfit", "dsprites_loc"):
                    runs.append(((task, method, seed, round(accuracy, 4)), facts))
    for place, task in enumerate(suite_tasks("vtab1k").values()):
        for method in ("linear", "lora", "aoft_lora"):
            title, params, lr = METHODS[method]
            accuracy = 0.4 + 0.02 * place + (0.1 if method == "lora" else 0.0) * (place % 3 - 0.5)
            accuracy += 0.01 * (method == "aoft_lora")
            facts = {
                "loss_curve": [2.0, 1.0 + place / 50, 0.5],
                "title": title,
                "group": task.group,
                "params": params,
                "lr": lr,
            }
            facts |= {"suite": "vtab1k", "provenance": "lossless", "recipe": "uniform", "data": f"{place:02x}" * 32}
            runs.append(((task.name, method, 0, round(accuracy, 4)), facts))
    if order is not None:
        random.Random(order).shuffle(runs)
    for run, facts in runs:
        put(*run, **facts, **({"into": into} if into else {}))
