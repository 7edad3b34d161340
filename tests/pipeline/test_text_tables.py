"""Tables of text: within the terminal, one line a row in a pipe, and nothing cut."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commands.group import main
from pipeline.text_tables import format_table, shown_width, terminal_width

ROWS = [
    {"stage": "extract", "what": "net_000", "why": "made with map_dtype = 'float16', but 'float32' is asked for; needs --replace"},
    {"stage": "cam", "what": "net_000", "why": "-"},
]
WIDE = "\N{CJK UNIFIED IDEOGRAPH-5929}"


def test_in_a_pipe_a_row_is_a_line():
    head, long, short = format_table(ROWS).splitlines()
    assert long == f"extract  net_000  {ROWS[0]['why']}"
    assert head == "  stage     what" + "why".rjust(len(long) - 16) and short == "    cam  net_000" + "-".rjust(len(long) - 16)
    assert format_table(ROWS, 200) == format_table(ROWS)


def test_the_last_column_is_wrapped_within_the_terminal():
    assert format_table(ROWS, 60).splitlines() == [
        "  stage     what  why",
        "extract  net_000  made with map_dtype = 'float16', but",
        "                  'float32' is asked for; needs --replace",
        "    cam  net_000  -",
    ]


def test_it_goes_below_its_row_where_little_is_left():
    assert format_table(ROWS, 40).splitlines() == [
        "  stage     what",
        "    why",
        "extract  net_000",
        "    made with map_dtype = 'float16', but",
        "    'float32' is asked for; needs",
        "    --replace",
        "    cam  net_000",
    ]


def test_wide_characters_take_two_columns():
    first, *rest = format_table([{"place": WIDE * 2, "why": "x"}, {"place": "0001", "why": "y"}]).splitlines()
    assert rest == [f" {WIDE * 2}    x", " 0001    y"] and first == "place  why"
    assert {shown_width(line) for line in rest} == {len(first)}
    assert shown_width("e\N{COMBINING ACUTE ACCENT}") == 1


@given(st.lists(st.text(alphabet=f"ab{WIDE} /", max_size=80), min_size=1, max_size=4), st.integers(2, 90))
def test_nothing_is_cut_and_no_line_is_wider(texts, width):
    rows = [{"a": str(number), "b": text} for number, text in enumerate(texts)]
    lines = format_table(rows, width).splitlines()
    if width >= 8:
        assert max(map(shown_width, lines)) <= width
    shown = "".join(lines).replace(" ", "")
    assert shown == "".join(["ab", *(f"{number}{text}" for number, text in enumerate(texts))]).replace(" ", "")


def test_the_width_is_that_of_columns_or_of_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "77")
    assert terminal_width() == 77
    for nonsense in ("", "0", "wide", "-3"):
        monkeypatch.setenv("COLUMNS", nonsense)
        assert terminal_width() is None, "what pytest captures is no terminal"


def test_on_a_terminal_its_width_counts():
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 60))
    text = "from pipeline.text_tables import terminal_width; print(terminal_width())"
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    subprocess.run([sys.executable, "-c", text], check=True, stdout=end, cwd=Path(__file__).parents[2], env=environment)
    os.close(end)
    assert os.read(terminal, 100).strip() == b"60"
    os.close(terminal)


@pytest.mark.parametrize("columns", ["80", "120"])
def test_plan_fits_the_terminal(finished, columns):
    shown = CliRunner(env={"COLUMNS": columns}).invoke(main, ["plan", "--run", str(finished.directory)])
    assert shown.exit_code == 0 and max(map(len, shown.stdout.splitlines())) <= int(columns)
    long = CliRunner(env={"COLUMNS": None}).invoke(main, ["plan", "--run", str(finished.directory)]).stdout
    assert max(map(len, long.splitlines())) > 120 and long.split() == shown.stdout.split(), "wrapped, and not cut"
