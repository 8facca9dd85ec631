"""Check errors by their type and by the facts that their messages name, not by their wording."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from vtab_peft.methods import parse


@contextmanager
def raises(error: type[Exception], *facts: object) -> Iterator[None]:
    """Expect an error of this type whose message names each fact, such as a field and its value."""
    with pytest.raises(error) as caught:
        yield
    check_facts(str(caught.value), facts)


def assert_refused(spec: str, *facts: object) -> None:
    """Check that a method spec is refused with a message that names each fact apart from the spec itself."""
    with pytest.raises(ValueError) as caught:
        parse(spec)
    check_facts(str(caught.value).removeprefix(f"{spec}: "), facts)


def check_facts(message: str, facts: tuple[object, ...]) -> None:
    missing = [fact for fact in facts if not re.search(rf"(?<!\w){re.escape(str(fact))}(?!\w)", message)]
    assert not missing, f"{message!r} does not name {missing}"
