"""The leaderboard page in a real browser, opened from disk."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from scipy import stats
from vtab_peft.benchmark.reporting.report import write
from vtab_peft.benchmark.reporting.tables import count, percent
from vtab_peft.benchmark.spec import BackboneRef
from vtab_peft.benchmark.storage.store import Store
from vtab_peft.datasets.tasks import suite_tasks

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api", reason='pip install "vtab-peft[browser]"')

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = Path(__file__).parents[3] / "node_modules" / "axe-core" / "axe.min.js"
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
AUGREG = BackboneRef(name="vit_base_patch16_224.augreg_in21k", sha256="ab" * 32)
HOSTILE = "<img src=x onerror=\"document.title='broken'\">"
CLOSING = "</script><script>document.title='broken'</script>"
METHODS = {  # title, parameters, accuracy on natural, specialized and structured tasks
    "lora": ("LoRA", 294_912, 0.80, 0.80, 0.60),
    "ssf": ("SSF", 205_824, 0.70, 0.95, 0.60),  # below LoRA by the mean of 19, above by the mean of 3 groups
    "vpt_deep": ("VPT-Deep", 460_800, 0.60, 0.60, 0.50),
    "bitfit": ("BitFit", 102_912, 0.55, 0.65, 0.50),
    "linear": ("Linear probe", 0, 0.50, 0.60, 0.30),
    "hostile": (HOSTILE, 1_000, 0.40, 0.40, 0.40),
}


METHODS_SHOWN = [title for title, *_ in METHODS.values()]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, fake: SimpleNamespace) -> Path:
    """Store four leaderboards.

    One has six methods on 19 tasks with 3 seeds, of which BitFit lacks a task.  A small one has hostile names.  The
    third has only one complete row, the last procedural images and the most complete rows.
    """
    root = tmp_path_factory.mktemp("browser") / "results"
    store = Store(root)

    def put(task: str, method: str, seed: int, accuracy: float, title: str, group: str, params: int, **facts) -> None:
        record = fake.record(accuracy, title=title, group=group, params=params)
        record["provenance"] |= {"created": "2026-11-25T10:00:00+00:00", "git_sha": "c0ffee" * 6, "git_dirty": False}
        correct = np.arange(4) < 4 * accuracy  # predictions without a fault where the accuracy is 0.5
        store.save(fake.spec(task, method, seed, **facts), record, np.zeros(4, dtype=np.int64), correct)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        for method, (title, params, *levels) in METHODS.items():
            for task in suite_tasks("vtab1k").values():
                level = levels[("natural", "specialized", "structured").index(task.group)]
                for seed in range(3):
                    if (method, task.name) != ("bitfit", "dmlab"):
                        facts = {"suite": "vtab1k", "provenance": "lossless", "recipe": "uniform", "backbone": AUGREG}
                        put(task.name, method, seed, level + 0.01 * seed, title, task.group, params, **facts)
        for title, method in ((HOSTILE, "one"), (CLOSING, "two")):
            put("<b>bold", method, 0, 0.5, title, "<i>group", 10)
            put("cars", method, 0, 0.5, title, "other", 10)
        for number in range(40):
            for task in list(suite_tasks("vtab1k"))[: 4 if number else 5]:
                facts = {"suite": "zoo", "recipe": "smoke", "backbone": BackboneRef(name="toy_vit", sha256="70" * 32)}
                put(task, f"method_{number}", 0, 0.5, f"Method {number}", "other", 10, **facts)
        for method in map(str, range(80)):  # more runs than any other leaderboard, but no photographs
            facts = {"suite": "toy", "provenance": "lossless", "recipe": "toy"}
            for task in ("texture", "cells"):
                put(task, method, 0, 0.5, f"Method {method}", "natural", 10, **facts)
        write(store, root)
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, results) -> Iterator:
    """Opens the page; when the test ends, nothing was asked of the network and nothing complained."""
    contexts, complaints = [], []

    def open_page(fragment: str = "", **settings):
        contexts.append(browser.new_context(**settings))
        contexts[-1].set_default_timeout(10_000)
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: complaints.append(request.url) if "file:" not in request.url[:5] else None)
        page.goto((results / "index.html").as_uri() + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in complaints if not text.startswith("blob:")] == []


def column(page, title: str) -> list[str]:
    """Return the texts of a column."""
    heads = [text.strip() for text in page.locator("#table > thead th").all_inner_texts()]
    place = heads.index(title)
    return [row.locator("> *").nth(place).inner_text().strip() for row in page.locator("#table tr.row").all()]


def methods(page) -> list[str]:
    return column(page, "method")


def sort_by(page, title: str) -> None:
    page.locator("#table > thead").get_by_role("button", name=title, exact=True).click()


def test_opens_the_most_realistic_leaderboard(open_page) -> None:
    page = open_page()
    assert methods(page)[:2] == ["LoRA", "SSF"]
    assert column(page, "#") == ["1", "2", "3", "4", "5", "—"]
    assert methods(page)[-1] == "BitFit"  # lacks a task: no rank, last
    assert page.locator("#count").inner_text() == "6 of 6 methods, sorted by mean of 19 tasks"
    assert page.title() == "vtab-peft leaderboards"


def test_link_to_an_unknown_leaderboard_shows_a_message(open_page, results) -> None:
    page = open_page("#vtab1k--gone--100%")
    message = page.locator("#missing")
    assert "vtab1k--gone--100%" in message.inner_text()
    assert page.locator("#count").inner_text().startswith("6 of 6 methods")
    slug = next(path.name for path in (results / "boards").iterdir() if "--smoke--" in path.name)
    page.select_option("#leaderboard-name", slug)
    page.wait_for_function("document.querySelector('#count').textContent.startsWith('40 of 40')")
    assert message.is_hidden()
    page.evaluate("location.hash = 'other--gone'")
    message.wait_for()
    assert "other--gone" in message.inner_text()
    assert page.locator("#count").inner_text().startswith("40 of 40 methods")
    assert open_page(f"#{slug}").locator("#missing").is_hidden()
    there = open_page("#leaderboard")
    assert there.locator("#missing").is_hidden(), "a section of the page"


def test_numbers_are_rounded_as_in_the_tables(open_page) -> None:
    values = [right / 2000 for right in range(2001)]
    shown = open_page().evaluate(
        "(values) => values.map((value) => fixed(value, 1))", [100 * value for value in values]
    )
    assert shown == [percent(value) for value in values]


def test_parameters_are_printed_as_in_the_tables(open_page) -> None:
    numbers = [*range(1200), *range(1005, 120_000, 5), *range(1_005_000, 120_000_000, 5000)]  # half of them ties
    assert open_page().evaluate("numbers => numbers.map(count)", numbers) == [count(number) for number in numbers]


def test_columns_sort_in_both_directions(open_page) -> None:
    page = open_page()
    sort_by(page, "params")
    assert column(page, "params") == ["0", "1.00k", "103k", "206k", "295k", "461k"]
    head = page.locator("#table th[aria-sort]")
    assert (head.count(), head.inner_text().strip(), head.get_attribute("aria-sort")) == (1, "params", "ascending")
    sort_by(page, "params")
    assert column(page, "params")[0] == "461k"
    assert head.get_attribute("aria-sort") == "descending"
    sort_by(page, "dmlab")
    assert column(page, "dmlab")[-1] == "—"
    sort_by(page, "dmlab")
    assert column(page, "dmlab")[-1] == "—"  # a gap is last either way
    assert column(page, "dmlab")[0] == "31.0"


def test_the_mean_is_chosen_and_ranks_follow(open_page) -> None:
    """LoRA: (7 x 81 + 4 x 81 + 8 x 61) / 19 = 72.58 and (81 + 81 + 61) / 3 = 74.33; SSF: 72.05 and 76.00."""
    page = open_page()
    assert column(page, "mean of 19 tasks")[:2] == ["72.58 ± 1.00", "72.05 ± 1.00"]
    page.get_by_text("mean of 3 groups", exact=True).first.click()
    assert methods(page)[:2] == ["SSF", "LoRA"]
    assert column(page, "mean of 3 groups")[:2] == ["76.00", "74.33"]
    assert column(page, "#")[:2] == ["1", "2"]


def test_mean_over_common_tasks_ranks_nothing(open_page) -> None:
    """BitFit lacks dmlab: (7 x 56 + 4 x 66 + 7 x 51) / 18 = 56.28, and VPT-Deep (11 x 61 + 7 x 51) / 18 = 57.11."""
    page = open_page()
    common = "mean of the 18 that all have"
    assert page.locator("#means").get_by_text(common).count() == 0
    sort_by(page, common)
    assert methods(page)[2:4] == ["VPT-Deep", "BitFit"]
    assert column(page, common)[2:4] == ["57.11", "56.28"]
    assert column(page, "#") == ["1", "2", "3", "—", "4", "5"]
    page.get_by_text("mean of 3 groups", exact=True).first.click()
    assert page.get_by_label("Accuracy on").input_value() == "mean_groups"


def test_unranked_rows_keep_the_order_of_the_tables(open_page, results) -> None:
    slug = next(path.name for path in (results / "boards").iterdir() if path.name.startswith("zoo--"))
    with (results / "boards" / slug / "leaderboard.csv").open() as file:
        assert methods(open_page(f"#{slug}")) == [row["method"] for row in csv.DictReader(file)]


def test_procedural_leaderboards_stand_under_a_banner(open_page, results) -> None:
    page = open_page()
    assert page.locator("#banner").is_hidden()
    inside = page.locator("#leaderboard-name optgroup option")
    (slug,) = [path.name for path in (results / "boards").iterdir() if path.name.startswith("toy--")]
    assert [option.get_attribute("value") for option in inside.all()] == [slug]
    assert "rocedural" in open_page(f"#{slug}").locator("#banner").inner_text()


def test_rows_are_filtered_by_family_name_and_parameters(open_page) -> None:
    page = open_page()
    page.get_by_label("Family").select_option("prompt")
    assert methods(page) == ["VPT-Deep"]
    page.get_by_label("Family").select_option("")
    page.get_by_label("Method", exact=True).fill("lor")
    assert methods(page) == ["LoRA"]
    assert column(page, "#") == ["1"]
    page.get_by_label("Method", exact=True).fill("")
    slider = page.get_by_label("Parameters up to")
    slider.focus()
    slider.press("Home")
    assert methods(page) == ["Linear probe"]
    slider.press("ArrowRight")
    assert sorted(methods(page)) == [HOSTILE, "Linear probe"]
    assert "2 of 6" in page.get_by_role("status").inner_text()


def test_group_shows_its_tasks_and_ranks_by_its_mean(open_page) -> None:
    page = open_page()
    page.get_by_label("Columns").select_option("specialized")
    heads = [text.strip() for text in page.locator("#table > thead th").all_inner_texts()]
    assert heads[3] == "mean of specialized"
    assert heads[-4:] == ["patch_camelyon", "eurosat", "resisc45", "diabetic_retinopathy"]
    assert methods(page)[0] == "SSF"
    assert "BitFit" in methods(page)[:4]  # complete within this group
    page.get_by_label("Columns").select_option("means")
    assert page.locator("#table > thead th").count() == 15  # with the mean over the common tasks, time, memory and size
    page.get_by_label("Columns").select_option("costs")
    heads = [text.strip() for text in page.locator("#table > thead th").all_inner_texts()]
    assert "natural" not in heads
    assert column(page, "time (s)")[:2] == ["1,220", "1,220"]  # 19 times 64 s, in three digits


def test_backbone_filter_and_address_of_a_leaderboard(open_page) -> None:
    page = open_page()
    page.get_by_label("Backbone").select_option("vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert page.locator("#leaderboard-name").locator("option").count() == 2  # photographs, then procedural images
    assert column(page, "mean of 2 tasks") == ["50.00", "50.00"]
    page.get_by_label("Backbone").select_option("")
    page.locator("#leaderboard-name").select_option(index=1)
    assert "#vtab1k" in page.url
    assert "LoRA" in methods(open_page("#" + page.url.partition("#")[2]))


def test_row_details_open_by_keyboard(open_page, results) -> None:
    page = open_page()
    button = page.get_by_role("button", name="LoRA", exact=True)
    assert button.get_attribute("aria-expanded") == "false"
    button.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "LoRA"  # focus stays
    assert button.get_attribute("aria-expanded") == "true"
    runs = page.get_by_role("region", name="runs of LoRA")
    assert runs.locator("tbody tr").count() == 19 * 3
    first = runs.locator("tbody tr").first.locator("td").all_inner_texts()
    wilson = stats.binomtest(8_000, 10_000).proportion_ci(method="wilson")  # CIFAR-100 has 10,000 test images
    assert first[:5] == ["cifar", "0", "80.00", f"{100 * wilson.low:.1f} to {100 * wilson.high:.1f}", "60 s"]
    assert first[6:9] == ["2026-11-25 10:00", "c0ffeec0ff", "1"]
    assert "Environment 1: cpu (fake)" in page.locator(".detail").inner_text()
    file = Path(unquote(urlparse(runs.locator("a").first.evaluate("a => a.href")).path))
    assert json.loads(file.read_text())["spec"]["task"]["name"] == "cifar"
    page.keyboard.press("Enter")
    assert page.locator(".detail").count() == 0


def test_two_selected_rows_are_compared(open_page) -> None:
    page = open_page()
    page.get_by_label("compare SSF").check()
    page.get_by_label("compare LoRA").check()
    text = page.locator("#comparison").inner_text()
    assert re.findall(r"[\d.]+", text.partition("Over tasks")[0]) == ["0.53", "19", "4", "7", "8."]
    lines = page.locator("#comparison table").first.locator("tbody tr").all_inner_texts()
    assert lines[0].split() == ["cifar", "71.0", "81.0", "−10.0", "−10.0", "to", "−10.0"]
    page.get_by_role("button", name="remove LoRA").click()
    assert not page.get_by_label("compare LoRA").is_checked()
    page.get_by_label("Add").select_option("BitFit")
    assert "over 18 tasks" in page.locator("#comparison").inner_text()
    assert page.get_by_label("compare BitFit").is_checked()


def test_several_methods_are_compared_with_the_first(open_page) -> None:
    page = open_page()
    for name in ("LoRA", "SSF", "Linear probe"):
        page.get_by_label("Add").select_option(name)
    lines = page.locator("#comparison tbody tr").all_inner_texts()
    assert lines[0].split("\t")[:6] == [
        "cifar",
        "81.0",
        "71.0",
        "−10.0 (−10.0 to −10.0)",
        "51.0",
        "−30.0 (−30.0 to −30.0)",
    ]
    assert page.locator("#comparison li").count() == 2
    page.get_by_role("button", name="measure differences from SSF").click()
    assert page.locator("#comparison tbody tr").first.inner_text().split("\t")[:3] == ["cifar", "71.0", "81.0"]
    page.get_by_role("button", name="Clear").click()
    assert page.locator("#comparison table").count() == 0
    assert page.locator(".row input:checked").count() == 0


def test_scatter_shows_the_front_of_the_filtered_rows(open_page) -> None:
    """LoRA dominates VPT-Deep; SSF, LoRA, the probe and the smallest are the front.  BitFit has no mean."""
    page = open_page()
    names = "elements => elements.map(element => element.getAttribute('aria-label').split(' · ')[0])"
    assert set(page.locator("#scatter .point").evaluate_all(names)) == {*METHODS_SHOWN} - {"BitFit"}
    assert page.locator("#scatter .point.best").evaluate_all(names) == ["Linear probe", "SSF", "LoRA"]
    page.get_by_label("Family").select_option("prompt")
    assert page.locator("#scatter .point.best").evaluate_all(names) == ["VPT-Deep"]
    page.get_by_label("Family").select_option("")
    page.locator("#y").select_option("group specialized")
    assert page.locator("#scatter .point.best").evaluate_all(names) == ["Linear probe", "BitFit", "SSF"]
    page.locator("#x").select_option("task 0")
    page.locator("#point-0").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "point-1"
    assert "specialized (%)" in page.locator("#point").inner_text()
    chosen = page.evaluate("document.activeElement.getAttribute('aria-label').split(' · ')[0]")
    page.keyboard.press("Enter")
    assert page.get_by_label(f"compare {chosen}").is_checked()


def test_the_address_holds_the_view(open_page) -> None:
    page = open_page()
    page.get_by_label("Columns").select_option("structured")
    page.get_by_label("Method", exact=True).fill("r")
    sort_by(page, "params")
    page.get_by_label("compare LoRA").check()
    page.get_by_label("Add").select_option("SSF")
    page.locator("#y").select_option("task 2")
    view = "[...document.querySelectorAll('#table, #comparison, #scatter')].map(element => element.innerText)"
    first = page.evaluate(view)
    again = open_page("#" + page.url.partition("#")[2])
    assert (
        again.evaluate("[...document.querySelectorAll('#table, #comparison, #scatter')].map(e => e.innerText)") == first
    )
    assert again.get_by_label("Method", exact=True).input_value() == "r"
    page.locator("#leaderboard-name").select_option(index=0)
    assert "compare=" not in page.url
    page.go_back()
    page.wait_for_function("document.querySelectorAll('#chosen li').length === 2")
    broken = open_page(
        page.url.partition("#")[2].partition("&")[0].join(("#", "&sort=x&mean=y&limit=z&compare=q&x=&columns=%zz"))
    )
    assert methods(broken)[0] == "LoRA"


def test_csv_holds_what_is_shown(open_page) -> None:
    page = open_page()
    page.get_by_label("Method", exact=True).fill("lor")
    page.get_by_label("Columns").select_option("means")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV of what is shown").click()
    header, line = csv.reader(Path(download.value.path()).read_text().splitlines())
    shown = [text.strip() for text in page.locator("#table > thead th").all_inner_texts()][1:]
    assert [name if name != "+\xa0head" else "params with head" for name in shown] == header
    assert line[1] == "LoRA"
    assert float(line[header.index("mean of 19 tasks")]) == pytest.approx(72.58, abs=0.006)
    said = page.evaluate("state.leaderboard.rows.find(r => r.label === 'LoRA').label = '=1+1, \"x\"', shownAsCsv()")
    assert '"\'=1+1, ""x"""' in said


def test_footer_names_the_newest_run(open_page) -> None:
    assert "newest run of 2026-11-25, at commit c0ffeec0ff" in open_page().locator("footer").inner_text()


def test_a_row_links_to_paper_code_and_method(open_page) -> None:
    page = open_page()
    page.get_by_role("button", name="LoRA", exact=True).click()
    links = page.locator(".detail dl a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert links == ["https://arxiv.org/abs/2106.09685", "https://github.com/microsoft/LoRA", "../docs/methods.md#lora"]


def test_comparison_over_one_task_is_singular(open_page) -> None:
    said = open_page().evaluate("outcome({ label: 'A' }, { label: 'B' }, [{ change: 2 }])")
    assert "2.00 points above B" in said
    assert "1 task:" in said


def test_comparison_shows_intervals_and_p_values(open_page) -> None:
    """scipy 1.17: t.interval of (2, 1, 6) is 3 ± 6.57; Wilcoxon over 19 tasks with one sign is 2^-18 for each."""
    page = open_page()
    page.get_by_label("compare LoRA").check()
    page.get_by_label("compare Linear probe").check()
    text = page.locator("#comparison").inner_text()
    assert text.count("below 0.001") == 2
    assert "all 10 pairs" in text
    page.get_by_role("button", name="remove Linear probe").click()
    page.get_by_label("Add").select_option("BitFit")
    assert "no conclusion" in page.locator("#comparison").inner_text()
    found = page.evaluate("paired([[0, 52], [1, 51], [2, 56], [9, 0]], [[0, 50], [1, 50], [2, 50]])")
    assert (found["x"], found["y"], found["change"]) == (53, 50, 3), "over the common seeds"
    assert found["ends"] == pytest.approx([3 - 6.572, 3 + 6.572], abs=0.001)
    assert page.evaluate("paired([[0, 52], [1, 51]], [[0, 50], [1, 50]])")["ends"] is None
    assert page.evaluate("paired([[0, 52]], [[1, 50]])") == dict.fromkeys(("x", "y", "change", "ends"))
    page.locator("#leaderboard-name").select_option(index=0)
    page.locator(".row input").first.check()
    page.locator(".row input").last.check()
    assert "with 2 tasks" in page.locator("#comparison").inner_text()


def published(page) -> dict[str, list[str]]:
    """Return the lines of the published numbers by method, in the order of the page."""
    return {row.split("\t")[0]: row.split("\t")[1:6] for row in page.locator("#published tbody tr").all_inner_texts()}


def test_published_numbers_have_their_own_section(open_page) -> None:
    page = open_page()
    lines = published(page)
    assert lines["LoRA"] == ["72.6", "68.8 to 73.6", "8", "4.8", "4 yes, 1 no, 3 unknown"]
    assert HOSTILE not in lines
    page.get_by_label("Accuracy on").select_option("svhn")
    assert published(page)["LoRA"][:2] == ["81.0", "76.6 to 88.5"]
    spread = page.locator("#published-spread tbody tr", has_text="LoRA").inner_text().split("\t")
    assert spread[6 + 1 + 1] == "11.9"  # svhn, after the method and two means
    page.locator("#leaderboard-name").select_option(index=0)
    assert "the suite own" in page.locator("#published").inner_text()
    assert not page.locator("#published-spread").inner_text()


def test_published_numbers_sort_by_method_or_any_column(open_page) -> None:
    page = open_page()
    names = list(published(page))
    assert names == sorted(names, key=str.lower)
    page.locator("#published").get_by_role("button", name="spread").click()
    spreads = [float(line[3]) for line in published(page).values() if line[3] != "—"]
    assert spreads == sorted(spreads, reverse=True)
    page.locator("#published").get_by_role("button", name="spread").click()
    assert page.locator("#published th[aria-sort=ascending]").inner_text().startswith("spread")


def test_hostile_names_are_text(open_page) -> None:
    page = open_page()
    assert HOSTILE in methods(page)
    page.locator("#leaderboard-name").select_option(index=0)
    assert set(methods(page)) == {HOSTILE, CLOSING}
    page.get_by_role("button", name=CLOSING, exact=True).click()
    page.get_by_label(f"compare {HOSTILE}").check()
    page.get_by_label(f"compare {CLOSING}").check()
    assert "<b>bold" in page.locator("#comparison").inner_text()
    assert page.locator("img:not(figure img)").count() == 0
    assert page.locator("table b, table i:not(.bar i)").count() == 0
    assert page.title() == "vtab-peft leaderboards"


def test_figures_are_drawn_without_the_network(open_page) -> None:
    page = open_page()
    page.locator("figure img").first.wait_for()
    page.wait_for_function("[...document.images].every(image => image.complete)")
    assert page.locator("figure img").count() >= 2
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0 && image.alt)")


@pytest.mark.parametrize(("scheme", "other"), [("light", "dark"), ("dark", "light")])
def test_the_theme_follows_the_system_and_the_button(open_page, scheme, other) -> None:
    page = open_page(color_scheme=scheme)
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)"
    assert (page.evaluate(brightness) > 600) == (scheme == "light")
    page.get_by_role("button", name=other.capitalize(), exact=True).click()
    assert (page.evaluate(brightness) > 600) == (other == "light")


def test_keyboard_reaches_every_control(open_page) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen, drawn = (
        set(),
        "(document.activeElement.name === 'mean' ? document.activeElement.nextElementSibling : document.activeElement)",
    )
    while (tag := page.evaluate("document.activeElement.tagName")) != "BODY":  # after the last one
        assert page.evaluate(f"getComputedStyle({drawn}).outlineStyle") != "none", tag
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.className || document.activeElement.name"
            )
        )
    assert {
        "theme",
        "backbone",
        "leaderboard-name",
        "mean",
        "group",
        "family",
        "search",
        "limit",
        "open",
        "save",
        "x",
        "y",
        "point-0",
        "add",
        "clear",
        "published-column",
    } <= seen


def test_every_control_has_a_name(open_page) -> None:
    page = open_page()
    unnamed = """[...document.querySelectorAll("button, select, input")].filter(control =>
        !(control.labels?.length || control.getAttribute("aria-label") || control.textContent.trim()))"""
    assert page.evaluate(f"{unnamed}.length") == 0
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("html[lang=en]").count() == 1


@pytest.mark.skipif(not AXE.exists(), reason="npm install --no-save axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page, scheme) -> None:
    page = open_page(color_scheme=scheme)
    for name in ("LoRA", "SSF", "Linear probe"):
        page.get_by_label(f"compare {name}").check()
    page.get_by_role("button", name="LoRA", exact=True).click()
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    assert [(violation["id"], violation["nodes"][0]["html"]) for violation in found] == []


@pytest.mark.parametrize("width", [360, 768])
def test_narrow_screen_scrolls_only_the_table(open_page, width) -> None:
    page = open_page(viewport={"width": width, "height": 800})
    page.get_by_role("button", name="LoRA", exact=True).click()
    page.get_by_label("compare SSF").check()
    page.get_by_label("compare LoRA").check()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_disagreement_is_shown_where_there_are_predictions(open_page, results) -> None:
    page = open_page()
    assert page.locator("#disagreement-section").is_hidden()
    (small,) = [folder.name for folder in (results / "boards").iterdir() if folder.name.startswith("own--")]
    page = open_page(f"#{small}")
    assert page.locator("#disagreement tbody tr").count() == 2
    assert page.locator("#disagreement td").all_inner_texts() == ["\u2014", "0", "0", "\u2014"]
