"""Text from elsewhere cannot control a terminal, a spreadsheet, Markdown, LaTeX or HTML."""

import csv
import io
import json
import sys

import pytest
from tqdm import tqdm
from vtab_peft.benchmark.cli import main
from vtab_peft.benchmark.escaping import (
    TerminalStream,
    csv_text,
    escaped_output,
    html_json,
    latex,
    markdown,
    one_line,
    terminal,
)

ESCAPES = "\x1b[31m \x1b]0;title\x07 \x9b2J \r \x08 \u202e \u2066 \u200b \udc80"


def is_clean(text: str) -> bool:
    return not any(
        (ord(c) < 32 and c not in "\t\n") or 126 < ord(c) < 160 or c in "\u202e\u2066\u200b\u2028\udc80" for c in text
    )


def test_a_line_is_one_line():
    assert one_line(" a\n\tb\x00\x1b[31m  c\u2028d ") == r"a\n\tb\x00\x1b[31m c\u2028d"
    assert one_line("Größe · 模型 · Ω") == "Größe · 模型 · Ω"


def test_terminal_keeps_tabs_and_line_breaks():
    assert terminal("a\tb\nc\x1b[2J") == "a\tb\nc\\x1b[2J"


@pytest.mark.parametrize("escape", [one_line, terminal, markdown, latex])
def test_no_control_character_passes(escape):
    assert is_clean(escape(ESCAPES))


@pytest.mark.parametrize("cell", ["=1+1", "+1+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "＝1"])
def test_csv_cells_are_no_formulas(cell):
    ((written,),) = csv.reader(io.StringIO(csv_text([[cell]])))
    assert written[0] not in "=+-@\t\r＝"


@pytest.mark.parametrize("number", [-1.3, 0, "-1.3", "+2", "-4e-05", 1e-7, "-.5"])
def test_csv_numbers_stay(number):
    assert csv_text([[number]]) == f"{number}\n"


def test_printed_text_is_escaped(capsys):
    with escaped_output():
        print(ESCAPES)
        print(ESCAPES, file=sys.stderr)
        sys.stdout.writelines([ESCAPES])
    assert all(map(is_clean, capsys.readouterr()))


def test_messages_of_commands_are_escaped(capsys, tmp_path):
    assert main(["report", "--results", str(tmp_path / "\x1b]0;x\x07")]) == 1
    with pytest.raises(SystemExit):
        main(["\x1b[2J"])
    printed = capsys.readouterr()
    assert all(map(is_clean, printed))
    assert r"\x1b]0;x\x07" in printed.out
    assert r"\x1b[2J" in printed.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_move_on_a_terminal_but_their_names_do_not():
    stream = TerminalStream(Terminal())
    for place in range(2):
        with tqdm(desc="a\x1b[31mb\rc", total=2, mininterval=0, position=place, file=stream) as bar:
            bar.update(1)
            tqdm.write("e\x1b[33mf", file=stream)
    printed = stream.getvalue()
    assert "\r" in printed
    assert "\x1b[A" in printed
    assert r"a\x1b[31mb\rc" in printed
    assert r"e\x1b[33mf" in printed
    assert "\x1b[3" not in printed


def test_html_cannot_end_its_element():
    text = html_json({"a": "</script><!--\u2028"})
    assert "</script" not in text
    assert "<!--" not in text
    assert json.loads(text) == {"a": "</script><!--\u2028"}
