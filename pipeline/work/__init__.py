"""Who does the work: shares, executors, Dask workers, signals and progress; nothing of what the work is."""
