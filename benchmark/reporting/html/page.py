"""Build `index.html` from the template, style, script and data.

Names in results cannot run code or use the network.  Data is JSON in an inert element that it cannot close, the script
only creates text nodes from it, and the content security policy allows one script and one style by their hashes.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from ...escaping import html_json
from .content import LeaderboardReport, content

SCRIPTS = ("base.js", "table.js", "compare.js", "scatter.js", "published.js", "controls.js")


def page(parts: Sequence[LeaderboardReport], out: Path) -> bytes:
    """Return the bytes of `index.html` for the folder `out`."""
    style, template = _read("page.css"), _read("page.html")
    script = "\n".join(map(_read, SCRIPTS))
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src blob:"
    values = {"policy": policy, "style": style, "script": script, "data": html_json(content(parts, out))}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template).encode()


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
