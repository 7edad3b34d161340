"""The stats stage: cams.zarr and small features -> stats.zarr."""
