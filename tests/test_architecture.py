"""Imports between folders point one way, and the parent process loads no torch."""

import argparse
import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import vtab_peft
from vtab_peft import benchmark
from vtab_peft.benchmark.cli import parser

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmark", "methods", "datasets")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
ROOMS = (
    *("api", "cli", "commands", "method_checks", "execution", "analysis", "checkpoints", "reporting", "engine"),
    *("toy_vit", "storage", "plan", "recipes", "spec", "canonical", "escaping"),
)
"""Folders and files of `benchmark/`; each imports only those behind it."""
WITHOUT_TORCH = (
    *("api.results", "cli", "spec", "plan", "recipes", "escaping", "storage.store", "checkpoints.lookup"),
    *(
        f"commands.{n}"
        for n in (
            *("agreement", "ensemble", "list", "messages", "method_cache", "published", "report", "rerun", "run"),
            *("sensitivity", "status", "tune", "tuning_grid", "tuning_space", "verify"),
        )
    ),
    *(f"execution.{n}" for n in ("local_pool", "locks", "messages", "pool", "progress", "ray_pool", "scheduler")),
    *(f"reporting.{n}" for n in ("compare", "figures", "html.page", "leaderboards", "report", "significance")),
    "execution.signals",
)
"""Modules of `benchmark/` that the parent process of a sweep or a report loads."""


def imported(path: Path) -> set[str]:
    """Absolute module names that a file imports, `vtab_peft.` prefixed for its own package."""
    package = ["vtab_peft", *path.relative_to(ROOT).parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return names


def room_of(path: Path) -> str:
    """Return the folder or file of `benchmark/` that holds a file; empty for files elsewhere."""
    top, *rest = path.relative_to(ROOT).with_suffix("").parts
    return rest[0] if top == "benchmark" and rest[0] in ROOMS else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    own = {name.split(".")[1] for name in imported(path) if name.startswith("vtab_peft.")}
    allowed = set(FOLDERS) if folder == "benchmark" else {folder}
    assert own <= allowed
    assert not any(name.split(".")[0] in FOLDERS for name in imported(path)), "import relatively, not by folder name"
    if folder == "datasets":
        assert not any(name.split(".")[0] in ("torch", "timm", "torchvision") for name in imported(path))


@pytest.mark.parametrize("path", [p for p in SOURCES if room_of(p)], ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_rooms_behind_them(path: Path) -> None:
    allowed = {*ROOMS[ROOMS.index(room_of(path)) :], "__version__"}
    parts = [name.split(".") for name in imported(path)]
    assert {part[2] for part in parts if part[:2] == ["vtab_peft", "benchmark"] and part[2:]} <= allowed


def test_no_files_import_each_other_in_a_circle() -> None:
    names = {path: ".".join(["vtab_peft", *path.relative_to(ROOT).with_suffix("").parts]) for path in SOURCES}
    graph = {name: imported(path) & set(names.values()) - {name} for path, name in names.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


def test_every_folder_of_code_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {".".join(["vtab_peft", *path.relative_to(ROOT).parts[:-1]]) for path in SOURCES}
    assert folders <= set(setuptools["packages"]) == set(setuptools["package-dir"])
    assert all((ROOT / folder).is_dir() for folder in setuptools["package-dir"].values())


def test_the_checkout_may_have_a_name_that_no_package_can_have() -> None:
    """pytest imports the `__init__.py` beside `tests/`, outside any package if the folder is called `vtab-peft`."""
    spec = spec_from_file_location("__init__", ROOT / "__init__.py")
    assert spec
    assert spec.loader
    spec.loader.exec_module(module_from_spec(spec))
    assert vtab_peft.__version__ == benchmark.__version__


def test_datasets_is_not_a_regular_package() -> None:
    """With an __init__.py, a script run from the checkout would hide Hugging Face's `datasets`."""
    assert not (ROOT / "datasets" / "__init__.py").exists()


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_parent_process_needs_no_torch() -> None:
    code = f"""
import importlib, sys
for name in {WITHOUT_TORCH}:
    importlib.import_module(f"vtab_peft.benchmark.{{name}}")
    if heavy := {{"torch", "timm", "torchvision"}} & set(sys.modules):
        sys.exit(f"{{name}} loads {{heavy}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def commands_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield parser
    for family in below:
        for command in family.choices.values():
            yield from commands_of(command)


def test_every_command_names_an_existing_function() -> None:
    for command in commands_of(parser()):
        module, _, function = command.get_default("work").partition(":")
        assert callable(getattr(import_module(f"vtab_peft.benchmark.{module}"), function)), command.prog


def test_help_loads_nothing_heavy() -> None:
    code = "from vtab_peft.benchmark.cli import parser; parser().format_help()"
    assert not loaded_by(code) & {"torch", "timm", "numpy", "pandas", "PIL", "matplotlib", "scipy"}


def test_launcher_explains_a_missing_installation() -> None:
    bare = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "run_benchmark.py")], capture_output=True, text=True, check=False
    )
    assert bare.returncode == 1
    assert "make benchmark" in bare.stderr
    assert "pip install -e ." in bare.stderr
    assert "Traceback" not in bare.stderr
