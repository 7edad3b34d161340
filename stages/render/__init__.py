"""Heat maps -> pictures."""
