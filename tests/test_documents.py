"""What the documents tell people to type is a command, and what they link to is there."""

import re
import shlex
from pathlib import Path

import pytest
from vtab_peft.benchmark.cli import EXAMPLES, parser

ROOT = Path(__file__).parents[1]
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
PLACEHOLDERS = {
    "$ASK": "--suite toy --backbone toy_vit --methods lora",
    "$i": "1",
    "$SLURM_ARRAY_TASK_ID": "1",
    "$SLURM_ARRAY_TASK_COUNT": "8",
}
"""What the shell or Slurm fills in, in docs/clusters.md."""


def typed(text: str) -> list[str]:
    """Every `vtab-peft ...` of the code blocks, with variables filled in and comments taken off."""
    found = []
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        known = PLACEHOLDERS | {f"${name}": value for name, value in re.findall(r'^(\w+)="(.*)"$', block, re.MULTILINE)}
        for line in re.findall(r"(?<!name: )\bvtab-peft (.*)", block.replace("\\\n", " ")):
            for name, value in known.items():
                line = line.replace(name, value)
            command = re.split(r"\s+#|\s*[;&|]", line)[0].strip()
            found.append(command.rstrip('"') if command.count('"') % 2 else command)
    return found


EVERY = [(name, line) for name, path in DOCUMENTS.items() for line in typed(path.read_text(encoding="utf-8"))]
EVERY += [("--help", line.strip().partition(" ")[2]) for line in EXAMPLES.splitlines()[1:]]


@pytest.mark.parametrize(("source", "line"), EVERY, ids=[f"{source}: {line}" for source, line in EVERY])
def test_what_the_documents_tell_to_type_is_a_command(source, line) -> None:
    parser().parse_args(shlex.split(line))


def test_there_are_commands_to_be_tested() -> None:
    assert len(EVERY) > 50
    assert {"README.md", "docs/clusters.md", "docs/data.md", "--help"} <= {source for source, _ in EVERY}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_document_links_to_is_there(name) -> None:
    for address in re.findall(r"\]\(([^)\s]+)\)", DOCUMENTS[name].read_text(encoding="utf-8")):
        if re.match("https?:", address):
            continue
        path, _, anchor = address.partition("#")
        target = (DOCUMENTS[name].parent / path).resolve() if path else DOCUMENTS[name]
        assert target.exists(), address
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), address


def test_tests_that_a_document_names_are_there() -> None:
    tests = {path.name for path in ROOT.glob("tests/**/test_*.py")}
    for name, path in DOCUMENTS.items():
        named = set(re.findall(r"\btest_\w+\.py\b", path.read_text(encoding="utf-8")))
        assert named <= tests, f"{name}: {named - tests}"


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them: lower case, letters, digits and hyphens."""
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.*)", without_code, re.M))
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_site_once() -> None:
    shown = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(shown) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    linked = set(re.findall(r"\]\((\S+\.md)\)", (ROOT / "docs" / "index.md").read_text(encoding="utf-8")))
    assert set(shown) - {"index.md"} == linked - {"../README.md"}


def test_readmes_method_is_the_one_that_is_checked() -> None:
    """test_check_method.py runs the block of docs/extending.md."""
    block = re.compile(r"^```py\n.*?^```", re.DOTALL | re.MULTILINE)
    readme, page = (
        block.findall((ROOT / name).read_text(encoding="utf-8")) for name in ("README.md", "docs/extending.md")
    )
    assert readme == page[:1]


@pytest.mark.parametrize("name", sorted(DOCUMENTS.keys() - {"docs/methods.md"}))
def test_prose_is_wrapped_at_100_columns(name) -> None:
    """Tables, code, formulas, images and addresses cannot be wrapped."""
    prose = DOCUMENTS[name].read_text(encoding="utf-8")
    for indent in ("", " +"):
        prose = re.sub(rf"^{indent}```.*?^{indent}```", "", prose, flags=re.DOTALL | re.MULTILINE)
    cannot = re.compile(r"\||\$\$|!?\[[^\]]*\]\(\S+$")
    assert [line for line in prose.splitlines() if len(line) > 100 and not cannot.match(line)] == []
