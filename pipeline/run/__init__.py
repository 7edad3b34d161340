"""A run's directory, its manifest, and how a product is brought up to date."""
