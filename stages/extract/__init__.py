"""Photos -> feature variables."""
