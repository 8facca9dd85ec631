"""Access to the page: keyboard, names, themes, narrow screens, hostile names, and no network."""

from pathlib import Path

import pytest
from browser_page import CLOSING, HOSTILE, methods

pytestmark = pytest.mark.browser
AXE = Path(__file__).parents[4] / "node_modules" / "axe-core" / "axe.min.js"


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
