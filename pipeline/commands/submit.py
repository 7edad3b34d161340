"""`atlas submit`."""

from __future__ import annotations

import shlex
from pathlib import Path

from pipeline.commands.runs import chosen_run
from pipeline.jobs.submit import Submission, check_job_id, chosen_stages, dry_run_texts, submit
from pipeline.settings.jobs import read_job_settings


def submit_stages(
    config: Path | None,
    directory: Path | None,
    assignments: tuple[str, ...],
    quiet: bool,
    stages: tuple[str, ...],
    job_file: Path,
    after: str | None,
    dry_run: bool,
) -> None:
    """Queue stages on a SLURM cluster, each after the one before it. Without names: all of them, but index only if there is no manifest.

    Scripts, logs and job numbers go to RUN/jobs. A second call queues the same stages again; what is done is not computed again.
    """
    run = chosen_run(config, directory, assignments, quiet)
    submission = Submission(str(run.directory), config, assignments, read_job_settings(job_file), Path.cwd())
    chosen, after = chosen_stages(stages, run.manifest_path.exists()), check_job_id(after) if after else None
    if dry_run:
        for text in dry_run_texts(submission, chosen, after):
            run.say(text)
        return
    queued = []
    for job in submit(submission, chosen, after):
        run.say(str(job))
        queued.append(job.job_id)
    run.say(f"watch: squeue --jobs={','.join(queued)}; {shlex.join(['atlas', 'status', *submission.arguments])}; logs: {submission.folder / 'logs'}")
