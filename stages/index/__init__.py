"""Folders of photos -> manifest rows."""
