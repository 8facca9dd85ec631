"""Expect an error by its type and by the facts that its message must name, independent of wording."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def raises_naming(error: type[Exception], *facts: object) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """Expect `error` with a message that contains the text of every fact, such as a path or a number."""
    with pytest.raises(error) as caught:
        yield caught
    missing = [str(fact) for fact in facts if str(fact) not in str(caught.value)]
    assert not missing, f"the message lacks {missing}: {caught.value}"
