"""docs/guide.md is true: its blocks run, in order, on a run that they leave as it is, and print what it shows."""

import re
import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.cam.stage import cam
from pipeline.stages import STAGES

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
RUN = "runs/demo"
OUR_SECTIONS = (3, 5, 9)
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A python block of the guide, the line it begins at, and the output that is shown below it."""

    section: int
    line: int
    source: str
    output: str

    def run(self, directory: Path, namespace: dict[str, object]) -> None:
        printed = StringIO()
        padded = "\n" * (self.line - 1) + self.source.replace(RUN, str(directory))  # a trace names the guide's own lines
        with redirect_stdout(printed):
            exec(compile(padded, str(GUIDE), "exec"), namespace)
        assert printed.getvalue() == self.output, f"{GUIDE}:{self.line}: prints something else than it shows"


def blocks_of(text: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(text):
        before = text[: match.start(1)]
        found.append(Block(len(re.findall("^## ", before, re.MULTILINE)), before.count("\n") + 1, match[1], match[2] or ""))
    return found


def run_blocks(blocks: list[Block], directory: Path) -> dict[str, object]:
    namespace: dict[str, object] = {}
    for block in blocks:
        block.run(directory, namespace)
    return namespace


def write_times(directory: Path) -> dict[Path, int]:
    """Of all files, and of the folders, where one more or less shows."""
    return {path: path.stat().st_mtime_ns for path in (directory, *directory.rglob("*"))}


@pytest.fixture(scope="module")
def guide():
    return blocks_of(GUIDE.read_text())


def test_every_block_runs_and_prints_what_is_shown(finished, guide):
    before = write_times(finished.directory)
    run_blocks(guide, finished.directory)
    assert write_times(finished.directory) == before, "reading a run changed it"


def test_no_block_is_left_out(guide):
    text = GUIDE.read_text()
    fences = re.findall("^```.*$", text, re.MULTILINE)
    assert fences.count("```python") == len(guide)
    assert fences.count("```text") == sum(bool(block.output) for block in guide)
    assert set(fences) == {"```", "```python", "```text", "```console"}
    assert {block.section for block in guide} == set(range(1, 10))


def test_the_other_sections_need_none_of_our_code(finished, guide, monkeypatch):
    for package in ("pipeline", "stages", "safenet", "torch"):
        monkeypatch.setitem(sys.modules, package, None)  # importing it is an error
    run_blocks([block for block in guide if block.section not in OUR_SECTIONS], finished.directory)
    with pytest.raises(ImportError, match="pipeline"):
        run_blocks([block for block in guide if block.section in OUR_SECTIONS], finished.directory)


def test_it_holds_where_images_are_quarantined(lab, tmp_path):
    photos = Path(shutil.copytree(lab.photos, tmp_path / "photos"))
    cut, empty = (photos / "train" / "drone" / place / "image-01.jpeg" for place in ("0000", "0001"))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    empty.write_bytes(b"")
    run = lab.run(tmp_path / "run", "extract.max_bad_share=0.2", photos=photos)
    for stage in STAGES[:4]:
        stage.bring_up_to_date(run)
    assert len(run_blocks(blocks_of(GUIDE.read_text()), run.directory)["bad"]) == 2


def test_the_map_made_by_hand_is_the_one_that_is_stored(lab, finished_copy, guide):
    cam(lab.run(finished_copy, "cam.methods=['hires_cam']", "cam.targets=['predicted']"))
    by_hand = run_blocks([block for block in guide if block.section in (1, 4)], finished_copy)["hires_cam"]
    stored = pipeline.open_run(finished_copy).cams["aligned/predicted/hires_cam"].isel(checkpoint=0)
    np.testing.assert_allclose(by_hand, stored, atol=1e-5 * np.abs(by_hand).max())  # float32 against float64


def test_an_unfinished_store_says_what_is_quoted(finished_copy):
    (finished_copy / "ledger" / "features" / "net_002" / "000001.json").unlink()
    with pytest.raises(FileNotFoundError, match="unfinished") as error:
        pipeline.open_run(finished_copy)
    shown = f"{error.type.__module__}.{error.type.__qualname__}: {error.value}".replace(str(finished_copy), RUN)
    assert f"```console\n{shown}\n```" in GUIDE.read_text()
    assert pipeline.open_run(finished_copy, partial=True).features["checkpoint"].values.tolist() == ["net_000", "net_001"]


SOURCE = "```python\nprint('{printed}')\n{more}\n```\n\n```text\n{shown}\n```\n"


@pytest.mark.parametrize(
    ("filled", "error", "said"),
    [
        ({"printed": "one", "shown": "two", "more": ""}, AssertionError, "guide.md:2: prints something else than it shows"),
        ({"printed": "one", "shown": "one", "more": "raise ValueError('three')"}, ValueError, "three"),
    ],
)
def test_a_wrong_block_is_noticed(tmp_path, filled, error, said):
    with pytest.raises(error, match=said):
        run_blocks(blocks_of(SOURCE.format(**filled)), tmp_path)
