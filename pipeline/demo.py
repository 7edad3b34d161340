"""The demo: scenes, a few epochs of training, every stage, a report."""

from __future__ import annotations

import glob
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from pipeline.disk.places import Place, local_folder
from pipeline.run.directory import Run
from pipeline.settings.all import Settings, load_settings
from pipeline.stages import STAGES
from pipeline.stats.staleness import open_stats
from pipeline.text_tables import format_table, terminal_width
from pipeline.training import train_run
from pipeline.work.cores import cores
from safenet.needs_network import require_network
from safenet.scenes.dataset import write_scenes
from stages.report.page import epoch_tables

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "demo.toml"


def demo_settings(config: Path, directory: Place, assignments: tuple[str, ...]) -> Settings:
    """Read the demo's settings with its data inside the run's directory."""
    pattern = f"{glob.escape(str(directory / 'checkpoints'))}/net_*.pth"
    own = (f"dataset.root={json.dumps(str(directory / 'scenes'))}", f"extract.checkpoints={json.dumps([pattern])}")
    return load_settings(config, (*own, *assignments))


def demo(run: Run) -> Path:
    """Run everything; return the report's path. A second call does only what is stale."""
    require_network("demo")
    root = local_folder(run.directory, "atlas demo") / "scenes"
    run.say(f"scenes: {run.settings.scenes.places} places in {root}")
    root.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(cores(), get_context("spawn")) as pool:  # whose processes start when there is a scene to paint
        write_scenes(root, run.settings.scenes, pool.map)
    train_run(run)
    for stage in STAGES:
        run.say(str(stage.bring_up_to_date(run)))
    for target, rows in epoch_tables(open_stats(run)).items():
        table = format_table(rows, terminal_width())
        run.say(f"\nby checkpoint, on the test places, drone and satellite views weighted equally; maps of target {target}:\n{table}")
    return local_folder(run.report_path, "atlas demo").resolve()
