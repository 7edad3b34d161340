"""The extract stage: photos and checkpoints -> features.zarr."""
