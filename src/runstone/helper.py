"""Processes that work on the files of runs apart from the training: they slow nothing, and outlive a kill."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from runstone import settings

# The package is found where it was found here, but never before anything else.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from importlib import import_module; import_module(sys.argv.pop(1) + '.__main__').main()"
)


class HelperProcess:
    """A process that `start_helper` made."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self.pid: int = process.pid
        self._process = process
        # Takes the helper's exit code when it comes: no zombie is left, and nobody has to wait.
        threading.Thread(target=process.wait, name=name, daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether it still works."""
        return self._process.returncode is None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is done; return whether all went well."""
        try:
            return self._process.wait(timeout_s) == 0
        except subprocess.TimeoutExpired:
            return False


def start_helper(package: str, *arguments: str, name: str, told: bytes = b"", cwd: str | None = None) -> HelperProcess:
    """Start `python -m package` in a session of its own, with the settings of this process.

    Args:
        package: Such as `runstone.alerts`; its `__main__` has a function `main`.
        arguments: Of the command line.
        name: Of the thread here that waits for it.
        told: What it reads from its standard input.
        cwd: Folder that it works in; default: that of this process.

    Raises:
        OSError: no process can be started.
    """
    words = [package, *arguments]
    process = subprocess.Popen(
        [*(sys.executable, "-P", "-W", "ignore", "-c", _PROGRAM), str(Path(__file__).absolute().parents[1]), *words],
        # one thread is plenty for files, and what NumPy would start needs memory
        env={**settings.process_environment(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        stdin=subprocess.PIPE if told else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if process.stdin is not None:
        with process.stdin as stream:
            stream.write(told)
    return HelperProcess(process, name)
