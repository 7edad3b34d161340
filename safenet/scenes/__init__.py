"""Procedural scenes: drone and satellite views of made-up buildings, with masks."""
