"""`atlas settings`."""

from __future__ import annotations

import click

from pipeline.settings.page import settings_page


def settings() -> None:
    """Print every setting with its default and meaning."""
    click.echo(settings_page(), nl=False)
