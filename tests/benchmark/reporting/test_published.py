"""Published numbers: values as printed, their sources, separate kinds of means, and the `published` command."""

import csv
import json
import re
import shutil
from pathlib import Path
from statistics import fmean

import pytest
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.reporting.families import FAMILIES
from vtab_peft.benchmark.reporting.published import (
    FOLDER,
    MEANS,
    PublishedRow,
    copies,
    find,
    load,
    published_range,
    recomputed_range,
)
from vtab_peft.datasets.tasks import suite_tasks

ROWS = load()


def row(source: str, printed: str) -> PublishedRow:
    (found,) = [row for row in ROWS if (row.source.source, row.printed) == (source, printed)]
    return found


def test_rows_match_the_printed_tables() -> None:
    """Expected values were read from the tables by hand."""
    lora = row("hta", "LoRA")
    assert lora.tasks[:7] == (67.1, 91.4, 69.4, 98.8, 90.4, 85.3, 54.0)
    assert lora.tasks[7:11] == (84.9, 95.3, 84.4, 73.6)
    assert lora.tasks[11:] == (82.9, 69.2, 49.8, 78.5, 75.7, 47.1, 31.0, 44.0)
    assert (lora.numbers["mean_19"].accuracy, lora.params_m, lora.method) == (72.3, 0.29, "lora")
    assert row("noah", "LoRA").numbers["mean_groups"].accuracy == 74.5
    assert row("hta-fgvc", "LoRA").tasks == (88.3, 85.6, 99.2, 91.0, 83.2)


def test_means_of_tasks_and_of_groups_differ() -> None:
    """LoRA's 19 numbers give 72.25 and 74.60: Natural 79.49, Specialized 84.55, Structured 59.77."""
    means = row("hta", "LoRA").recomputed
    assert means["mean_19"] == pytest.approx(72.25, abs=0.005)
    assert means["mean_groups"] == pytest.approx((79.486 + 84.55 + 59.775) / 3, abs=0.001)


def test_last_and_best_epoch_are_two_sources() -> None:
    last, best = (fmean(row(f"osu-{which}", "LoRA").tasks) for which in ("last", "best"))
    assert last == pytest.approx(72.91, abs=0.005)
    assert best - last == pytest.approx(0.69, abs=0.005)
    assert row("osu-last", "LoRA").numbers["cifar"].params_m is not None


def test_printed_means_match_the_tasks_or_are_flagged() -> None:
    """Allow 0.15: tasks, group means and their mean are each rounded by up to 0.05."""
    wrong = [
        (row.source.source, row.printed, mean)
        for row in ROWS
        for mean, value in row.recomputed.items()
        if (printed := row.numbers.get(mean)) and not printed.flag and abs(printed.accuracy - value) > 0.15
    ]
    assert not wrong
    flagged = {(row.source.source, row.printed) for row in ROWS if row.flagged}
    assert {("boft", "LoRA r=4"), ("hta-swin-b", "MLP-4"), ("noah", "Full")} <= flagged


def test_flagged_numbers_are_kept_but_not_in_ranges() -> None:
    assert row("noah", "Full").numbers["oxford_flowers102"].accuracy == 87.2
    assert row("pace", "RepAdapter").tasks == row("vpetl", "SSF").tasks
    found = published_range([row("noah", "Full"), row("hta", "Full")], "oxford_flowers102")
    assert found
    assert (found.low, found.high, found.rows) == (97.2, 97.2, 1)


def test_every_number_has_a_task_and_a_source() -> None:
    for found in ROWS:
        known = {*suite_tasks(found.source.suite), *MEANS[found.source.suite]}
        known |= (
            {f"mean_{task.group}" for task in suite_tasks("vtab1k").values()}
            if found.source.suite == "vtab1k"
            else set()
        )
        assert found.numbers, found.printed
        assert found.numbers.keys() <= known | {"mean_reported"}
        assert all(0 < number.accuracy <= 100 for number in found.numbers.values())
        assert found.source.reference
        assert found.source.place
        assert found.source.selection
    assert {row.source.kind for row in ROWS} == {"paper", "repository", "secondary", "deleted"}
    assert {row.test_selected for row in ROWS} == {"yes", "no", "unknown"}


def test_no_number_or_row_is_stored_twice() -> None:
    with (FOLDER / "numbers.csv").open(newline="") as file:
        numbers = [(line["source"], line["printed"], line["task"]) for line in csv.DictReader(file)]
    assert len(numbers) == len(set(numbers)) == sum(len(row.numbers) for row in ROWS)
    found = [
        (row.source.title, row.source.place, row.printed, *((task, n.accuracy) for task, n in row.numbers.items()))
        for row in ROWS
    ]
    assert len(found) == len(set(found))


def test_means_of_groups_match_or_are_flagged() -> None:
    """Hold printed means against printed means of groups, also of rows without tasks; allow 0.11 for rounding."""
    sizes = {"mean_natural": 7, "mean_specialized": 4, "mean_structured": 8}
    for found in ROWS:
        parts = [found.numbers.get(group) for group in sizes]
        if not all(part and not part.flag for part in parts):
            continue
        values = [part.accuracy for part in parts if part]
        weighted = sum(n * value for n, value in zip(sizes.values(), values, strict=True)) / 19
        for name, expected in (("mean_19", weighted), ("mean_groups", fmean(values))):
            printed = found.numbers.get(name)
            if printed and not printed.flag:
                assert printed.accuracy == pytest.approx(expected, abs=0.11), (found.source.source, found.printed)


def test_second_hand_and_deleted_sources_say_so() -> None:
    for source in {row.source for row in ROWS}:
        assert "secondary" in source.note or source.kind != "secondary", source.source
        if source.kind == "deleted":
            assert "deleted" in source.note
            assert "@2eb1701; deleted on 2026-06-25" in source.reference
    rerun = row("scope", "AOFT")
    assert rerun.tasks[:7] == (84.2, 91.6, 71.4, 99.0, 91.3, 88.4, 59.6)
    assert rerun.recomputed["mean_19"] == pytest.approx(74.36, abs=0.005)
    assert (rerun.method, rerun.test_selected) == ("aoft_lora_released", "unknown")


def test_copied_rows_do_not_inherit_a_selection() -> None:
    """VFPT's code reads the last epoch; the rows that it copied are other people's."""
    assert row("vfpt", "VFPT").test_selected == "no"
    assert row("vfpt", "Partial-1").test_selected == "unknown"


@pytest.mark.parametrize(
    ("source", "architecture"),
    [
        ("hta", "ViT-B/16"),
        ("snell", "ViT-B/16"),
        ("rlrr-mae", "ViT-B/16, MAE"),
        ("rlrr-moco", "ViT-B/16, MoCo v3"),
        ("boft", "a large backbone of 304.4 M parameters"),
        ("pvera", "DINOv2 ViT-B/14"),
    ],
)
def test_other_pretraining_is_another_architecture(source: str, architecture: str) -> None:
    assert {row.source.architecture for row in ROWS if row.source.source == source} == {architecture}


def test_documents_state_the_current_counts() -> None:
    numbers, tables = sum(len(row.numbers) for row in ROWS), len({row.source for row in ROWS})
    assert f"{numbers:,} numbers in {len(ROWS)} rows of {tables} tables" in (FOLDER / "README.md").read_text()
    assert f"{numbers:,} numbers of {tables} printed tables" in (FOLDER.parents[1] / "docs" / "results.md").read_text()


def test_registry_names_are_registered() -> None:
    from vtab_peft.methods import METHODS

    assert {row.method for row in ROWS} - {""} <= METHODS.keys()
    names = {re.sub(r"[\s_-]", "", name) for name in METHODS}
    without = {row.printed for row in ROWS if not row.method}
    assert {printed for printed in without if re.sub(r"[\s_-]", "", printed.casefold()) in names} == {"CVPT"}
    assert {row.source.kind for row in ROWS if row.printed == "CVPT" and not row.method} == {"deleted"}


def test_every_method_has_one_family() -> None:
    from vtab_peft.methods import METHODS

    assert sorted(name for names in FAMILIES.values() for name in names) == sorted(METHODS.keys() - {"hf"})


def test_ranges_never_mix_kinds_of_means() -> None:
    rows = [row for row in find("LoRA", ROWS) if row.source.architecture == "ViT-B/16" and row.source.suite == "vtab1k"]
    of_19, of_groups = recomputed_range(rows, "mean_19"), recomputed_range(rows, "mean_groups")
    assert of_19
    assert of_groups
    assert of_19.high == pytest.approx(73.60, abs=0.005)  # OSU's best epochs
    assert of_19.low == pytest.approx(68.82, abs=0.005)  # PSOFT's protocol
    assert of_groups.low > of_19.low + 2
    assert published_range(rows, "mean_19") != published_range(rows, "mean_groups")


def test_copied_rows_form_one_group() -> None:
    groups = copies(row for row in ROWS if row.printed == "LoRA" and row.source.suite == "vtab1k")
    most = max(groups, key=len)
    assert [row.source.source for row in most] == ["hta", "noah", "convpass", "hydra", "dyt", "vpetl"]


@pytest.mark.parametrize(
    ("query", "name"), [("LoRA", "lora"), ("lora", "lora"), ("Fact TK", "fact_tk"), ("HTA*", "hta")]
)
def test_find_by_registered_or_printed_name(query: str, name: str) -> None:
    assert {row.method for row in find(query, ROWS)} == {name}


def test_find_a_method_that_is_not_registered() -> None:
    assert {row.printed for row in find("mosa", ROWS)} == {"MoSA"}


def test_find_a_family() -> None:
    assert {row.source.kind for row in find("AOFT", ROWS)} == {"secondary", "deleted"}
    assert {row.method for row in find("orthogonal", ROWS)} >= {"oft", "boft"}


def test_overview_tells_what_paper_and_rerun_disagree_on(capsys: pytest.CaptureFixture[str]) -> None:
    """FGVC: the paper's lowest is VPT-Deep's 89.3, recomputed from its tasks, the rerun has 84.7 and its LoRA 86.6."""
    assert main(["published", "AOFT"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 14
    assert max(map(len, lines)) <= 100
    vtab, fgvc = text[: text.index("fgvc")], text[text.index("fgvc") :]
    assert "DISAGREE" not in vtab
    assert "+1.9" in vtab
    for words in ("DISAGREE", "4.6 points", "stanfordcars", "60.7", "-1.9", "86.6", "2eb1701", "deleted"):
        assert words in fgvc


def test_a_family_without_another_kind_of_source_has_an_overview(capsys: pytest.CaptureFixture[str]) -> None:
    for family in FAMILIES:
        assert main(["published", family]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_unknown_method_gets_suggestions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "LoRRA"]) == 2
    message = capsys.readouterr().err
    assert "lora" in message
    assert "vpt_deep" not in message, "similar names, not all of them"
    assert main(["published", "AOFT-Prompt"]) == 2
    assert "aoft_" in capsys.readouterr().err
    assert main(["published", "xyzzy"]) == 2
    assert "'xyzzy'" in capsys.readouterr().err


def test_command_prints_rows_ranges_flags_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "repadapter"]) == 0
    text = capsys.readouterr().out
    for words in ("of 19,", "of groups,", "* [pace] RepAdapter", "swapped", "arXiv:2302.08106"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 120


def test_ranges_have_the_decimals_of_their_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """LoRA's mean of 19 is 72.25 to 72.6 in four tables, one of them selected on the test images."""
    assert main(["published", "lora"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "mean of 19 tasks printed 72.25 72.60 0.35 4 1 0" in lines
    assert "mean of 3 groups printed 71.8 75.1 3.3 11 9 0" in lines


def test_json_has_every_row_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "gps", "--json"]) == 0
    vtab, fgvc = json.loads(capsys.readouterr().out)["rows"]
    assert (vtab["source"]["source"], vtab["numbers"]["cifar"]["accuracy"]) == ("vpetl", 81.1)
    assert vtab["recomputed"]["mean_19"] == pytest.approx(75.18, abs=0.005)
    assert (fgvc["source"]["suite"], fgvc["source"]["head"]) == ("fgvc", "mixed")


def test_incomplete_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sources\.csv"):
        load(tmp_path)
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    sources = tmp_path / "sources.csv"
    sources.write_text(sources.read_text().replace("\nhta,", "\nhtb,"))
    with pytest.raises(ValueError, match="'hta'"):
        load(tmp_path)
