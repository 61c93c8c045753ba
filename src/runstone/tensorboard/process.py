"""The helper process that mirrors one run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from runstone.errors import RunstoneError
from runstone.helper import HelperProcess, start_helper


def default_logdir(run_path: Path) -> Path:
    """Return the folder that TensorBoard is pointed at where none was named: `tensorboard` in the run's workspace."""
    return run_path.parents[2] / "tensorboard"


def start_mirror(run_path: Path, logdir: Path | str | None = None) -> HelperProcess:
    """Start a helper process that mirrors a run into TensorBoard event files until the run has ended.

    The helper reads the run's files, with low priority and in a session of its own: it neither slows the training nor
    ends with it, also where the training is killed. Several helpers of one run take turns.

    Args:
        run_path: Folder of the run.
        logdir: Folder for TensorBoard; default `tensorboard` in the workspace.

    Raises:
        RunstoneError: tensorboardX is not installed.
        OSError: no process can be started.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise RunstoneError(MISSING)
    target = Path(logdir).expanduser().absolute() if logdir is not None else default_logdir(run_path.absolute())
    return start_helper("runstone.tensorboard", str(run_path.absolute()), str(target), name="runstone-mirror")


MISSING = 'TensorBoard files need tensorboardX, which is not installed: pip install "runstone[tensorboard]"'
