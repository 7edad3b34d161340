"""`python -m pipeline` is `atlas`."""

from pipeline.cli import main

main()
