"""Which file this process runs."""

from __future__ import annotations

import sys
from pathlib import Path

# The file of `__main__`, with the working folder that its name may depend on. Python forgets it when a script ends,
# and the snapshot of a short script is still under way then.
_noted: list[Path] = []


def note_main() -> None:
    """Keep which file this process runs. Called on the training thread, before the snapshot begins."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if isinstance(file, str):
        _noted[:] = [Path(file).absolute()]


def entry_file() -> Path | None:
    """Return the file that `__main__` was loaded from, if it was."""
    if not _noted:
        note_main()
    return _noted[0] if _noted else None
