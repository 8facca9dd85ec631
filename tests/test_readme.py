"""The README's claims about the repository's results are what the records say."""

import csv
import re
from pathlib import Path

import pytest
from vtab_peft.methods import METHODS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


def test_intervals_in_the_readme_are_those_of_the_comparisons() -> None:
    """`test_results.py` and `test_tuned_results.py` compare the tables of pairs in the docs with the records."""
    tuning = (ROOT / "docs" / "tuning.md").read_text()
    pages = (ROOT / "docs" / "results.md").read_text() + tuning
    pairs = " ".join(part.partition("\n\n")[0] for part in pages.split("|   seeds |   A - B |")[1:])
    photographs = re.findall(r"\| mean of 5 .*", tuning)
    assert len(photographs) == 1
    (board,) = (RESULTS / "boards").glob("toy--toy_vit--toy--24a427")
    rows = csv.DictReader((board / "leaderboard.csv").read_text().splitlines())
    means = {(round(float(row["mean_low"]), 1), round(float(row["mean_high"]), 1)) for row in rows if row["mean_low"]}
    ends = r"([+-]?[\d.]+) to ([+-]?[\d.]+)"
    known = means | {(float(low), float(high)) for low, high in re.findall(ends, pairs + photographs[0])}
    readme = (ROOT / "README.md").read_text()
    question = readme.partition("**Is AOFT better than LoRA?**")[2].partition("```")[0]
    findings = readme.partition("## What it found so far")[2].partition("* **With 8 images")[0]
    shown = {(float(low), float(high)) for low, high in re.findall(ends, question + findings)}
    assert len(shown) >= 8
    assert shown <= known


def test_the_readme_counts_for_whom_the_comparisons_of_aoft_speak() -> None:
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("**Is AOFT better than LoRA?**")[2].partition("\n\nThe last row")[0].split("|--:|\n")[1]
    found = [(float(low), float(high)) for low, high in re.findall(r"\((-?[\d.]+) to (-?[\d.]+)\)", table)]
    aoft, lora = sum(high < 0 for _, high in found), sum(low > 0 for low, _ in found)
    assert (len(found), aoft, lora) == (12, 1, 8)
    assert "One of these twelve comparisons says so, eight say the opposite" in " ".join(readme.split())


def test_few_shots_in_the_readme_are_those_of_the_table() -> None:
    lines = csv.DictReader((ROOT / "docs" / "few-shot" / "few_shots_toy.csv").read_text().splitlines())
    probe = {line["shots"]: line for line in lines if line["spec"] == "linear"}
    found = [float(probe["8"][name]) for name in ("difference", "difference_low", "difference_high")]
    shown = re.search(r"([\d.]+) points above LoRA \(([\d.]+) to ([\d.]+) over", (ROOT / "README.md").read_text())
    assert shown
    assert [float(text) for text in shown.groups()] == pytest.approx(found, abs=0.055)  # the table has two digits
    assert float(probe["16"]["difference_low"]) < 0 < float(probe["16"]["difference_high"])


def test_readme_recommends_the_first_of_the_leaderboard_it_shows() -> None:
    readme = (ROOT / "README.md").read_text()
    (shown,) = set(re.findall(r"\((results/boards/[^/]+)/", readme))
    first = next(csv.DictReader((ROOT / shown / "leaderboard.csv").read_text().splitlines()))
    assert (first["rank"], first["spec"]) == ("1", "lora")
    assert "Begin with LoRA" in readme


def table_against_lora(after: str) -> list[tuple[str, float, float]]:
    """Return method and interval in a table of docs/results.md, which a test compares with the records."""
    table = (ROOT / "docs" / "results.md").read_text().partition(after)[2].partition("\n* ")[0]
    rows = re.findall(r"^\| `(\w+)` .*? ([+-][\d.]+) to ([+-][\d.]+) ", table, re.MULTILINE)
    return [(method, float(low), float(high)) for method, low, high in rows]


def test_comparisons_with_lora_in_the_readme_are_those_of_the_tables() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    rivals = table_against_lora("The methods that change q and v alone, compared")
    shown = re.search(r"None of (\d+) rivals of LoRA .*?(\d+) are below", readme)
    assert shown
    assert [*map(int, shown.groups())] == [len(rivals), sum(high < 0 for _, _, high in rivals)]
    assert not any(low > 0 for _, low, _ in rivals)
    above = table_against_lora("What is above LoRA")
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    total, below = re.findall(r"Of (\d+) methods with three seeds, .*?and (\d+) are below", page)[0]
    assert f"{len(above)} of {total} methods are above LoRA there**, untuned, and {below} are below" in readme
    assert f"None of the {len(above)} changes q and v alone" in readme
    assert not {METHODS[method].targets for method, _, _ in above} & {"q, v"}


def test_differences_after_100_epochs_are_those_of_the_leaderboard() -> None:
    (board,) = (RESULTS / "boards").glob("own--*--uniform--ec3ac0")
    lines = csv.DictReader((board / "leaderboard.csv").read_text().splitlines())
    rows = {line["spec"]: line for line in lines}
    photographs = ("caltech101", "cifar10", "dtd_10cls", "oxford_flowers102_89cls")
    differences = [
        sum(float(rows["lora"][f"accuracy_{task}"]) - float(rows["aoft_lora"][f"accuracy_{task}"]) for task in tasks)
        / len(tasks)
        for tasks in (photographs, ("dsprites_loc", "dsprites_ori"))
    ]
    page = (ROOT / "docs" / "results.md").read_text()
    shown = re.search(r"LoRA is then ([\d.]+)\s+points above AOFT-LoRA on four .*? and ([\d.]+) on the shapes", page)
    assert shown
    assert [float(text) for text in shown.groups()] == [round(difference, 1) for difference in differences]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"with one seed, it is {shown[1]} points above AOFT-LoRA" in readme


def test_leaders_in_the_readme_are_those_of_the_toy_leaderboard() -> None:
    text = (ROOT / "README.md").read_text()
    (board,) = (ROOT / "results" / "boards").glob("*" + re.findall(r"--leaderboard (\S+)", text)[0])
    ranks = (board / "significance.md").read_text().partition("| average rank |")[2].splitlines()[2:5]
    mean = [row["method"] for row in csv.DictReader((board / "leaderboard.csv").read_text().splitlines())][:3]
    shown = re.search(r"by average rank over tasks\s+(\S+) is followed by (\S+) and (\S+)\.", text)
    assert shown
    assert [*shown.groups()] == [line.split("|")[1].strip() for line in ranks]
    assert mean == ["Mona", "Convpass", "Convpass-attn"]
    assert re.search(r"means there\*\*: Mona at .*Convpass at .*Convpass in attention alone at", text, re.DOTALL)
