"""Names on the page that the browser opens, and ways to read its table."""

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


def column(page, title: str) -> list[str]:
    """Return the texts of a column."""
    heads = [text.strip() for text in page.locator("#table > thead th").all_inner_texts()]
    place = heads.index(title)
    return [row.locator("> *").nth(place).inner_text().strip() for row in page.locator("#table tr.row").all()]


def methods(page) -> list[str]:
    return column(page, "method")


def sort_by(page, title: str) -> None:
    page.locator("#table > thead").get_by_role("button", name=title, exact=True).click()
