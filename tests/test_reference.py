"""docs/reference.md has every public name, its file, and the first line of its docstring."""

import ast
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import vtab_peft
from vtab_peft import methods
from vtab_peft.methods import Method

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
NAMES = re.findall(r"^\| `(\w+)` \| (.*) \| \[`(.*)`\]\(\.\./(.*)\) \|$", PAGE, re.M)
HOOKS = dict(re.findall(r"^\| `Method\.(\w+)` \| (.*) \|$", PAGE, re.M))


def section(title: str) -> set[str]:
    return set(re.findall(r"^\| `(\w+)`", PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0], re.M))


def defined_in(body: list[ast.stmt]) -> dict[str, str]:
    """Return the first line of the docstring of each name that is defined in a module or class."""
    found = {}
    for statement, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            found[statement.name] = (ast.get_docstring(statement) or "").partition("\n")[0]
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            found[ast.unparse(target)] = str(ast.literal_eval(after.value)).partition("\n")[0]
    return found


def of(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "line", "shown", "path"), NAMES, ids=[name for name, *_ in NAMES])
def test_a_name_has_the_line_of_its_docstring(name, line, shown, path) -> None:
    assert shown == path
    assert defined_in(of(path).body)[name] == line


def test_the_site_shows_the_docstring_of_each_name() -> None:
    found = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    found.loader.exec_module(hooks := importlib.util.module_from_spec(found))
    shown = hooks.on_page_markdown(PAGE, SimpleNamespace(file=SimpleNamespace(src_uri="reference.md")))
    paths = re.findall(r"^::: (\S+)$", shown, re.M)
    assert [path.rpartition(".")[2] for path in paths] == [name for name, *_ in NAMES]
    for path in paths:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)
        assert f"[`{name}`][{path}]" in shown


def test_the_public_names_are_complete() -> None:
    assert section("vtab_peft") == set(vtab_peft.__all__)
    assert dir(vtab_peft) == sorted(vtab_peft.__all__)


def test_the_names_for_plugins_are_complete() -> None:
    """Those of `vtab_peft.methods`, those that pages import from its modules, and the types in their signatures."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    imported = re.findall(
        r"^[+ ]?from vtab_peft\.methods(?:\.\w+)? import (.*)", "\n".join(map(Path.read_text, pages)), re.M
    )
    wanted = {*methods.__all__, *(name for names in imported for name in names.split(", "))}
    assert section("vtab_peft.methods") == wanted - {*vtab_peft.__all__, "LoRA"} | {
        "Evidence",
        "Paper",
        "Transform",
        "Update",
    }


def test_the_members_of_a_method_are_complete() -> None:
    (cls,) = [s for s in of("methods/base.py").body if isinstance(s, ast.ClassDef) and s.name == "Method"]
    public = {name for name, member in vars(Method).items() if callable(getattr(member, "__func__", member))}
    assert {name: line for name, line in defined_in(cls.body).items() if name in public and name[0] != "_"} == HOOKS


def test_pages_count_the_methods() -> None:
    readme, page, clusters = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/methods.md", "docs/clusters.md")
    )
    assert re.findall(r"\b(\d+)\s+methods\b", page)[0] == re.findall(r"trains (\d+)\s+methods", readme)[0]
    on_vit = [cls for cls in methods.METHODS.values() if "vit" in cls.backbones and not cls.stands_for_many]
    plain = sum(cls.needs is None for cls in on_vit)
    assert f"`--methods all` means {len(on_vit)} methods on a plain ViT ({plain} without" in clusters
    per_method = {"VTAB-1k": 19 * 5, "FGVC": 5 * 5, "`tune` VTAB-1k": 19 * 15, "`tune` FGVC": 5 * 15}
    for sweep, runs in per_method.items():
        (stated,) = re.findall(rf"\| {sweep}, (\d+) methods, \d+ \w+ \| ([\d,]+) \|", clusters)
        assert stated == (str(len(on_vit)), f"{len(on_vit) * runs:,}")
    compared = sum(cls.evidence in ("authors' training", "authors' module") for cls in methods.METHODS.values())
    assert compared > int(re.findall(r"(?i)more\s+than (\d+) methods give the same numbers", readme)[0]) > compared - 20
    assert f"`peft` adds {len(on_vit) - plain} methods of Hugging Face peft" in readme


def test_raised_exceptions_are_on_the_page() -> None:
    """Those that docstrings of the page name below "Raises:"."""
    source = "".join((ROOT / path).read_text(encoding="utf-8") for path in {path for *_, path in NAMES})
    raised = set(re.findall(r"^ +(\w+Error): ", source, re.M)) - {"ValueError", "TypeError"}
    assert raised == {"ConfigurationError", "DataError", "StoreError"}
    assert raised <= {name for name, *_ in NAMES}
