"""The commands that open trained adapters: `analyze`, `export`, `predict`, `shift`."""

from .options import (
    EXECUTION,
    RESULTS,
    Commands,
    Options,
    add_device,
    add_plugin,
    add_results,
    add_tasks,
    add_threads,
    group,
    path_of,
    with_commas,
)

RUN = "first characters of a run ID, or path of a .safetensors file"


def declare(commands: Commands) -> None:
    """Add the commands of this module."""
    analyze = commands.add_parser("analyze", help="analyze angles, norms and ranks of trained adapters")
    add = analyze.add_argument
    add("cells", nargs="+", metavar="RUN", help=RUN)
    to = RESULTS / "analysis"
    where = "default: the folder analysis of --results"
    add("--output", "--to", dest="to", type=path_of, default=to, metavar="FOLDER", help=where)
    add("--task", help="name or folder of the runs' task; adds the bound, computed on its images")
    add("--suite", help="vtab1k, fgvc or toy, if --task is a name")
    add("--data", type=path_of, metavar="FOLDER", help="folder that contains the suite's task folders")
    _add_model(analyze)
    analyze.set_defaults(work="commands.analyze:analyze", default_to=to)

    export = commands.add_parser("export", help="export a trained adapter, also as timm model or for Hugging Face peft")
    add = export.add_argument
    add("cell", metavar="RUN", help=RUN)
    add("--as", dest="form", required=True, choices=["adapter", "merged", "peft"], help="see docs/export.md")
    add("--output", "--to", dest="to", type=path_of, required=True, metavar="FOLDER", help="new or empty folder")
    _add_model(export)
    export.set_defaults(work="commands.export:export")

    predict = commands.add_parser("predict", help="classify the images in a folder with a trained adapter")
    add = predict.add_argument
    add("folder", type=path_of, metavar="FOLDER", help="folder of images, searched recursively")
    add("--adapter", required=True, metavar="RUN", help=f"exported folder, {RUN}")
    add("--output", "--out", dest="out", type=path_of, metavar="FILE", help="CSV file (default: standard output)")
    add_threads(predict)
    _add_model(predict)
    predict.set_defaults(work="commands.predict:predict")

    shift = commands.add_parser("shift", help="evaluate saved adapters on corrupted images and on further test lists")
    runs, model, execution = (group(shift, title) for title in ("what to test", "the model", EXECUTION))
    add_tasks(runs)
    add = runs.add_argument
    names = "names or specs (default: all stored runs with adapters)"
    with_commas(add("--methods", nargs="+", default=[], help=names))
    wise = "also evaluate weights between pretrained and merged ones, chosen on val; see docs/shift.md"
    add("--wise-ft", action="store_true", help=wise)
    _add_model(model)
    add_device(execution)
    add_threads(execution)
    shift.set_defaults(work="commands.shift:shift")


def _add_model(command: Options) -> None:
    """Add what is needed to restore a trained model."""
    allowed = "the backbone of the run; allows downloading its weights (default: only those on this machine)"
    command.add_argument("--backbone", metavar="NAME", help=allowed)
    command.add_argument("--weights", help="the backbone's weights, as for `run`; must be those of the training")
    add_results(command)
    add_plugin(command)
