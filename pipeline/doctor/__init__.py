"""Checks of this machine, this installation and a run's object store."""
