"""Who does the work: shares, executors, Dask workers, signals and progress; knows nothing of the work itself."""
