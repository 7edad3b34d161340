"""Imported by the process that decoding processes are forked from, so that their steps are timed."""

from extract_steps import DECODING, install

install(DECODING)
