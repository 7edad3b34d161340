"""A checkpoint's stored features as every reader sees them: what is finished, stale, bad or missing."""
