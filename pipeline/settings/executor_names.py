"""The names of the executors, and what each one is: the text of --on, and what settings may name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

EXECUTOR_MEANINGS: Mapping[str, str] = MappingProxyType(  # of the rows of EXECUTORS in pipeline/work/executors.py
    {
        "serial": "one piece after the other, in this process",
        "threads": "threads of this process",
        "local": "processes on this machine",
        "cuda": "one process per GPU of this machine",
        "slurm": "SLURM jobs",
        "pbs": "PBS jobs",
        "lsf": "LSF jobs",
        "sge": "SGE jobs",
        "scheduler": "a Dask scheduler that already runs: Kubernetes, Coiled or any other",
    }
)
