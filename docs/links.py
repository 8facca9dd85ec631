"""Hook of mkdocs: show links that leave docs/ as plain text, since the site holds only this folder."""

import re
from typing import Any

OUTSIDE = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?:\.\./)+[^)\s]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the Markdown of a page with only those links that the site can follow."""
    return OUTSIDE.sub(r"\2", markdown)
