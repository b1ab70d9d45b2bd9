"""What the lab says, and how it refuses: data on stdout, words on stderr, reasons with a remedy."""

import os
import sys


class LabError(Exception):
    """A refusal in words: the cause, the value, the remedy."""


def say(text):
    print(f"morsel lab: {text}", file=sys.stderr, flush=True)


def progress(text):
    """What only somebody who waits wants to know."""
    if sys.stderr.isatty() or verbose:
        say(text)


verbose = bool(os.environ.get("MORSEL_LAB_VERBOSE"))
