"""Figures -> plots, sentences and the page."""
