"""Hooks of mkdocs: links that leave docs/ as plain text, and docstrings below the tables of reference.md.

mkdocstrings reads the sources and does not import them, so the site needs neither torch nor an installation.
"""

import atexit
import re
import sys
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

OUTSIDE = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?:\.\./)+[^)\s]*\)")
TABLE = re.compile(r"(?:^\|.*\n)+", re.M)
ROW = re.compile(r"^\| `(\w+)` (.*)\(\.\./(.*?)(?:/__init__)?\.py\) \|$", re.M)

ROOT = Path(__file__).resolve().parents[1]


def on_startup(**_: Any) -> None:
    """Let mkdocstrings find the checkout's folders as the package `vtab_peft`."""
    package = Path(mkdtemp()) / "vtab_peft"
    atexit.register(rmtree, package.parent)
    (package / "datasets").mkdir(parents=True)
    (package / "datasets" / "__init__.py").touch()
    for path in (ROOT / "__init__.py", ROOT / "benchmark", ROOT / "methods", *ROOT.glob("datasets/*.py")):
        (package / path.relative_to(ROOT)).symlink_to(path)
    sys.path.insert(0, str(package.parent))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the Markdown of a page with docstrings, and with only those links that the site can follow."""
    if page.file.src_uri == "reference.md":
        markdown = TABLE.sub(with_docstrings, markdown)
    return OUTSIDE.sub(r"\2", markdown)


def with_docstrings(table: re.Match[str]) -> str:
    """Return a table whose names are links to their docstrings, and the docstrings below it."""
    paths = [f"vtab_peft.{file.replace('/', '.')}.{name}" for name, _, file in ROW.findall(table[0])]
    ahead = iter(paths)
    linked = ROW.sub(lambda row: row[0].replace(f"`{row[1]}`", f"[`{row[1]}`][{next(ahead)}]"), table[0])
    return linked + "".join(f"\n::: {path}\n" for path in paths)
