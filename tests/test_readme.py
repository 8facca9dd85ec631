"""The README's claims about the repository's results are what the records say."""

import csv
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


def test_intervals_in_the_readme_are_those_of_the_comparisons() -> None:
    """`test_results.py` and `test_tuned_results.py` compare the tables of pairs in the docs with the records."""
    page = (ROOT / "docs" / "results.md").read_text()
    pairs = " ".join(part.partition("\n\n")[0] for part in page.split("|   seeds |   A - B |")[1:])
    tuned = re.findall(r"\| mean of \d .*", (ROOT / "docs" / "tuning.md").read_text())
    assert len(tuned) == 2
    (board,) = (RESULTS / "boards").glob("toy--toy_vit--toy--24a427")
    rows = csv.DictReader((board / "leaderboard.csv").read_text().splitlines())
    means = {(round(float(row["mean_low"]), 1), round(float(row["mean_high"]), 1)) for row in rows if row["mean_low"]}
    ends = r"([+-]?[\d.]+) to ([+-]?[\d.]+)"
    known = means | {(float(low), float(high)) for low, high in re.findall(ends, pairs + " ".join(tuned))}
    readme = (ROOT / "README.md").read_text()
    question = readme.partition("**Is AOFT better than LoRA?**")[2].partition("```")[0]
    findings = readme.partition("## What it found so far")[2].partition("* **With 8 images")[0]
    shown = {(float(low), float(high)) for low, high in re.findall(ends, question + findings)}
    assert len(shown) >= 8
    assert shown <= known


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


def test_loras_rivals_in_the_readme_are_those_of_the_table() -> None:
    """`test_results.py` compares the table in docs/results.md with the records."""
    table = (ROOT / "docs" / "results.md").read_text().partition("|   minus LoRA |")[2].partition("\n\n")[0]
    ends = [(float(low), float(high)) for low, high in re.findall(r"([+-][\d.]+) to ([+-][\d.]+)", table)]
    readme = (ROOT / "README.md").read_text()
    shown = re.search(r"None of (\d+) rivals of LoRA .*?(\d+) are\s+below", readme, re.DOTALL)
    assert shown
    assert [int(count) for count in shown.groups()] == [len(ends), sum(high < 0 for _, high in ends)]
    assert not any(low > 0 for low, _ in ends)


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
