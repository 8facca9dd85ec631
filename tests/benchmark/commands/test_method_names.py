"""A misspelt method is refused without torch, and names and titles read from the sources are those of the registry."""

import subprocess
import sys

import pytest
from vtab_peft.benchmark.commands.method_names import check_names, titles_by_name
from vtab_peft.methods import METHODS


def test_sources_have_the_names_and_titles_of_the_registry() -> None:
    of_suite = {name: cls.title for name, cls in METHODS.items() if ".methods." in cls.__module__}
    assert titles_by_name() == of_suite


@pytest.mark.parametrize(
    "spec", ["lora", "lora(rank=4)", "LoRA", "lOrA(rank=4)", "Linear probe", "all", "lora(", "a b"]
)
def test_what_the_worker_reads_or_refuses_itself_passes(spec: str) -> None:
    check_names([spec])


@pytest.mark.parametrize(("spec", "near"), [("lorra", "lora"), ("AOFT_LORA_(rank=4)", "aoft_lora"), ("zzzz", "zzzz")])
def test_a_misspelt_name_is_refused_with_the_nearest(spec: str, near: str) -> None:
    with pytest.raises(ValueError, match=near):
        check_names(["lora", spec])


def test_a_misspelt_name_starts_no_worker() -> None:
    code = (
        "import sys; from vtab_peft.benchmark.cli import main; "
        "status = main('run --suite toy --backbone toy_vit --recipe toy --methods lorra'.split()); "
        "sys.exit(status if 'torch' not in sys.modules else 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "lora" in done.stderr
