"""Heat maps and features -> figures."""
