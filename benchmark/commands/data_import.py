"""The commands `data import` and `data few-shot`: make a task of images in another layout."""

import argparse
import sys

from tqdm import tqdm

from ...datasets.importing import import_task
from ...datasets.noah import noah_task
from ...datasets.task import SPLITS
from ..execution.progress import advance
from .messages import say


def import_data(options: argparse.Namespace) -> int:
    """Import the images and print the counts of the splits; warnings go to standard error."""
    with tqdm(desc="importing", unit=" images", leave=False, disable=not sys.stderr.isatty()) as bar:
        made = import_task(
            options.source,
            options.to,
            options.train,
            options.val_share,
            options.seed,
            lambda done, of: advance(bar, done, of),
        )
    for text in made.warnings:
        say(f"{made.task.label}: warning: {text}")
    counts = ", ".join(f"{made.counts[split]:,} {split}" for split in SPLITS)
    print(f"{made.task.label}: {made.task.classes} classes, {counts}: {made.task.folder}")
    print(f"next: vtab-peft run --tasks {made.task.folder} --backbone NAME --methods linear lora")
    return 0


def few_shot_data(options: argparse.Namespace) -> int:
    """Make the task folder and print how to use it."""
    task = noah_task(options.name, options.images, options.to)
    print(f"{task.label}: {task.classes} classes, with lists of 1, 2, 4, 8 and 16 shots: {task.folder}")
    print(f"next: vtab-peft run --tasks {task.folder} --backbone NAME --methods linear lora --shots 1 2 4 8 16")
    return 0
