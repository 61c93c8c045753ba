"""What a user is told while a run records."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import FrameType

from runstone.errors import TrackingWarning


def warn(message: str) -> None:
    """Warn as the user's filters say; where they turn warnings into errors, print: tracking stops nothing."""
    try:
        warnings.warn(message, TrackingWarning, stacklevel=_user_stack_level())
    except TrackingWarning:
        print(f"runstone: {message}", file=sys.stderr)


def _user_stack_level() -> int:
    """Return the stack level of the first frame outside this package, for the warning to point at the user's line."""
    frame: FrameType | None = sys._getframe(1)
    level, here = 1, str(Path(__file__).parents[1])
    while frame is not None and frame.f_code.co_filename.startswith(here):
        level, frame = level + 1, frame.f_back
    return level
