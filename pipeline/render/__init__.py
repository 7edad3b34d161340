"""The render stage: heat maps and photos -> mosaics."""
