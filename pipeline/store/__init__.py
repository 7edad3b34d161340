"""The Zarr stores: their layout, blocks, marks and seals; a store knows nothing of runs or stages."""
