"""The helper process that mirrors one run, apart from the training: it slows nothing, and outlives a kill."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path

from runstone import settings
from runstone.errors import RunstoneError

# The package is found where it was found here, but never before anything else.
_PROGRAM = "import sys; sys.path.append(sys.argv.pop(1)); from runstone.tensorboard.__main__ import main; main()"


class MirrorProcess:
    """A helper process that mirrors a run until the run has ended; `start_mirror` makes it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid: int = process.pid
        self._process = process
        # Takes the helper's exit code when it comes: no zombie is left, and nobody has to wait.
        threading.Thread(target=process.wait, name="runstone-mirror", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether it still mirrors."""
        return self._process.returncode is None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the run has ended and is mirrored; return whether it is."""
        try:
            return self._process.wait(timeout_s) == 0
        except subprocess.TimeoutExpired:
            return False


def default_logdir(run_path: Path) -> Path:
    """Return the folder that TensorBoard is pointed at where none was named: `tensorboard` in the run's workspace."""
    return run_path.parents[2] / "tensorboard"


def start_mirror(run_path: Path, logdir: Path | str | None = None) -> MirrorProcess:
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
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-W", "ignore", "-c", _PROGRAM, str(Path(__file__).absolute().parents[2])),
            *(str(run_path.absolute()), str(target)),
        ],
        # one thread is plenty for copying numbers, and what NumPy would start needs memory
        env={**settings.process_environment(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return MirrorProcess(process)


MISSING = 'TensorBoard files need tensorboardX, which is not installed: pip install "runstone[tensorboard]"'
