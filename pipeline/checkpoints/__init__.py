"""Which checkpoint files there are, and what a run calls them."""
