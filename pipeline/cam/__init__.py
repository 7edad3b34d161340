"""The cam stage: features.zarr -> cams.zarr; and maps that are made on request."""
