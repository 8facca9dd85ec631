"""The verbs that open what was trained: `analyze`, `export`, `predict`."""

import argparse
from pathlib import Path

from .options import RESULTS, Verbs, add_plugin, add_results, positive

CELL = "beginning of a key in the results folder, or path of a .safetensors file"


def declare(verbs: Verbs) -> None:
    analyze = verbs.add_parser("analyze", help="angles, norms and ranks of what was trained")
    analyze.add_argument("cells", nargs="+", metavar="KEY_OR_PATH", help=CELL)
    analyze.add_argument("--to", type=Path, default=RESULTS / "analysis", metavar="FOLDER", help="default: %(default)s")
    analyze.add_argument("--task", help="name or folder of the cells' task: adds the bound's terms, on its images")
    analyze.add_argument("--suite", help="vtab1k, fgvc or toy, where --task is a name")
    analyze.add_argument("--data", type=Path, metavar="FOLDER", help="the folder that holds the suite's task folders")
    _add_opening(analyze)
    analyze.set_defaults(work="commands.analyze:analyze")

    export = verbs.add_parser("export", help="a trained cell as adapter, as plain timm model, or for Hugging Face peft")
    export.add_argument("cell", metavar="KEY_OR_PATH", help=CELL)
    export.add_argument("--as", dest="form", required=True, choices=["adapter", "merged", "peft"])
    export.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="new or empty")
    _add_opening(export)
    export.set_defaults(work="commands.export:export")

    predict = verbs.add_parser("predict", help="classes of the images in a folder, by an exported adapter")
    predict.add_argument("folder", type=Path, metavar="FOLDER", help="with images in it, also in folders below")
    predict.add_argument("--adapter", required=True, metavar="EXPORTED", help=f"exported folder, or {CELL}")
    predict.add_argument("--out", type=Path, metavar="FILE", help="the CSV; default: the terminal")
    predict.add_argument("--threads", type=positive, default=2, help="torch threads (default 2)")
    _add_opening(predict)
    predict.set_defaults(work="commands.predict:predict")


def _add_opening(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--weights", help="of the backbone, as for `run`; checked against what the cell was trained on")
    add_results(verb)
    add_plugin(verb)
