"""Files, locks, digests and free space, on disks and in object stores; knows nothing of runs."""
