"""Every command of today, with every option, is still read as it is today; new ones may be added.

The data are what `record()` in tests/support/freeze.py wrote: `python tests/support/freeze.py`.
"""

from typing import Any

import freeze
import pytest

COMMANDS = freeze.frozen("commands")


@pytest.fixture(scope="module")
def today() -> dict[str, list[dict[str, Any]]]:
    return freeze.commands()


def reads(action: dict[str, Any]) -> dict[str, str]:
    """Return the sample texts that an option accepts, with their values."""
    found = action["reads"]
    known = found if isinstance(found, dict) else {"any": found}
    return {text: value for text, value in known.items() if value is not None}


def same(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Choices may grow, a required option may become free, and values that were refused may be read."""
    assert set(before["options"]) <= set(now["options"])
    assert now["required"] <= before["required"]
    assert set(before["choices"] or ()) <= set(now["choices"] or before["choices"] or ())
    assert before["choices"] is not None or now["choices"] is None
    assert reads(before) == {text: value for text, value in reads(now).items() if text in reads(before)}
    names = ("dest", "kind", "nargs", "default")
    assert {name: now[name] for name in names} == {name: before[name] for name in names}


def test_every_command_is_there(today: dict) -> None:
    assert set(COMMANDS) <= set(today)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_what_it_took(today: dict, name: str) -> None:
    now = {option: action for action in today[name] for option in action["options"]}
    for action in COMMANDS[name]:
        for option in action["options"]:
            assert option in now, option
            same(action, now[option])


@pytest.mark.parametrize("name", COMMANDS)
def test_positional_arguments_are_the_same_and_nothing_new_is_required(today: dict, name: str) -> None:
    before, now = ([a for a in actions[name] if not a["options"]] for actions in (COMMANDS, today))
    for old, new in zip(before, now, strict=False):
        same(old, new)
    assert len(now) >= len(before)
    assert all(action["nargs"] == "*" for action in now[len(before) :])
    known = {action["dest"] for action in COMMANDS[name]}
    assert not [action["dest"] for action in today[name] if action["required"] and action["dest"] not in known]
