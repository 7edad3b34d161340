"""docs/methods.md has the tables of `atlas methods`, and every method is described."""

from pathlib import Path

from click.testing import CliRunner

from pipeline.commands.group import main
from pipeline.commands.methods import methods_page
from stages.cam.methods import METHODS
from stages.targets.names import BASES, MODIFIERS

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()


def test_the_page_has_the_tables():
    begin, end = "<!-- atlas methods: begin -->\n", "<!-- atlas methods: end -->"
    assert PAGE[PAGE.index(begin) + len(begin) : PAGE.index(end)] == methods_page(), "paste the output of `atlas methods` between the marks"


def test_the_command_lists_every_method_target_and_modifier():
    printed = CliRunner().invoke(main, ["methods"]).stdout
    assert printed == methods_page()
    for name in (*METHODS, *(key.rstrip("_") for key in BASES), *(f".{key}" for key in MODIFIERS)):
        assert f"`{name}" in printed
    assert all(method.formula.__doc__ and method.source for method in METHODS.values())
