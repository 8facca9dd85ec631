"""Tables of LaTeX compile, with any names and with their citations."""

import shutil
import subprocess

import pytest
from leaderboards import HOSTILE, only
from mini_suite import build
from vtab_peft.benchmark.reporting.markup import to_latex
from vtab_peft.benchmark.reporting.report import write

pytestmark = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="no LaTeX: apt-get install texlive-latex-recommended"
)


@pytest.mark.parametrize("tasks", [2, 24], ids=["narrow", "scaled down"])
def test_a_latex_table_of_any_names_compiles(store, put, tmp_path, tasks):
    """Every character up to U+017F, and some beyond, in the names of methods, tasks and groups."""
    characters = "".join(map(chr, range(0x20, 0x180))) + "†…—漢😀α"
    names = [characters[start : start + 40] for start in range(0, len(characters), 40)]
    for number in range(tasks):
        for place, name in enumerate([*names, HOSTILE]):
            title, group = f"{name} {place}", f"g{number % 2}{HOSTILE}"
            put(f"{number} {names[number % len(names)]}", f"m{place}", 0, 0.5, title=title, group=group)
    page = "\n".join(
        [
            r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}",
            to_latex(only(store)),
            r"\end{document}",
        ]
    )
    (tmp_path / "paper.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 5000


@pytest.mark.slow
def test_latex_tables_compile_with_their_citations(store, put, tmp_path):
    build(put)
    write(store, tmp_path / "out")
    for number, table in enumerate(sorted((tmp_path / "out").rglob("table.tex"))):
        folder = tmp_path / f"paper{number}"
        folder.mkdir()
        shutil.copy(tmp_path / "out" / "papers.bib", folder)
        shutil.copy(table, folder)
        (folder / "paper.tex").write_text(
            "\\documentclass{article}\\usepackage{booktabs,graphicx}\\newcommand{\\tablecaption}{Mine}"
            "\\begin{document}\\input{table}\\bibliographystyle{plain}\\bibliography{papers}\\end{document}"
        )
        latex = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper"]
        for command in (latex, ["bibtex", "paper"], latex, latex):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        log = (folder / "paper.log").read_text(errors="replace")
        assert "undefined" not in log
        assert r"\ignorespaces Mine}" in (folder / "paper.aux").read_text()
