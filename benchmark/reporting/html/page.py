"""The page's bytes: the template with style, script and data put in.

Nothing on the page can reach the network or run but our own script, whatever names results carry: data is text in an
inert element that cannot be closed from inside, the script only ever makes text nodes of it, and the page's policy
names the hash of the one script and the one style that may be used.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .content import LeaderboardReport, content


def page(parts: Sequence[LeaderboardReport], root: Path) -> bytes:
    """`index.html`; `root` is the results folder that the paths of the runs lie in."""
    style, script = _template("page.css"), _template("page.js")
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src blob:"
    return _filled(
        _template("page.html"), policy=policy, style=style, script=script, data=embedded(content(parts, root))
    ).encode()


def embedded(data: Any) -> str:
    """JSON that no HTML parser can take for the end of the script element it stands in, or for a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    safe = re.sub(r"<(?=[/!]|script)", r"\\u003c", text, flags=re.IGNORECASE)
    return safe.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _filled(template: str, **parts: str) -> str:
    """Each `{{name}}` of the template replaced once; what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _template(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
