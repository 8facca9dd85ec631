"""The bytes of the page: numbers of the leaderboard, one file, escaped names."""

import base64
import csv
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from leaderboards import only_with_runs
from scipy.stats import wilcoxon
from vtab_peft.benchmark import __version__
from vtab_peft.benchmark.escaping import html_json
from vtab_peft.benchmark.reporting.html.agreement import disagreement
from vtab_peft.benchmark.reporting.html.evidence import student
from vtab_peft.benchmark.reporting.report import write

HOSTILE = "</script><img src=x onerror=alert(1)><!--<script>"


class Elements(HTMLParser):
    """Every element with its attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag in ("script", "style")
        if self.inside:
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data


@pytest.fixture
def page(store, put, tmp_path):
    """Writes the report of what was put; returns the page's text and its data."""

    def page() -> tuple[str, dict]:
        write(store, tmp_path / "out")
        text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
        data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
        assert data
        return text, json.loads(data[1])

    return page


def fill(put, title: str = "LoRA", task: str = "flowers") -> None:
    for seed in range(3):
        put(task, "lora", seed, 0.6 + 0.01 * seed, title=title)
        put("cars", "lora", seed, 0.5, title=title, group="structured")
    put(task, "linear", 0, 0.4, title="Linear", params=0)


def test_page_has_the_numbers_of_the_leaderboard(page, put, tmp_path) -> None:
    fill(put)
    (leaderboard,) = page()[1]["leaderboards"]
    with (tmp_path / "out" / "boards" / leaderboard["slug"] / "leaderboard.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    names = [task["name"] for task in leaderboard["tasks"]]
    for row, line in zip(leaderboard["rows"], lines, strict=True):
        assert (row["label"], str(row["params"]), row["spec"]) == (
            line["method"],
            line["trainable_params"],
            line["spec"],
        )
        for name, value in zip(names, row["accuracy"], strict=True):
            assert ("" if value is None else f"{value:.2f}") == line[f"accuracy_{name}"]
        assert ("" if row["means"]["mean_tasks"] is None else f"{row['means']['mean_tasks']:.2f}") == line["mean_tasks"]


def test_rows_say_how_their_method_was_verified(page, put) -> None:
    fill(put)
    put("cars", "lora", 0, 0.5, title="My LoRA", plugin="ee" * 32)
    (leaderboard,) = page()[1]["leaderboards"]
    evidence = {row["label"]: row["evidence"] for row in leaderboard["rows"]}
    assert evidence["LoRA"].startswith("authors' module (microsoft/LoRA@")
    assert evidence["Linear"] == "closed form"
    assert evidence["My LoRA"] == ""


def test_every_accuracy_links_to_its_run(page, put, store, tmp_path) -> None:
    """Links begin at the folder of the page, which need not be that of the runs."""
    fill(put)
    data = page()[1]
    (leaderboard,) = data["leaderboards"]
    found = set()
    for row in leaderboard["rows"]:
        for task, runs in zip(leaderboard["tasks"], row["runs"], strict=True):
            for seed, accuracy, file, _, _, environment in runs:
                path = Path(tmp_path, "out", *leaderboard["folder"], task["folder"], row["folder"], file).resolve()
                record = json.loads(path.read_text())
                assert (record["spec"]["seed"], 100 * record["result"]["accuracy"]) == (seed, pytest.approx(accuracy))
                assert data["environments"][environment] == {"device": "cpu (fake)"}
                found.add(path)
    assert found == set(store.root.resolve().rglob("*.json"))


def test_names_cannot_end_the_data_element(page, put) -> None:
    fill(put, title=HOSTILE, task="<b>x")
    text, data = page()
    elements = Elements(text)
    assert [tag for tag, _ in elements.found if tag in ("script", "img", "style")] == ["style", "script", "script"]
    assert json.loads(elements.texts[1]) == data
    assert {row["label"] for row in data["leaderboards"][0]["rows"]} == {HOSTILE, "Linear"}


@pytest.mark.parametrize(
    "text", ["</script>", "</SCRIPT >", "<!-- <script>", "<script", "\u2028", "]]>", "&lt;", '"\\']
)
def test_embedded_data_is_the_same_data(text: str) -> None:
    html = html_json({text: [text]})
    assert json.loads(html) == {text: [text]}
    assert not re.search(r"</|<!|<script|\u2028", html, re.IGNORECASE)


def test_only_the_pages_own_script_and_style_may_run(page, put) -> None:
    fill(put)
    elements = Elements(page()[0])
    policy = next(
        attrs["content"] for _, attrs in elements.found if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy
    style, _, script = elements.texts
    for kind, text in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_page_has_no_external_references(page, put) -> None:
    fill(put)
    elements = Elements(page()[0])
    for tag, attributes in elements.found:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        assert not {"src", "srcset", "style"} & attributes.keys(), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    style, _, script = elements.texts
    assert not re.search(r"url\(|@import", style)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|fetch\(|XMLHttp|import\(", script
    )


def test_figures_are_inside_compressed(page, put, tmp_path) -> None:
    fill(put)
    text, data = page()
    figures = data["leaderboards"][0]["figures"]
    assert figures.keys() == {"groups"}  # the table shows the tasks
    folder = tmp_path / "out" / "boards" / data["leaderboards"][0]["slug"]
    assert zlib.decompress(base64.b64decode(figures["groups"])) == (folder / "groups.svg").read_bytes()
    assert "<svg " not in text


def test_rows_name_their_paper_and_costs(page, put) -> None:
    fill(put)
    put("cars", "lora", 0, 0.5, title="My LoRA", plugin="ee" * 32)
    data = page()[1]
    (leaderboard,) = data["leaderboards"]
    rows = {row["label"]: row for row in leaderboard["rows"]}
    assert rows["LoRA"]["paper"] == [2022, "2106.09685", "microsoft/LoRA"]
    assert rows["Linear"]["paper"] is rows["My LoRA"]["paper"] is None
    assert [title for title, _ in leaderboard["measures"]] == ["time (s)", "memory (MB)", "adapter (kB)"]
    assert all(len(row["measures"]) == 3 for row in rows.values())


def test_footer_has_the_version_and_the_newest_run_if_known(page, put, store) -> None:
    fill(put)
    assert page()[1]["version"] == f"vtab-peft {__version__}."
    for day, path in enumerate(sorted(store.root.rglob("*.json")), start=10):
        record = json.loads(path.read_text())
        record["provenance"] |= {"created": f"2026-11-{day}T10:00:00+00:00", "git_sha": "c0ffee" * 6}
        path.write_text(json.dumps(record))
    last = f"2026-11-{day}"
    assert page()[1]["version"] == f"vtab-peft {__version__}; newest run of {last}, at commit c0ffeec0ff."


def test_pairs_have_wilcoxons_p_and_holms(page, put) -> None:
    """scipy's exact test, and Holm's correction by hand: three p-values times 3, 2 and 1, never falling."""
    levels = {"a": 0.6, "b": 0.5, "c": 0.49}
    noise = np.random.default_rng(0).permutation(np.arange(1, 13)) / 1000
    for place in range(12):
        for method, level in levels.items():
            put(f"task{place:02d}", method, 0, level + noise[place] * (-1) ** place * (method == "b"), title=method)
    (leaderboard,) = page()[1]["leaderboards"]
    names = [row["label"] for row in leaderboard["rows"]]
    accuracy = {row["label"]: np.array(row["accuracy"]) for row in leaderboard["rows"]}
    found = leaderboard["over_tasks"]["pairs"]
    for pair, (p, _) in found.items():
        x, y = (accuracy[names[int(place)]] for place in pair.split("-"))
        assert p == pytest.approx(wilcoxon((x - y).round(6), method="exact").pvalue, rel=0.01)
    first, second, third = sorted(found.values())
    assert first[1] == pytest.approx(3 * first[0], rel=0.01)
    assert second[1] == pytest.approx(max(first[1], 2 * second[0]), rel=0.01)
    assert third[1] == pytest.approx(max(second[1], third[0]), rel=0.01)


def test_reason_for_no_test_over_tasks(page, put) -> None:
    fill(put)
    put("flowers", "bitfit", 0, 0.5, title="BitFit")
    put("cars", "bitfit", 0, 0.5, title="BitFit")
    (leaderboard,) = page()[1]["leaderboards"]
    assert "2 tasks and 1 pair" in leaderboard["over_tasks"]["reason"]


def test_intervals_use_students_t() -> None:
    """Table of the t distribution, 97.5 %, 2 to 4 degrees of freedom."""
    assert student(5) == pytest.approx({3: 4.3027, 4: 3.1824, 5: 2.7764}, abs=1e-4)
    assert student(2) == {}


def test_disagreement_is_that_of_the_command(store, fake, page) -> None:
    """Rows without all predictions are left out; a row with one seed has no number of its own."""
    classes = {
        ("a", 0): [0, 0, 0, 0], ("a", 1): [0, 0, 0, 1], ("b", 0): [1, 1, 0, 0], ("b", 1): [1, 1, 0, 1],
        ("c", 0): [0, 0, 1, 1], ("d", 0): [0, 0, 0, 0],
    }  # fmt: skip
    for (method, seed), predicted in classes.items():
        correct = np.array(predicted) == 0
        record = fake.record(float(correct.mean()), title=method)
        path = store.save(fake.spec("flowers", method, seed), record, np.array(predicted), correct)
        if method == "d":
            path.with_suffix(".npz").unlink()
    (board,) = page()[1]["leaderboards"]
    found = board["disagreement"]
    assert sorted(found["labels"]) == ["a", "b", "c"]
    assert dict(zip(found["labels"], found["seeds"], strict=True)) == {"a": None, "b": None, "c": 0}
    shown = {}
    for i, row in enumerate(found["percent"]):
        for j, value in enumerate(row):
            shown["".join(sorted(found["labels"][i] + found["labels"][j]))] = value
    runs = {key: np.array(value) for key, value in classes.items()}

    def apart(*pairs: tuple) -> float:
        return 100 * float(np.mean([runs[i] != runs[j] for i, j in pairs]))

    assert shown["aa"] == apart((("a", 0), ("a", 1)))
    assert shown["ab"] == apart((("a", 0), ("b", 1)), (("a", 1), ("b", 0)))
    assert shown["cc"] is None
    assert shown["ac"] == apart((("a", 1), ("c", 0)))  # the run with another seed


def test_disagreement_of_many_methods_stays_small(store, fake) -> None:
    for method in range(70):
        predicted = np.random.default_rng(method).integers(0, 5, 100)
        record = fake.record(float((predicted == 0).mean()), title=f"Method {method}")
        store.save(fake.spec("flowers", f"method_{method}"), record, predicted, predicted == 0)
    found = disagreement(*only_with_runs(store))
    assert len(found["labels"]) == 70
    assert len(json.dumps(found)) < 25_000


def test_page_shows_no_number_twice(page, put):
    put("flowers", "lora", 0, 0.5)
    (leaderboard,) = page()[1]["leaderboards"]
    assert leaderboard["means"] == [["mean_tasks", "flowers"]]
    put("cars", "lora", 0, 0.5, group="structured")
    (leaderboard,) = page()[1]["leaderboards"]
    assert (leaderboard["means"], leaderboard["groups"]) == ([["mean_tasks", "mean of 2 tasks"]], [])
