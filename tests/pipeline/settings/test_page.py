"""docs/settings.md is what `atlas settings` prints."""

from pathlib import Path

from pipeline.settings.all import Settings
from pipeline.settings.page import settings_page


def test_the_page_is_up_to_date():
    page = (Path(__file__).parents[3] / "docs" / "settings.md").read_text()
    assert page == settings_page(), "run: atlas settings > docs/settings.md"


def test_every_setting_says_what_it_means():
    rows = [line for line in settings_page().splitlines() if line.startswith("| ") and "| key |" not in line]
    assert len(rows) > 60
    assert [row for row in rows if row.endswith("|  |")] == []
    assert all(f"## [{table}]" in settings_page() for table in Settings.model_fields)
