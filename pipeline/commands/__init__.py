"""The command `atlas`: options in, one call of what does the work, words out."""
