"""docs/statistics.md has the tables of `atlas figures`, and every figure is described."""

from pathlib import Path

from click.testing import CliRunner

from pipeline.commands.figures import figures_page
from pipeline.commands.group import main
from stages.stats.figures import DRIFT_FIGURES, GROUP_FIGURES, IMAGE_FIGURES, MAP_FIGURES
from stages.stats.retrieval import QUERY_FIGURES

PAGE = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text()
TABLES = (MAP_FIGURES, DRIFT_FIGURES, IMAGE_FIGURES, GROUP_FIGURES)


def test_the_page_has_the_tables():
    begin, end = "<!-- atlas figures: begin -->\n", "<!-- atlas figures: end -->"
    assert PAGE[PAGE.index(begin) + len(begin) : PAGE.index(end)] == figures_page(), "paste the output of `atlas figures` between the marks"


def test_the_command_lists_every_figure():
    printed = CliRunner().invoke(main, ["figures"]).stdout
    assert printed == figures_page()
    for name in (*(name for table in TABLES for name in table), *QUERY_FIGURES):
        assert f"| `{name}` |" in printed
    assert all(row.meaning for table in TABLES for row in table.values())
    assert all(line.count(" | ") in (1, 2, 5) for line in printed.splitlines() if line.startswith("|")), "a cell holds no bar"
