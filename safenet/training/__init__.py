"""The published training recipe."""
