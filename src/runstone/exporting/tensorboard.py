"""A run as TensorBoard event files."""

from __future__ import annotations

from pathlib import Path

from runstone.errors import AlreadyExists
from runstone.runinfo import RunInfo


def write_event_files(info: RunInfo, logdir: Path) -> tuple[Path, int]:
    """Write a run as it stands below a folder for TensorBoard; what is there already is not written again.

    Returns:
        Its folder, and how many points, media and texts were written now.

    Raises:
        AlreadyExists: another process writes this run there.
        OSError: they cannot be written.
    """
    from runstone.tensorboard.mirror import RunMirror  # NumPy and tensorboardX, only here

    mirror = RunMirror(info.path, logdir)
    try:
        mirror.update()
        if mirror.is_busy_elsewhere or mirror.folder is None:
            raise AlreadyExists(f"another process writes {info.id} into {logdir}; wait for its end")
        return mirror.folder, mirror.written + mirror.media_written
    finally:
        mirror.close()
