"""The table of the page: columns, ranks, filters, details of rows, and the address of a view."""

import csv
import json
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from browser_page import HOSTILE, column, methods, sort_by
from scipy import stats
from vtab_peft.benchmark.reporting.report import write
from vtab_peft.benchmark.reporting.tables import count, learning_rate, percent, signed

pytestmark = pytest.mark.browser


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


def test_differences_are_rounded_as_in_the_tables(open_page) -> None:
    points = [place / 200 for place in range(-2000, 2001)]  # every tenth is a tie of one decimal
    shown = open_page().evaluate("values => values.map((value) => signed(value, 1))", points)
    assert [text.replace("−", "-").removeprefix("±") for text in shown] == [signed(value) for value in points]


def test_parameters_are_printed_as_in_the_tables(open_page) -> None:
    numbers = [*range(1200), *range(1005, 120_000, 5), *range(1_005_000, 120_000_000, 5000)]  # half of them ties
    assert open_page().evaluate("numbers => numbers.map(count)", numbers) == [count(number) for number in numbers]


def test_learning_rates_are_printed_as_in_the_tables(open_page) -> None:
    rates = [1e-3, 2.5e-4, 0.1 / 3, 1, 30]
    assert open_page().evaluate("rates => rates.map(rate)", rates) == [learning_rate(rate) for rate in rates]


def test_tuned_rows_have_settings_per_task(open_page, store, put) -> None:
    for task, rate, rank in (("cars", 1e-3, 8), ("flowers", 1e-2, 4)):
        put(task, "lora", 0, 0.5, tuned=True, lr=rate, args={"rank": rank}, spec=f"lora(rank={rank})", asked="lora")
    write(store, store.root)
    page = open_page(folder=store.root)
    assert column(page, "lr") == ["per task"]
    page.get_by_role("button", name="LoRA", exact=True).click()
    assert "per task" in page.locator(".detail dl div", has_text="arguments").inner_text()


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
    ordered = "down => ordered([null, 0, 2, null, 1], { decimals: 1, value: (row) => row }, down)"
    assert page.evaluate(ordered, False) == [0, 1, 2, None, None], "a gap is last also beside an accuracy of 0"
    assert page.evaluate(ordered, True) == [2, 1, 0, None, None]


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
