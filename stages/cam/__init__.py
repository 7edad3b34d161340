"""Feature variables -> heat maps."""
