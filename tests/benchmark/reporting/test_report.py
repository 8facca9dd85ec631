"""The whole way from files to what people read: golden files, the same bytes each time, and no torch.

After a change that is meant: `VTAB_PEFT_ACCEPT_GOLDEN=1 pytest tests/benchmark/reporting/test_report.py`, then read
the diff.
"""

import gc
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from mini_suite import build
from report_speed import fill
from vtab_peft.benchmark.commands.verify import check_derived
from vtab_peft.benchmark.reporting.drawing import Drawing
from vtab_peft.benchmark.reporting.markup import chosen_rows
from vtab_peft.benchmark.reporting.report import write
from vtab_peft.benchmark.storage.garbage import without_collection
from vtab_peft.benchmark.storage.json_io import StoreError, alone, to_text
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import suite_tasks

GOLDEN = Path(__file__).parents[2] / "golden" / "report"
TEXTS = ("leaderboard.csv", "table.md", "table.tex", "significance.md")
FIGURES = ("accuracy_vs_params", "accuracy_vs_time", "groups", "tasks")
MORE_FIGURES = ("curves", "ranks")
"""Of the board whose records have curves, and tasks enough for ranks."""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def without_figures(files: dict[str, bytes]) -> dict[str, str]:
    """The page holds figures too; test_page.py reads it."""
    return {name: data.decode() for name, data in files.items() if not name.endswith((".svg", ".pdf", ".html", ".bib"))}


def test_the_report_of_fixed_records_is_the_golden_one(store, put, tmp_path):
    build(put)
    out = tmp_path / "out"
    report = write(store, out)
    made = without_figures(contents(out)) | {"terminal.txt": report.text.replace(str(out), "OUT")}
    if os.environ.get("VTAB_PEFT_ACCEPT_GOLDEN"):
        for name, text in made.items():
            (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
            (GOLDEN / name).write_text(text, encoding="utf-8")
    assert made.keys() == contents(GOLDEN).keys()
    for name, text in made.items():
        assert text == (GOLDEN / name).read_text(encoding="utf-8"), name
    assert report.problems == ()


@pytest.mark.slow
def test_each_leaderboard_has_its_files_and_links(store, put, tmp_path):
    build(put)
    report = write(store, tmp_path / "out")
    slugs = [entry.id.slug for entry in report.leaderboards]
    expected = {f"boards/{slug}/{name}" for slug in slugs for name in TEXTS} | {"README.md", "index.html", "papers.bib"}
    for slug in slugs:
        names = FIGURES + (MORE_FIGURES if slug.startswith("vtab1k") else ())
        expected |= {f"boards/{slug}/{name}.svg" for name in names}
    assert contents(tmp_path / "out").keys() == expected
    assert {str(path.relative_to(tmp_path / "out")) for path in report.paths} == expected
    index = (tmp_path / "out" / "README.md").read_text()
    for slug in slugs:
        assert f"](boards/{slug}/table.md)" in index
    linked = set(re.findall(r"\]\((boards/[^)]+)\)", index))
    assert linked <= expected
    assert {path for path in expected if path.endswith(".svg")} <= linked


@pytest.mark.slow
def test_report_is_rebuilt_byte_for_byte(store, put, tmp_path):
    build(put)
    other = Store(tmp_path / "elsewhere" / "results")
    build(put, order=1, into=other)
    first = write(store, tmp_path / "first")
    second = write(other, tmp_path / "elsewhere" / "second")
    assert contents(tmp_path / "first") == contents(tmp_path / "elsewhere" / "second")
    assert first.text.replace("/first/", "/elsewhere/second/") == second.text
    again = contents(tmp_path / "first")
    write(store, tmp_path / "first")
    assert contents(tmp_path / "first") == again


def test_an_empty_store_writes_nothing_and_says_what_to_do(store, tmp_path):
    report = write(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert report.paths == report.leaderboards == ()
    assert "no finished run in" in report.text
    assert "vtab-peft run" in report.text


def test_a_store_of_validation_runs_writes_nothing(store, put, tmp_path):
    put("flowers", "lora", 0, 0.5, split="val")
    report = write(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "1 validation run and no test run" in report.text


def test_a_board_that_is_gone_is_left_and_named(store, put, tmp_path):
    put("flowers", "lora", 0, 0.5)
    stale = tmp_path / "out" / "boards" / "old--board"
    stale.mkdir(parents=True)
    (stale / "table.md").write_text("mine")
    report = write(store, tmp_path / "out")
    assert (stale / "table.md").read_text() == "mine"
    assert len(report.problems) == 1
    assert str(stale) in report.problems[0]


def test_leaderboard_of_one_row_has_no_stale_figures(store, put, tmp_path):
    put("flowers", "lora", 0, 0.5)
    other = store.path(put("flowers", "ssf", 0, 0.6, title="SSF"))
    (folder,) = {path.parent for path in write(store, tmp_path / "out").paths if path.name == "table.md"}
    assert {path.name for path in folder.glob("*.svg")} == {
        "accuracy_vs_params.svg",
        "accuracy_vs_time.svg",
        "tasks.svg",
    }
    (folder / "mine.svg").write_text("mine")
    other.unlink()
    report = write(store, tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {*TEXTS, "mine.svg"}
    assert report.problems == ()
    assert ".svg" not in (tmp_path / "out" / "README.md").read_text()


def test_a_latex_table_of_chosen_methods_ranks_them_among_themselves(store, put, tmp_path):
    for spec, accuracy in {"lora": 0.9, "ssf": 0.8, "bitfit": 0.7, "linear": 0.6}.items():
        for task in ("flowers", "birds"):
            put(task, spec, 0, accuracy)
    report = write(store, tmp_path / "out", drawing=Drawing(methods=("linear", "ssf")))
    (folder,) = (tmp_path / "out" / "boards").iterdir()
    rows = re.findall(r"^(\d+) & (\w+)", (folder / "table.tex").read_text(), re.MULTILINE)
    assert rows == [("1", "ssf"), ("2", "linear")]
    csv = (folder / "leaderboard.csv").read_text().splitlines()
    assert len(csv) == 5
    assert len(report.leaderboards[0].rows) == 4


def test_verify_reads_the_chosen_rows_from_the_latex_table(store, put):
    for spec, accuracy in {"lora": 0.9, "ssf": 0.8, "linear": 0.6}.items():
        put("flowers", spec, 0, accuracy)
    write(store, store.root, drawing=Drawing(methods=("linear", "ssf")))
    (table,) = store.root.rglob("table.tex")
    assert chosen_rows(table.read_text()) == ["ssf", "linear"]
    assert list(check_derived(store)) == []
    table.write_text(table.read_text().replace("80.0", "81.0"))
    assert [text.partition(":")[0] for text in check_derived(store)] == [str(table)]
    table.write_text(table.read_text().replace('"linear"', '"gone"'))  # as if its runs were deleted
    assert [text.partition(":")[0] for text in check_derived(store)] == [str(table)]


def test_a_cost_that_draws_of_few_shots_have_is_not_called_missing(store, put, tmp_path):
    put("flowers", "lora", 0, 0.5, suite="own@1shot.seed0")
    text = write(store, tmp_path, axes=("train_memory_mb",)).text
    assert "accuracy_vs_train_memory_mb was not drawn" in text
    assert "vtab-peft cost" not in text


@pytest.mark.slow
def test_chosen_methods_are_drawn_in_the_chosen_formats(store, put, tmp_path):
    build(put)
    out = tmp_path / "out"
    write(store, out)
    every = contents(out)
    write(store, out, drawing=Drawing(("svg", "pdf"), methods=("lora", "AOFT-LoRA")))
    chosen = contents(out)
    assert {name for name in chosen if name.endswith(".pdf")} == {
        name.replace(".svg", ".pdf") for name in chosen if name.endswith(".svg")
    }
    changed = {name for name in chosen if chosen[name] != every.get(name)}
    assert {Path(name).suffix for name in changed} == {".svg", ".pdf", ".html", ".md", ".tex"}, "CSV has all rows"
    assert {name for name in changed if name.endswith(".md")} == {"README.md"}, "two methods have no ranks to link to"
    with pytest.raises(ValueError, match="lorra"):
        write(store, out, drawing=Drawing(methods=("lorra",)))
    write(store, out)
    assert contents(out) == every


def test_a_damaged_record_is_a_complaint_and_a_gap(store, put, tmp_path):
    put("flowers", "ssf", 0, 0.6, title="SSF")
    put("cars", "ssf", 0, 0.6, title="SSF")
    put("cars", "lora", 0, 0.6)
    path = store.path(put("flowers", "lora", 0, 0.5))
    path.write_text(path.read_text()[:100])
    report = write(store, tmp_path / "out")
    assert str(path) in report.problems[0]
    assert [row["rank"] for row in report.leaderboards[0].rows] == [1, None]


def test_duplicate_runs_are_reported(store, fake, put, tmp_path):
    """The same words, another resolved recipe: code changed without a new version."""
    put("flowers", "lora", 0, 0.5)
    path = store.path(put("flowers", "lora", 1, 0.6))
    record = json.loads(path.read_text())
    path.unlink()
    record["spec"]["recipe"]["epochs"] += 1
    record["spec"]["seed"] = 0
    from vtab_peft.benchmark.spec import RunSpec

    spec = RunSpec.from_json(record["spec"])
    record["key"] = spec.run_id()
    store.path(spec).write_text(to_text(record))
    report = write(store, tmp_path / "out")
    (complaint,) = report.problems
    assert "lora on flowers, seed 0, has 2 results" in complaint
    assert fake.spec("flowers", "lora", 0).run_id() in complaint
    assert spec.run_id() in complaint


def test_a_report_that_cannot_be_written_says_so(store, put, tmp_path):
    put("flowers", "lora", 0, 0.5)
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write"):
        write(store, tmp_path / "out")


def test_a_report_waits_for_another_and_sees_what_came_meanwhile(store, put):
    put("flowers", "lora", 0, 0.5)
    with ThreadPoolExecutor(1) as other:
        with alone(store.root):
            waiting = other.submit(write, store, store.root)
            assert not wait([waiting], 0.3).done
            put("flowers", "linear", 0, 0.4)
        assert len(waiting.result().leaderboards[0].rows) == 2


def test_the_search_for_cycles_goes_on_after_a_report():
    before = gc.isenabled()
    with without_collection():
        within = gc.isenabled()
    assert (before, within, gc.isenabled()) == (True, False, True)


def test_another_process_without_torch_writes_the_same_bytes(store, put, tmp_path):
    put("flowers", "lora", 0, 0.5)
    put("flowers", "linear", 0, 0.4, title="Linear", params=0)
    code = (
        "import sys; from pathlib import Path\n"
        "from vtab_peft.benchmark.reporting.report import write; from vtab_peft.benchmark.storage.store import Store\n"
        "assert 'matplotlib' not in sys.modules, 'matplotlib'\n"
        "write(Store(Path(sys.argv[1])), Path(sys.argv[2]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
        "assert not {'torch', 'timm', 'torchvision'} & sys.modules.keys()\n"
    )
    other_hashes = os.environ | {"PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-c", code, str(store.root), str(tmp_path / "theirs")]
    subprocess.run(command, check=True, env=other_hashes)
    write(store, tmp_path / "ours")
    assert contents(tmp_path / "theirs") == contents(tmp_path / "ours")


@pytest.mark.slow
def test_report_of_two_suites_and_twenty_methods(store, monkeypatch, tmp_path):
    monkeypatch.setattr("os.fsync", lambda _: None)
    tasks = [task for suite in ("vtab1k", "fgvc") for task in suite_tasks(suite).values()]
    assert fill(store, tasks, [f"Method {place}" for place in range(20)], seeds=5) == 2400
    report = write(store, tmp_path / "out")
    assert [len(entry.rows) for entry in report.leaderboards] == [20, 20]
    assert (tmp_path / "out" / "index.html").stat().st_size < 1.5e6
    assert sum(row["seeds"] for entry in report.leaderboards for row in entry.rows) == 200
