"""README, CONTRIBUTING and docs/ lead somewhere: every relative link names a file or folder, every anchor a heading, and no page is left out."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(page.read_text())}


def broken_links(page: Path, text: str) -> list[str]:
    """Links of a page's text that lead nowhere."""
    broken = []
    for path, anchor in LINK.findall(text):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}" if anchor else path)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    assert broken_links(page, page.read_text()) == []


@pytest.mark.parametrize("link", ["no-such-page.md", "guide.md#no-such-heading", "#no-such-heading", "../pipeline/no_such_room"])
def test_a_broken_link_is_noticed(link):
    page = ROOT / "docs" / "guide.md"
    assert broken_links(page, f"a [good one](store.md#layout) and [a bad one]({link})") == [link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_code_that_is_named_exists(page):
    named = re.findall(r"`((?:pipeline|stages|safenet|tests|benchmarks|configs)/[\w/.-]+)`", page.read_text())
    own = {"configs/mine.toml"}  # the reader's
    assert [path for path in named if path not in own and not (ROOT / path).exists()] == []


def test_every_page_is_in_the_table_of_contents():
    index = ROOT / "docs" / "index.md"
    listed = [line for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", index.read_text(), re.DOTALL | re.MULTILINE) for line in tree.split()]
    assert {page.stem for page in index.parent.glob("*.md")} - {"index"} <= set(listed)


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_stage_that_is_shown_is_the_one_that_is_tested():
    page, tested = (ROOT / "docs" / "architecture.md").read_text(), (ROOT / "tests" / "pipeline" / "run" / "test_bring_up.py").read_text()
    toy = re.search(r"# The toy stage:[^\n]*\n(.*?)\n+# The end of the toy stage\.", tested, re.DOTALL)
    assert f"```python\n{toy[1]}\n```" in page, "paste the toy stage of tests/pipeline/run/test_bring_up.py into docs/architecture.md"
