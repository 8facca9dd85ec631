"""Check errors by their type and by the facts that their messages name."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def raises(error: type[Exception], *facts: object) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """Expect an error of this type whose message names each fact, such as a field and its value."""
    with pytest.raises(error) as caught:
        yield caught
    missing = [fact for fact in facts if str(fact) not in str(caught.value)]
    assert not missing, f"{caught.value} does not name {missing}"
