"""Comparisons on the page: of rows, with published numbers, as a scatter plot, and of predictions."""

import re

import pytest
from browser_page import HOSTILE, METHODS

pytestmark = pytest.mark.browser
METHODS_SHOWN = [title for title, *_ in METHODS.values()]


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


def test_disagreement_is_shown_where_there_are_predictions(open_page, results) -> None:
    page = open_page()
    assert page.locator("#disagreement-section").is_hidden()
    (small,) = [folder.name for folder in (results / "boards").iterdir() if folder.name.startswith("own--")]
    page = open_page(f"#{small}")
    assert page.locator("#disagreement tbody tr").count() == 2
    assert page.locator("#disagreement td").all_inner_texts() == ["\u2014", "0", "0", "\u2014"]
    assert page.locator("#disagreement td .quiet").all_inner_texts() == ["0", "0"], "both have seed 0 alone"
