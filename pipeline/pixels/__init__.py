"""The optional pixels stage: photos, checkpoints and heat maps -> pixels.zarr."""
