"""The environment of this process: the only place of this package that reads it."""

from __future__ import annotations

import os


def process_environment() -> dict[str, str]:
    """Return a copy, for the processes of trials and for the variables that a sweep gives them."""
    return dict(os.environ)
