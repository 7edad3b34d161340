"""The command `atlas`: it reads options, calls what does the work, and prints the result."""
