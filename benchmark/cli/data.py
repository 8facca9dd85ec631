"""Parsers of the commands `data ...`."""

import argparse

from .options import Commands, add_tasks, fraction, path_of, positive, seed


def declare(commands: Commands) -> None:
    """Add the commands `data ...`."""
    data = commands.add_parser("data", help="check, fetch, build, import and cache data")
    family = data.add_subparsers(required=True, metavar="COMMAND")

    check = family.add_parser("check", help="check that the data of each task is complete, and print what to do next")
    _add_folders(check)
    check.add_argument(
        "--deep", action="store_true", help="decode every image and look for test images in train or val"
    )
    check.set_defaults(work="commands.data:check_data")

    status = family.add_parser("status", help="print the counts per task: `check` without the reasons")
    _add_folders(status)
    status.set_defaults(work="commands.data:status")

    cache = family.add_parser("cache", help="list or prune the cache of decoded images")
    act = cache.add_mutually_exclusive_group(required=True)
    act.add_argument("--list", action="store_true", help="list every task with its size, last use and source folder")
    act.add_argument("--prune", action="store_true", help="remove files that nothing can use any more")
    cache.add_argument("--dry-run", action="store_true", help="with --prune: only print what would be removed")
    cache.set_defaults(work="commands.data:cache")

    fetch = family.add_parser("fetch", help="download the original files, or print what to download manually")
    _add_official(fetch)
    fetch.add_argument(
        "--raw", type=path_of, metavar="FOLDER", help="folder for the original files, with a subfolder per data set"
    )
    fetch.add_argument("--archive", action="store_true", help="fetch the shared vtab-1k archive (JPEG) instead")
    fetch.add_argument("--data", type=path_of, metavar="FOLDER", help="with --archive: folder for its task folders")
    copies = "with --archive: the copy in JPEG, or another project's in PNG (default: jpeg)"
    fetch.add_argument("--copy", choices=["jpeg", "png"], default="jpeg", help=copies)
    revisions = "with --archive: commit on the hub (default: that of the tasks in --data, else the latest)"
    fetch.add_argument("--revision", metavar="COMMIT", help=revisions)
    fetch.add_argument(
        "--dry-run", action="store_true", help="print the state of all files and what would be downloaded"
    )
    fetch.set_defaults(work="commands.data_fetch:fetch_data")

    build = family.add_parser("build", help="build official tasks from the original files, without loss")
    _add_official(build)
    build.add_argument("--raw", type=path_of, required=True, metavar="FOLDER", help="folder with the original files")
    build.add_argument("--data", type=path_of, required=True, metavar="FOLDER", help="folder for the task folders")
    build.add_argument("--again", action="store_true", help="replace existing tasks")
    build.set_defaults(work="commands.data_build:build_data")

    bring = family.add_parser("import", help="make a task of class folders, a CSV file or a Hugging Face data set")
    add = bring.add_argument
    add("source", metavar="SOURCE", help="folder of class folders, .csv file, or hf:NAME or hf:FOLDER")
    add("--output", "--to", dest="to", type=path_of, required=True, metavar="FOLDER", help="new or empty folder")
    add("--train", type=positive, default=1000, metavar="N", help="images in train and val (default: 1000)")
    add("--val-share", type=fraction, default=0.2, metavar="X", help="share of val in them (default: 0.2)")
    add("--seed", type=seed, default=0, help="of the draw (default: 0)")
    bring.set_defaults(work="commands.data_import:import_data")

    shots = family.add_parser("few-shot", help="make a task with the few-shot lists that NOAH published")
    add = shots.add_argument
    names = "fgvc_aircraft, food101, oxford_flowers102, oxford_pets or stanford_cars"
    add("name", metavar="NAME", help=names)
    add("images", type=path_of, metavar="IMAGES", help="the data set's folder of images, which is linked")
    add("--output", "--to", dest="to", type=path_of, required=True, metavar="FOLDER", help="new or empty folder")
    shots.set_defaults(work="commands.data_import:few_shot_data")

    compare = family.add_parser("compare", help="compare the pixels of two copies of tasks, image by image")
    compare.add_argument("a", type=path_of, metavar="A", help="task folder, or folder of task folders")
    compare.add_argument("b", type=path_of, metavar="B", help="the copy to compare it with")
    compare.set_defaults(work="commands.data_compare:compare_data")


def _add_folders(command: argparse.ArgumentParser) -> None:
    command.add_argument("folders", nargs="*", default=[], metavar="FOLDER", help="task folders, or what --tasks takes")
    add_tasks(command)


def _add_official(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "tasks",
        nargs="*",
        default=["all"],
        metavar="TASK",
        help="names, groups, raw data sets such as clevr, or all (default)",
    )
    command.add_argument("--suite", default="vtab1k", choices=["vtab1k", "fgvc"], help="default: vtab1k")
