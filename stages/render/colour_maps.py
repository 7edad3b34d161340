"""The names of colour maps."""

from __future__ import annotations

import difflib


def check_colour_map(name: str) -> None:
    """Raise ValueError, naming the nearest known name, unless Matplotlib has a colour map called `name`."""
    from matplotlib import colormaps  # settings are read by commands that draw nothing

    if name not in colormaps:
        near = difflib.get_close_matches(name, list(colormaps), n=1, cutoff=0)[0]
        raise ValueError(f"colour map {name!r} is unknown to Matplotlib; did you mean {near!r}?")
