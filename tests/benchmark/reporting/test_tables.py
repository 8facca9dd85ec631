"""What a table prints: units, marks, gaps, and names that cannot break it."""

import csv
import io
import re
from pathlib import Path

import pytest
from leaderboards import HOSTILE, only
from vtab_peft.benchmark.escaping import latex, markdown
from vtab_peft.benchmark.reporting.leaderboards import Leaderboard
from vtab_peft.benchmark.reporting.markup import to_latex, to_markdown
from vtab_peft.benchmark.reporting.tables import (
    BEST_TEST_EPOCH,
    GAPS,
    TERMINAL_WIDTH,
    Column,
    columns,
    marks,
    short_names,
    to_csv,
    to_terminal,
)
from vtab_peft.benchmark.reporting.text_table import text_table

MINI = {
    **dict.fromkeys(["caltech101", "oxford_flowers102_89cls", "dtd_10cls", "cifar10"], "natural"),
    **{"rsscn7": "specialized", "dsprites_loc": "structured", "dsprites_ori": "structured"},
}


@pytest.fixture
def small(store, put) -> Leaderboard:
    """Three methods on two tasks and two seeds; one lacks a task."""
    for seed in range(2):
        for method, flowers, cars in [("lora", 0.8125, 0.40), ("ssf", 0.8124, 0.60), ("vpt", 0.7, None)]:
            put("flowers", method, seed, flowers + seed / 100, title=method.upper())
            if cars is not None:
                put("cars", method, seed, cars, title=method.upper(), group="structured")
    return only(store)


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# CSV


def test_csv_has_percent_with_two_decimals_and_empty_gaps(small):
    best, second, incomplete = parsed(to_csv(small))
    assert (best["rank"], best["method"], best["spec"]) == ("1", "SSF", "ssf")
    assert best["accuracy_flowers"] == "81.74"
    assert best["accuracy_cars"] == "60.00"
    assert best["mean_tasks"] == "70.87"
    assert best["std_over_seeds"] == "0.35"  # 0.5 points on one of two tasks, times sqrt(2)
    assert best["seconds"] == "128.0"
    assert best["lr"] == "0.001"
    assert best["seeds"] == "2"
    assert second["rank"] == "2"
    for gap in ("rank", "accuracy_cars", "group_structured", "mean_tasks", "std_over_seeds", "seconds"):
        assert incomplete[gap] == ""
    assert incomplete["accuracy_flowers"] == "70.50"


def test_csv_columns_are_these(small):
    assert parsed(to_csv(small))[0].keys() == {
        *("rank", "method", "spec", "backbone", "lr", "trainable_params", "trainable_params_with_head"),
        *("accuracy_flowers", "accuracy_cars", "group_natural", "group_structured", "mean_tasks", "std_over_seeds"),
        *("mean_low", "mean_high"),
        *("seconds", "device", "peak_memory_mb", "seeds", "recipe", "backbone_sha256"),
        *("method_version", "plugin", "args"),
    }


@pytest.mark.parametrize("suite", ["own", "vtab1k", "fgvc"])
def test_every_column_is_described_in_the_docs(store, put, suite):
    for task, group in (("flowers", "natural"), ("cars", "structured")):
        put(task, "lora", 0, 0.5, suite=suite, group=group, tuned=True, oracle_accuracy=0.6)
    page = (Path(__file__).parents[3] / "docs" / "results.md").read_text(encoding="utf-8")
    for name in only(store).columns:
        general = re.sub("^accuracy_.*", "accuracy_<task>", re.sub("^group_.*", "group_<group>", name))
        assert f"`{general}`" in page


def test_tuned_table_shows_the_number_of_configurations(store, put):
    put("flowers", "lora", 0, 0.5, tuned=True, configurations=15, lr=1e-3)
    board = only(store)
    for text in (" ".join(table(board).split()) for table in (to_terminal, to_markdown, to_latex)):
        assert "tuned: best of 15 per task on val" in text
        assert "best of 15" in text.split("per task on val", 1)[1]
    assert parsed(to_csv(board))[0]["configurations"] == "15"


def test_table_with_published_settings_shows_per_task(store, put):
    for task, lr in (("flowers", 1e-3), ("cars", 1e-2)):
        put(task, "lora", 0, 0.5, tuned=True, lr=lr)
    text = to_terminal(only(store))
    assert "settings per task as published" in text
    assert "per task 36.9k" in " ".join(text.split())
    assert parsed(to_csv(only(store)))[0]["lr"] == ""


def test_best_test_epoch_column_is_explained_not_marked(store, put):
    put("flowers", "lora", 0, 0.5, oracle_accuracy=0.625)
    put("flowers", "ssf", 0, 0.4, oracle_accuracy=0.75)
    board = only(store)
    assert BEST_TEST_EPOCH not in to_terminal(board), "the terminal has no space for it"
    for text in (to_markdown(board), to_latex(board)):
        assert BEST_TEST_EPOCH in text
        assert BEST_TEST_EPOCH.capitalize() in text, "a note explains the column"
    assert "| 62.50 |" in to_markdown(board)
    assert "| 75.00 |" in to_markdown(board)
    assert [row["oracle_mean_tasks"] for row in parsed(to_csv(board))] == ["62.50", "75.00"]


def test_mean_over_common_tasks_is_explained(store, put):
    for task in ("flowers", "cars", "pets"):
        put(task, "lora", 0, 0.5, title="LoRA")
        if task != "pets":
            put(task, "ssf", 0, 0.625, title="SSF")
    board = only(store)
    for text in (" ".join(table(board).split()) for table in (to_terminal, to_markdown, to_latex)):
        assert "Mean of 2: " in text
    assert [row["mean_common"] for row in parsed(to_csv(board))] == ["50.00", "62.50"]


# Columns


def columns_of(store) -> list[str]:
    return [column.name for column in columns(only(store), [t.label for t in only(store).tasks], 2)][6:]


def test_a_number_is_printed_once(store, put):
    """The mean of one task and of groups of one task each are the tasks themselves."""
    for seed in (0, 1):
        put("flowers", "lora", seed, 0.5 + seed / 10)
    assert columns_of(store) == ["flowers"]
    assert "55.00 ± 7.07" in to_markdown(only(store))
    put("cars", "lora", 0, 0.5, group="structured")
    assert columns_of(store) == ["flowers", "cars", "mean of 2"]
    put("pets", "lora", 0, 0.5)
    assert columns_of(store) == ["flowers", "pets", "cars", "natural", "structured", "mean of 3"]


# Marks


def test_best_is_bold_and_second_underlined_with_ties():
    column = Column(
        "x", ["81.2", "80.0", "81.2", "79.0", "80.0", "—"], ranks=[81.2, 80.0, 81.2, 79.0, 80.0, float("-inf")]
    )
    assert marks(column) == ["best", "second", "best", "", "second", ""]


def test_a_gap_is_never_marked():
    assert marks(Column("x", ["81.2", "—"], ranks=[81.2, float("-inf")])) == ["best", ""]


def test_columns_without_a_best_have_no_marks():
    assert marks(Column("lr", ["1e-3", "1e-3"])) == ["", ""]


def test_equal_printed_numbers_are_marked_equally(store, put):
    for method, accuracy in [("a", 0.812494), ("b", 0.81249), ("c", 0.80), ("d", 0.79)]:
        put("flowers", method, 0, accuracy, title=method.upper())
    lines = [line for line in to_markdown(only(store)).splitlines() if line.startswith("| ")]
    cells = [line.strip("| ").split(" | ")[6] for line in lines[2:]]
    assert cells == ["**81.25**", "**81.25**", "<u>80.00</u>", "79.00"]
    assert to_latex(only(store)).count(r"\textbf{81.25}") == 2


def test_a_printed_table_says_what_it_is(small):
    for text in (to_markdown(small), to_latex(small), to_terminal(small)):
        plain = " ".join(text.replace("\\", "").split())
        assert "untuned" in plain
        assert "uniform_3ep" in plain
        assert "vit_tiny_patch16_224.augreg_in21k_ft_in1k" in plain
        assert "2 seeds" in plain
        assert "test images evaluated once, after the last epoch" in plain
        assert GAPS in plain
        assert "1e-3" in plain


def test_a_tuned_recipe_is_not_called_untuned(store, put):
    put("flowers", "lora", 0, 0.5, tuned=True)
    assert "untuned" not in to_terminal(only(store))


def test_rows_with_different_numbers_of_seeds_say_so(store, put):
    for seed in range(3):
        put("flowers", "lora", seed, 0.5)
    put("flowers", "ssf", 0, 0.4, title="SSF")
    text = to_terminal(only(store))
    assert "1 to 3 seeds" in " ".join(text.split())
    assert "seeds" in text.split("---")[0].splitlines()[-2]


# Names


@pytest.fixture
def hostile(store, put) -> Leaderboard:
    put(HOSTILE, "evil", 0, 0.5, title=HOSTILE, spec=f"evil(text={HOSTILE!r})", group=HOSTILE)
    put("plain", "evil", 0, 0.6, title=HOSTILE, spec=f"evil(text={HOSTILE!r})")
    put("plain", "lora", 0, 0.6)
    return only(store)


def test_no_name_breaks_a_markdown_table(hostile):
    lines = [line for line in to_markdown(hostile).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "<script>" not in to_markdown(hostile)
    assert not re.search(r"(?<!\\)`", "\n".join(lines))


def test_no_cell_breaks_a_text_table_in_markdown():
    lines = text_table(["a|b", "n"], [[HOSTILE, 1], ["plain", None]], "lr", "markdown").splitlines()
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [3] * 4
    assert lines[1].endswith("-:|")


def test_markdown_shows_the_name_itself():
    assert markdown("a|b_c*d") == r"a\|b\_c\*d"
    assert markdown("R&D <b>") == "R&amp;D &lt;b&gt;"


def test_no_name_breaks_a_latex_table(hostile):
    table = to_latex(hostile)
    body = table.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(body) == 2
    columns = re.search(r"begin\{tabular\}\{(\w+)\}", table)
    assert columns is not None
    for line in body:
        assert len(re.findall(r"(?<!\\)&", line)) == len(columns[1]) - 1
    bare = re.sub(r"\\[{}]", "", table)
    assert bare.count("{") == bare.count("}")
    assert r"\input" not in table
    assert r"\textbackslash{}input\{/etc/passwd\}" in table


def test_latex_shows_the_name_itself():
    assert latex("a_b&c% 5$ #1 {x} ~ ^ \\") == (
        r"a\_b\&c\% 5\$ \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )


def test_latex_has_a_question_mark_for_what_it_cannot_set():
    assert latex("漢é†α") == r"?é\dag{}?"


def test_no_name_breaks_a_csv(hostile):
    rows = parsed(to_csv(hostile))
    assert len(rows) == 2
    assert {len(row) for row in rows} == {len(hostile.columns)}
    assert "\n" not in rows[0]["method"]


def test_no_name_breaks_a_terminal_table(hostile):
    text = to_terminal(hostile)
    assert text.isprintable() or set(re.findall(r"[^ -~]", text)) <= set("\n—±·…")


# The terminal


@pytest.mark.parametrize("length", [4, 12, 60])
def test_seven_tasks_and_ten_methods_fit_the_terminal(store, put, length):
    for task, group in MINI.items():
        for method in range(10):
            name = f"m{method}" + "x" * (length - 2)
            for seed in range(2):
                put(
                    task,
                    f"m{method}",
                    seed,
                    1 - method / 100 - seed / 5,
                    title=name,
                    group=group,
                    params=85_798_656,
                    lr=2.5e-4,
                )
    lines = to_terminal(only(store)).splitlines()
    assert max(map(len, lines)) <= TERMINAL_WIDTH
    assert any("±" in line for line in lines[5:])
    assert sum(line.split()[:1] == [str(rank)] for line in lines for rank in range(1, 11)) == 10


def test_many_tasks_are_summed_up_by_their_groups(store, put):
    for place in range(12):
        put(f"task{place}", "lora", 0, 0.5, group="natural" if place < 6 else "structured")
    text = to_terminal(only(store))
    assert "natural" in text
    assert "structured" in text
    assert "task3" not in text


def test_short_names_are_explained_and_different(store, put):
    for task, group in MINI.items():
        put(task, "lora", 0, 0.5, group=group)
    board = only(store)
    for width in range(3, 12):
        names = short_names(board.tasks, width)
        assert len(set(names)) == len(names)
        assert max(len(line) for name in names for line in name.split("\n")) <= width
    legend = " ".join(to_terminal(board).split("Tasks: ")[1].split())
    for task in MINI:
        assert task in legend or task in to_terminal(board)
