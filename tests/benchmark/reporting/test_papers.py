"""The bundled bibliography and the citations of LaTeX tables."""

import re

from leaderboards import only
from vtab_peft.benchmark.reporting import papers
from vtab_peft.benchmark.reporting.markup import to_latex
from vtab_peft.methods.base import METHODS


def test_every_paper_of_the_registry_is_in_the_bibliography() -> None:
    found = papers.load()
    assert found.keys() == {name for name, method in METHODS.items() if method.paper}
    for name, reference in found.items():
        paper = METHODS[name].paper
        assert paper
        assert (reference.year, reference.arxiv) == (paper.year, paper.arxiv or ""), name
        assert paper.code in (None, reference.code), name


def test_bibliography_is_sound_bibtex() -> None:
    text = papers.BIBTEX.read_text("utf-8")
    entries = re.findall(r"^@(\w+)\{(\w+),\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    keys = [key for _, key, _ in entries]
    assert len(set(keys)) == len(keys) == text.count("@")
    for kind, _, body in entries:
        assert all(re.fullmatch(r"  \w+ = \{.*\},", line) for line in body.splitlines())
        assert body.count("{") == body.count("}")
        needed = {"inproceedings": "booktitle", "article": "journal", "misc": "eprint"}[kind]
        assert f"  {needed} = " in body
        assert "  title = " in body


def test_rows_cite_their_papers_and_plugins_do_not(store, put) -> None:
    put("flowers", "lora", 0, 0.5, title="LoRA")
    put("flowers", "linear", 0, 0.4, title="Linear")
    put("flowers", "ssf", 0, 0.3, title="My SSF", plugin="ee" * 32)
    text = to_latex(only(store))
    assert re.findall(r"\\cite\{(\w+)\}", text) == ["hu2022lora"]
    assert r"LoRA~\cite{hu2022lora}" in text
    assert r"\caption{\tablecaption}" in text


def test_a_combination_cites_the_paper_of_each_part_once(store, put) -> None:
    put("flowers", "lora+ssf", 0, 0.5, title="LoRA + SSF", spec="lora(rank=4) + ssf")
    put("flowers", "linear+fact_tt+fact_tk", 0, 0.4, title="FacT", spec="linear + fact_tt + fact_tk(rank=8)")
    found = re.findall(r"\\cite\{([^}]*)\}", to_latex(only(store)))
    assert found == ["hu2022lora,lian2022ssf", "jie2023fact"]


def test_a_lone_row_shows_the_arguments_that_are_not_the_defaults(store, put) -> None:
    put("flowers", "lora", 0, 0.5, title="LoRA", spec="lora(rank=1)")
    assert r"LoRA(rank=1)~\cite{hu2022lora}" in to_latex(only(store))


def test_a_combination_with_a_plug_in_cites_its_other_parts(store, put) -> None:
    put("flowers", "lora+mine", 0, 0.5, spec="lora + mine", plugin="ee" * 32)
    put("flowers", "ssf+lora", 0, 0.4, spec="ssf + lora", plugin="ee" * 32)  # one of them is the plug-in
    assert re.findall(r"\\cite\{([^}]*)\}", to_latex(only(store))) == ["hu2022lora"]


def test_tuners_of_peft_cite_the_paper_of_the_method_of_this_name(store, put) -> None:
    put("flowers", "hf", 0, 0.5, title="peft", spec="hf(type='oft')", args={"type": "oft", "options": None})
    put("flowers", "hf", 0, 0.4, title="peft", spec="hf(type='lily')", args={"type": "lily"})
    both = {"lora": {"rank": 4}, "hf": {"type": "boft", "options": {"p": " + ssf"}}}
    put("flowers", "lora+hf", 0, 0.3, spec="lora + hf(type='boft',options={'p':' + ssf'})", args=both)
    found = re.findall(r"\\cite\{([^}]*)\}", to_latex(only(store)))
    assert found == ["qiu2023oft", "hu2022lora,liu2024boft"]
