"""The repository's own results: every record is sound, and what people read is what the records say."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tabulate import tabulate
from vtab_peft.benchmark.judging.report import write
from vtab_peft.benchmark.store import Store
from vtab_peft.benchmark.toy_vit import WEIGHTS
from vtab_peft.benchmark.toy_vit.transfer import transfer_table
from vtab_peft.datasets.tasks import suite_tasks

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


def test_every_record_is_sound() -> None:
    complaints: list[str] = []
    runs = Store(RESULTS).frame(complaints)
    assert not complaints
    assert len(runs) > 0


def test_derived_texts_are_up_to_date(tmp_path: Path) -> None:
    """Run `vtab-peft report` when this fails.  Figures are left out: they depend on matplotlib's version."""
    rebuilt = {path.relative_to(tmp_path): path for path in write(Store(RESULTS), tmp_path).paths}
    texts = {name for name in rebuilt if name.suffix in (".md", ".csv", ".tex")}
    assert texts
    for name in texts:
        assert rebuilt[name].read_text() == (RESULTS / name).read_text(), name
    page = Path("index.html")
    assert without_figures(rebuilt[page]) == without_figures(RESULTS / page)


def without_figures(page: Path) -> tuple[str, Any, str]:
    """What stands before the page's data, the data with no more of a figure than its name, and what stands after."""
    start, data, end = re.split(r'(?<=id="data">)(.*?)(?=</script>)', page.read_text(encoding="utf-8"), flags=re.DOTALL)
    content = json.loads(data)
    for board in content["boards"]:
        board["figures"] = list(board["figures"])
    return start, content, end


@pytest.mark.parametrize("readme", [WEIGHTS.parent / "README.md"], ids=["toy_vit/README.md"])
def test_transfer_table_is_what_the_records_say(readme: Path) -> None:
    assert transfer_table(Store(RESULTS).frame([])) in readme.read_text()


def test_table_of_starts_is_what_the_records_say() -> None:
    page = (ROOT / "docs" / "aoft.md").read_text()
    table = starts_table(Store(RESULTS).frame([]))
    assert table in page, f"put this into docs/aoft.md:\n{table}"


def starts_table(runs: pd.DataFrame) -> str:
    """Validation accuracy in percent of every variant of `aoft_lora` on the toy suite, best mean first."""
    chosen = runs[(runs["split"] == "val") & (runs["suite"] == "toy") & runs["spec"].str.startswith("aoft_lora")]
    tasks = list(suite_tasks("toy"))
    table = chosen.pivot_table(index="spec", columns="task", values="accuracy")[tasks] * 100
    table["mean"] = table.mean(axis=1)
    rows = [[f"`{spec}`", *row] for spec, *row in table.sort_values("mean", ascending=False).itertuples()]
    return tabulate(rows, ["spec", *tasks, "mean"], tablefmt="pipe", floatfmt=".1f")
