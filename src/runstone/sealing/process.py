"""The helper process that seals, beside a server."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from runstone import settings
from runstone.helper import start_helper


@contextlib.contextmanager
def sealed_meanwhile(workspace: Path, tell: Callable[[str], object]) -> Iterator[None]:
    """Have the long runs of a workspace sealed some time after their end, as long as this goes on.

    Args:
        workspace: Its folder.
        tell: Told where no process can be started; runs stay as they are then.

    Raises:
        InvalidValue: `RUNSTONE_SEAL_MINUTES` is no number of 0 or more.
    """
    minutes, helper = settings.seal_minutes(), None
    if minutes:
        try:
            told = (str(workspace.absolute()), str(minutes), str(os.getpid()))
            helper = start_helper("runstone.sealing", *told, name="runstone-sealing")
        except OSError as error:
            tell(f"{type(error).__name__}: {error}")
    try:
        yield
    finally:
        if helper is not None and helper.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(helper.pid, signal.SIGTERM)  # at any moment: it is begun anew by the next
