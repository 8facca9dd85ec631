"""The verbs that look after the data: `data check`, `status`, `cache`, `fetch`, `build`."""

import argparse
from pathlib import Path

from .options import Commands, add_tasks


def declare(verbs: Commands) -> None:
    data = verbs.add_parser("data", help="look after the data")
    family = data.add_subparsers(required=True, metavar="VERB")

    check = family.add_parser("check", help="one line per task: is it there, whole, and what to do next")
    add_tasks(check)
    check.add_argument("--deep", action="store_true", help="decode every image and look for leaks between the splits")
    check.set_defaults(work="commands.data:check_data")

    status = family.add_parser("status", help="the counts at a probe: `check` without the reasons")
    add_tasks(status)
    status.set_defaults(work="commands.data:status")

    cache = family.add_parser("cache", help="what decoded images take on the disk, and room for others")
    act = cache.add_mutually_exclusive_group(required=True)
    act.add_argument("--list", action="store_true", help="every task: its size, its last use, and where it came from")
    act.add_argument("--prune", action="store_true", help="remove what nobody can use any more")
    cache.add_argument("--dry-run", action="store_true", help="with --prune: only say what would go")
    cache.set_defaults(work="commands.data:cache")

    fetch = family.add_parser("fetch", help="get the original files, or be told what to put where by hand")
    _add_official(fetch)
    fetch.add_argument("--raw", type=Path, metavar="FOLDER", help="where the original files go, a folder per task")
    fetch.add_argument("--archive", action="store_true", help="take the shared vtab-1k archive (JPEG) instead")
    fetch.add_argument("--data", type=Path, metavar="FOLDER", help="with --archive: where its task folders go")
    fetch.add_argument("--dry-run", action="store_true", help="print what is there, and what would be done")
    fetch.set_defaults(work="commands.data_fetch:fetch_data")

    build = family.add_parser("build", help="make official tasks out of the original files, without loss")
    _add_official(build)
    build.add_argument("--raw", type=Path, required=True, metavar="FOLDER", help="holds a folder of originals per task")
    build.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="where the task folders go")
    build.add_argument("--again", action="store_true", help="replace tasks that are there")
    build.set_defaults(work="commands.data_build:build_data")


def _add_official(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "tasks",
        nargs="*",
        default=["all"],
        metavar="TASK",
        help="names, groups, raw data sets such as clevr, or all (default)",
    )
    verb.add_argument("--suite", default="vtab1k", choices=["vtab1k", "fgvc"], help="default: vtab1k")
