"""Published numbers: values as printed, their sources, separate kinds of means, and the `published` command."""

import csv
import json
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

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"
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
        assert found.numbers.keys() <= known
        assert all(0 < number.accuracy <= 100 for number in found.numbers.values())
        assert found.source.reference
        assert found.source.place
        assert found.source.selection
    assert {row.source.kind for row in ROWS} == {"paper", "repository", "secondary"}


def test_documents_state_the_current_counts() -> None:
    numbers, tables = sum(len(row.numbers) for row in ROWS), len({row.source for row in ROWS})
    assert f"{numbers:,} numbers in {len(ROWS)} rows of {tables} tables" in (FOLDER / "README.md").read_text()
    assert f"{numbers:,} numbers of {tables} printed tables" in (FOLDER.parents[1] / "docs" / "results.md").read_text()


def test_registry_names_are_registered() -> None:
    from vtab_peft.methods import METHODS

    assert {row.method for row in ROWS} - {""} <= METHODS.keys()
    assert {name for names in FAMILIES.values() for name in names} <= METHODS.keys()


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
    assert {row.printed for row in find("hydra", ROWS)} == {"Hydra"}


def test_unknown_method_gets_suggestions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "LoRRA"]) == 2
    message = capsys.readouterr().err
    assert message.index("lora") < message.index("vpt_deep"), "the similar name comes before the list of all"
    assert main(["published", "AOFT"]) == 2
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
    """LoRA's mean of 19 is 72.25 in one paper and 72.3 in another; its mean of groups is 71.8 to 75.0 in eight."""
    assert main(["published", "lora"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "mean of 19 tasks printed 72.25 72.30 0.05 2" in lines
    assert "mean of 3 groups printed 71.8 75.0 3.2 8" in lines


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


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"no {REFERENCE} on this machine")
def test_numbers_match_the_reference_tables() -> None:
    """Compare as multisets, so that a lost or duplicated number fails too."""
    ours = sorted(number.accuracy for row in ROWS for number in row.numbers.values())
    theirs = []
    for name in ("published_vtab1k.csv", "published_fgvc.csv"):
        with (REFERENCE / name).open(newline="") as file:
            theirs += [line for line in csv.DictReader(file) if not line["protocol_note"].startswith("computed here")]
    assert ours == sorted(float(line["accuracy"]) for line in theirs)
