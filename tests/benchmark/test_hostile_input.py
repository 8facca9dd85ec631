"""Random invalid input ends in a message and an exit status, and leaves no part of a file behind.

Every test has a few fixed examples among the fast tests, and many among the slow ones.
"""

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import paths_in, renamed
from vtab_peft.benchmark.canonical import canonical_json
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.storage.json_io import StoreError
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.archive import examine
from vtab_peft.datasets.folder import folder_task
from vtab_peft.datasets.reading import InvalidFile
from vtab_peft.datasets.task import DataError
from vtab_peft.methods import METHODS, parse


def budget(few: int, many: int) -> pytest.MarkDecorator:
    """Use `few` examples in the fast tests, and `many` in the slow ones."""
    plain = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    slow = pytest.param(settings(plain, max_examples=many), marks=pytest.mark.slow, id="many")
    return pytest.mark.parametrize("examples", [pytest.param(settings(plain, max_examples=few), id="few"), slow])


STRANGE = [
    *("", " ", "-", "--", "..", ".", "~nobody/x", "a/b", "ä ö ü", "日本語", "\udcff", "x" * 5000, "٣", "\u202e", "\n"),
    *(
        "-1",
        "0",
        "1e999",
        "nan",
        "1/0",
        "None",
        "{}",
        "%s",
        "*",
        "/proc/x",
        "/dev/null",
        "own/x",
        "../..",
        "'",
        "\x1b[2J",
    ),
]
"""Words that people or scripts type by mistake."""


# Specs of methods

fragments = st.sampled_from(
    [
        *METHODS,
        *("rank", "alpha", "sites", "(", ")", "=", ",", "**", "*", "'", "lambda:0", "[", "{", "1", "-1", "0"),
        *STRANGE,
    ]
)
literals = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=3)
    | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def calls(draw: st.DrawFn) -> str:
    """Draw a method with values of any type for its arguments."""
    name = draw(st.sampled_from(sorted(METHODS)))
    names = [field.name for field in fields(METHODS[name])] or ["rank"]
    arguments = draw(st.dictionaries(st.sampled_from(names), literals, max_size=2))
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


@budget(100, 4_000)
def test_any_text_is_a_method_or_a_value_error(examples: settings) -> None:
    @examples
    @given(st.text() | st.lists(fragments, max_size=9).map("".join) | calls())
    def holds(text: str) -> None:
        with contextlib.suppress(ValueError):
            method = parse(text)
            assert canonical_json(method.args())
            assert parse(method.spec()) == method

    holds()


# Folders of tasks

lines = st.lists(
    st.sampled_from(
        ["images/a.png 0", "images/b.png 1", "images/c.png -1", "images/a.png", "/etc/passwd 0", "../x 1", *STRANGE]
    )
    | st.text(max_size=30),
    max_size=5,
).map(lambda found: "\n".join(found).encode("utf-8", "surrogatepass"))
facts = st.sampled_from([b"name = 'x'", b"suite = 'vtab1k'", b"version = -1", b"name = 3", b"group = '../x'", b"["])


@budget(60, 1_500)
def test_any_folder_is_a_task_or_a_data_error(examples: settings, tmp_path: Path) -> None:
    names = ["train800.txt", "train.txt", "val.txt", "test.txt", "classes.txt", "task.toml", "manifest.json"]

    @examples
    @given(st.dictionaries(st.sampled_from(names), lines | st.binary(max_size=40) | facts, max_size=6))
    def holds(files: dict[str, bytes]) -> None:
        folder = tmp_path / "task"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "images").mkdir(parents=True)
        (folder / "images/a.png").write_bytes(b"not a picture")
        for name, content in files.items():
            (folder / name).write_bytes(content)
        with contextlib.suppress(DataError):
            _, problems = examine(folder_task(folder))
            assert all(problem.text for problem in problems)

    holds()


# Records

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(STRANGE) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def spoilt(draw: st.DrawFn, record: dict[str, Any]) -> str:
    """Draw a record with one or two values replaced or removed, or with damaged text."""
    changed = json.loads(json.dumps(record))
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(list(paths_in(changed))))
        holder = changed
        for key in way:
            holder = holder[key]
        if draw(st.integers(0, 4)) == 0:
            del holder[last]
        else:
            holder[last] = draw(junk)
    text = json.dumps(changed)
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(["", "}", "[" * 100_000, "NaN", "\\ud800", '"']))
    return text


@budget(60, 1_500)
def test_any_record_is_read_or_reported(examples: settings, store: Store, put: Any) -> None:
    put("flowers", "lora", 1, 0.5)
    path = store.path(put("flowers", "lora", 0, 0.5))
    record = json.loads(path.read_text())

    @examples
    @given(spoilt(record))
    def holds(text: str) -> None:
        shutil.rmtree(store.root / "damaged", ignore_errors=True)
        there = renamed(path, text)
        try:
            store.load(there)
            told = []
        except (InvalidFile, StoreError) as error:
            told = [str(error)]
        found, problems = store.load_runs()
        assert len(found) == 2 - len(told)
        assert [problem.partition("; ")[0] for problem in problems] == [text.partition("; ")[0] for text in told]
        assert all(str(there) in text for text in told)
        there.unlink(missing_ok=True)

    holds()


@pytest.mark.parametrize("name", ["report", "status", "verify", "rerun"])
@budget(2, 30)
def test_commands_survive_any_record(
    examples: settings, name: str, store: Store, put: Any, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    put("flowers", "lora", 1, 0.5)
    spec = put("flowers", "lora", 0, 0.5)
    path, failure = store.path(spec), store.failure_path(spec)
    record = json.loads(path.read_text())
    failed = json.loads(store.save_failure(spec, "a reason", "a traceback").read_text())

    @examples
    @given(spoilt(record), spoilt(failed))
    def holds(text: str, reason: str) -> None:
        shutil.rmtree(store.root / "damaged", ignore_errors=True)
        there = renamed(path, text)
        failure.write_text(reason)
        more = [there.stem] if name == "rerun" else []
        assert main([name, *more, "--results", str(store.root)]) in (0, 1, 2)
        there.unlink(missing_ok=True)
        assert not list(store.root.rglob(".tmp-*"))

    holds()
    capsys.readouterr()


# The command line


@pytest.fixture
def typed(make_task: Callable[..., Path], store: Store, put: Any, tmp_path: Path, in_process: None) -> list[list[str]]:
    """Return valid commands, which run in a temporary folder."""
    make_task()
    run_id = put("flowers", "lora", 0, 0.5).run_id()
    (tmp_path / "plug.py").write_text("raise RuntimeError('x')")
    (tmp_path / "w.pth").write_bytes(b"\x80\x04\x95")
    runs = ["--tasks", "tasks/colours", "--methods", "lora(rank=2)", "--backbone", "toy_vit", "--weights", "random"]
    runs += ["--seeds", "0", "--recipe", "smoke", "--results", "results"]
    return [
        ["run", *runs, "--threads", "1", "--micro-batch", "8", "--grace", "5", "--max-minutes", "1"],
        ["run", *runs, "--dry-run", "--shard", "1/2", "--split", "val", "--normalisation", "half", "--oracle"],
        ["retry", *runs, "--engine", "eager", "--keep-adapters"],
        ["tune", *runs, "--max-configs", "2", "--dry-run"],
        ["status", *runs],
        ["status", "--results", "results"],
        ["rerun", run_id, "--results", "results", "--weights", "random", "--data", "tasks/colours"],
        ["verify", "--results", "results"],
        ["compare", "lora", "LoRA", "--results", "results", "--board", "x"],
        ["published", "lora", "--json"],
        ["list", "recipes", "--json", "--plugin", "plug.py"],
        ["list", "tasks", "--markdown"],
        ["check-method", "plug.py", "--only", "x"],
        ["data", "check", "--suite", "vtab1k", "--tasks", "svhn", "--data", "tasks", "--deep"],
        ["data", "status", "--tasks", "tasks/colours"],
        ["data", "cache", "--list"],
        ["data", "cache", "--prune", "--dry-run"],
        ["data", "fetch", "svhn", "--raw", "raw", "--dry-run"],
        ["data", "build", "svhn", "--raw", "raw", "--data", "made"],
    ]


OPTIONS = [
    "--tasks",
    "--suite",
    "--data",
    "--methods",
    "--plugin",
    "--weights",
    "--backbone",
    "--results",
    "--json",
    "--deep",
]
WORDS = [
    *OPTIONS,
    *STRANGE,
    "w.pth",
    "plug.py",
    "tasks/colours",
    "tasks",
    "lor",
    "lora(rnk=2)",
    "vtab1k",
    "toy_vitt",
    "all",
]


@st.composite
def mistyped(draw: st.DrawFn, commands: list[list[str]]) -> list[str]:
    """Draw a command with some words replaced, removed, doubled or inserted."""
    words = list(draw(st.sampled_from(commands)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(words)))
        words[at : at + draw(st.integers(0, 1))] = draw(st.lists(st.sampled_from(WORDS), max_size=2))
    if "fetch" in words or "fet" in " ".join(words):
        words.append("--dry-run")  # no test uses the network
    return words


@budget(30, 1_000)
def test_any_command_ends_with_a_message(
    examples: settings, typed: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @examples
    @given(mistyped(typed))
    def holds(words: list[str]) -> None:
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        assert status in (0, 1, 2)
        assert status == 0 or said.err or said.out
        assert "Traceback" not in said.err
        assert not list(tmp_path.rglob(".tmp-*"))

    holds()
