"""What the documents tell people to type is a command, and what they link to is there."""

import argparse
import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from vtab_peft.benchmark.cli import EXAMPLES, parser
from vtab_peft.benchmark.recipes import FIELDS
from vtab_peft.methods import parse

ROOT = Path(__file__).parents[1]
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
PARSER = parser()
PLACEHOLDERS = {
    "$ASK": "--suite toy --backbone toy_vit --methods lora",
    "$i": "1",
    "$SLURM_ARRAY_TASK_ID": "1",
    "$SLURM_ARRAY_TASK_COUNT": "8",
}
"""What the shell or Slurm fills in, in docs/clusters.md."""


OF_OTHERS = {"--signal=TERM@60", "--lr", "--epochs"}
"""Options of Slurm, and of other trainers, which `run` answers with `--set`."""
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])
RUNNABLE = {"make", ".venv/bin/vtab-peft", "vtab-peft", ".venv/bin/pip", "pip", "sudo", "npm", "mkdir", "cp"}
"""What a workflow may call."""


def code(text: str, *languages: str) -> list[str]:
    """Return the code blocks in some languages, without the indentation of a list."""
    blocks = re.findall(r"^( *)```(\w*)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.M) for indent, language, block in blocks if language in languages]


def typed(text: str) -> list[str]:
    """Every `vtab-peft ...` of the code blocks, with variables filled in and comments taken off."""
    found = []
    for block in code(text, "", "bash", "yaml"):
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
    options = PARSER.parse_args(shlex.split(line))
    for text in getattr(options, "grid", ()):
        name = text.partition("=")[0]
        assert name in FIELDS or all(name in parse(method).args() for method in options.methods), name


@pytest.mark.parametrize(("source", "line"), EVERY, ids=[f"{source}: {line}" for source, line in EVERY])
def test_documents_use_one_name_of_an_option(source, line) -> None:
    """The first one that `--help` shows."""
    command, words = PARSER, shlex.split(line)
    while groups := [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]:
        command, words = groups[0].choices[words[0]], words[1:]
    for action in command._actions:
        for other in {*action.option_strings[1:]} - {"--help", "-h"}:
            assert other not in words, f"{other} is {action.option_strings[0]}"


def spans(text: str) -> list[str]:
    """Return the inline code of a page."""
    return re.findall(r"`([^`]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))


def options_of(command: argparse.ArgumentParser, words: list[str]) -> set[str]:
    """Return the options of the command that the words name, those of its subcommands included."""
    options = {*command._option_string_actions}
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            if words and words[0] in action.choices:
                return options_of(action.choices[words[0]], words[1:])
            options = options.union(*(options_of(choice, []) for choice in action.choices.values()))
    return options


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_and_options_within_a_sentence_exist(name) -> None:
    (commands,) = [a.choices for a in PARSER._actions if isinstance(a, argparse._SubParsersAction)]
    for span in spans(DOCUMENTS[name].read_text(encoding="utf-8")):
        words = span.split()
        if words[0] == "vtab-peft" and words[1:]:
            words = words[1:]
            assert words[0] in commands or words[0].startswith("-") or words[0] == "COMMAND", span
        if words[0] in commands or (words[0].startswith("--") and words[0] not in OF_OTHERS):
            used = {word.partition("=")[0].rstrip(",;.") for word in words if re.match("--[a-z]", word)}
            assert used <= options_of(PARSER, words), span


@pytest.mark.parametrize("name", DOCUMENTS)
def test_other_commands_and_blocks_are_valid(name) -> None:
    """Targets of make, scripts of perf/ with their options, extras of pip; blocks of Python, TOML and YAML."""
    text = DOCUMENTS[name].read_text(encoding="utf-8")
    typed_here = [*spans(text), *"\n".join(code(text, "", "bash")).splitlines()]
    for line in typed_here:
        assert_other_command_exists(line.partition(" #")[0].strip())
    for block in code(text, "py", "python"):
        ast.parse(block)
    for block in code(text, "toml"):
        tomllib.loads(block)
    for block in code(text, "yaml"):
        assert_workflow_runs_what_exists(yaml.safe_load(block))


def assert_other_command_exists(line: str) -> None:
    match line.split():
        case ["make", *words]:
            assert {word for word in words if "=" not in word and not word.startswith(".venv/")} <= TARGETS, line
        case ["python", script, *words]:
            source = (ROOT / script).read_text(encoding="utf-8")
            assert all(f'"{word}"' in source for word in words if word.startswith("--")), line
        case ["pip" | ".venv/bin/pip", "install", *words]:
            assert set(re.findall(r"(?:vtab-peft|\.)\[(\w+)\]", " ".join(words))) <= EXTRAS, line


WORKFLOWS = sorted((ROOT / ".github").rglob("workflows/*.yml"))


def assert_workflow_runs_what_exists(workflow: dict) -> None:
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    for line in "\n".join(step.get("run", "") for step in steps).splitlines():
        words = shlex.split(line, comments=True)
        assert not words or words[0] in RUNNABLE, line
        assert_other_command_exists(" ".join(words))
        if words and words[0].endswith("vtab-peft"):
            PARSER.parse_args(words[1:])


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.name for path in WORKFLOWS])
def test_a_workflow_runs_what_exists(path) -> None:
    assert_workflow_runs_what_exists(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_the_gate_needs_no_workflow() -> None:
    """LaTeX and axe-core are for the workflows; what must pass before a change lands runs without them."""
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert not re.findall(r"texlive|npm|\.github", gate)
    for line in gate.splitlines():
        assert_other_command_exists(line)


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
