"""Check refused method specs by the facts that the error names, not by its wording."""

import re

import pytest
from vtab_peft.methods import parse


def assert_refused(spec: str, *facts: object) -> None:
    """Check that a method spec is refused, and that the message apart from the spec names each fact as a word."""
    with pytest.raises(ValueError) as caught:
        parse(spec)
    message = str(caught.value).removeprefix(f"{spec}: ")
    missing = [fact for fact in facts if not re.search(rf"(?<!\w){re.escape(str(fact))}(?!\w)", message)]
    assert not missing, f"{message!r} does not name {missing}"
