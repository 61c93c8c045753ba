"""Copies a running sweep into an Optuna storage: a process of its own, which reads the sweep's record and no more.

`python -m runstone_sweeps.mirror FOLDER < URL`. It cannot slow the sweep down or stop it: it shares no lock with the
coordinator, and runs at a low priority. It ends when the sweep's session has and all is copied.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runstone import RunstoneError
from runstone_sweeps.environment import process_environment
from runstone_sweeps.record.journal import Event
from runstone_sweeps.store import SweepFolder, SweepIsRunning, recorded_spec
from runstone_sweeps.store.followed import RecordFollower

if TYPE_CHECKING:
    from runstone_sweeps.study.storing import StoredStudy

_LOOK_S = 0.5
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
# How long a database may be out of reach after the end of the sweep.
_PATIENCE_S = 60.0
_CREDENTIALS = re.compile(r"(?<=://)([^/@\s]*):([^@\s]*)@")


def absolute_url(url: str, folder: Path) -> str:
    """Return a URL in which the path of an SQLite file does not depend on where a process runs.

    Args:
        url: As the config says it.
        folder: Where relative paths start.
    """
    driver, separator, path = url.partition(":///")
    if not separator or not driver.startswith("sqlite") or path.startswith("/") or path in ("", ":memory:"):
        return url
    return f"{driver}:///{folder / path}"


def shown_url(url: str) -> str:
    """Return a URL without its password."""
    return _CREDENTIALS.sub(r"\1:***@", url)


class Mirror:
    """The process that copies one sweep. What it has to say is in `mirror.log` beside the sweep's record.

    Args:
        folder: The sweep's files.
        url: The storage.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._log = folder / "mirror.log"
        self._log_from = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "runstone_sweeps.mirror", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=process_environment(),
                start_new_session=True,  # Ctrl-C is not for it: what the last trials did is still to be copied
            )
        # Not among the arguments, which everyone on the machine may read: there may be a password in it.
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(url.encode())

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def close(self, timeout_s: float = 10.0) -> str | None:
        """Wait until it has copied the rest, which it begins when the sweep's lock is free.

        Args:
            timeout_s: After which it goes on by itself.

        Returns:
            What is to be said: that it is still at work, or the last of its troubles if it could not go on.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            # It leaves no zombie where this process lives on.
            threading.Thread(target=self._process.wait, daemon=True).start()
            return "storage: the copy of the study is still being written"
        return self._last_words() or "storage: the copy of the study was not finished" if code else None

    def _last_words(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_from)
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""


def follow(
    folder: SweepFolder,
    url: str,
    *,
    say: Callable[[str], None],
    look_s: float = _LOOK_S,
    patience_s: float = _PATIENCE_S,
) -> bool:
    """Copy a sweep until its session has ended.

    Args:
        folder: The sweep's files.
        url: The storage.
        say: Is told what goes wrong, each thing once.
        look_s: Seconds between two looks into the record.
        patience_s: For how long the storage may be out of reach after the session's end.

    Returns:
        Whether all is copied.
    """
    with _only_one(folder.path):
        return _Follower(folder, url, say).run(look_s, patience_s)


def copy_once(folder: SweepFolder, url: str) -> str:
    """Copy a sweep as it stands and return the name of its study; what is there already is brought up to date.

    Raises:
        SweepIsRunning: its mirror copies it already.
        RunstoneError: the storage does not take it.
    """
    from runstone_sweeps.study.storing import StoredStudy, stored_name  # imports Optuna

    record = folder.read()
    url = absolute_url(url, Path.cwd())
    with _only_one(folder.path, waits=False):
        try:
            stored = StoredStudy(url, recorded_spec(record, is_for_reading=True), record)
            try:
                stored.write(record)
            finally:
                stored.close()
        except RunstoneError:
            raise
        except Exception as error:
            cause = error.__cause__ or error
            raise RunstoneError(f"storage: {shown_url(url)}: {shown_url(str(cause)).splitlines()[0]}") from error
    return stored_name(record)


class _Follower:
    def __init__(self, folder: SweepFolder, url: str, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._url = url
        self._say = say
        self._told: set[str] = set()
        self._reader = RecordFollower(folder.path)
        self._stored: StoredStudy | None = None
        self._config: object = None

    def run(self, look_s: float, patience_s: float) -> bool:
        wait_s, failing_since = _FIRST_WAIT_S, 0.0
        while True:
            # In this order: what is written before the lock is free is read after.
            is_last = not self._folder.is_running
            try:
                self._copy(self._reader.poll())
            except Exception as error:
                self._forget()
                self._complain(error)
                failing_since = failing_since or time.monotonic()
                if is_last and time.monotonic() - failing_since + wait_s > patience_s:
                    sweep = self._folder.id
                    self._say(f"storage: not all is copied; `sweep to-optuna {sweep} --storage URL` copies the rest")
                    return False
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            if failing_since:
                self._say("storage: it is there again, and nothing is missing")
                self._told.clear()
            wait_s, failing_since = _FIRST_WAIT_S, 0.0
            if is_last:
                self._forget()
                return True
            time.sleep(look_s)

    def _copy(self, events: list[Event]) -> None:
        record = self._reader.record
        if not record.created:
            return
        changed: set[int] | None = {number for event in events for number in _numbers(event)}
        if self._stored is None or record.config is not self._config:
            from runstone_sweeps.study.storing import StoredStudy  # imports Optuna

            self._forget()
            self._stored = StoredStudy(self._url, recorded_spec(record, is_for_reading=True), record)
            self._config, changed = record.config, None
        self._stored.write(record, changed)

    def _forget(self) -> None:
        """Close the storage; the next look opens it anew and compares everything."""
        if self._stored is not None:
            with contextlib.suppress(Exception):
                self._stored.close()
            self._stored = None

    def _complain(self, error: Exception) -> None:
        cause = error.__cause__ or error
        lines = shown_url(str(cause)).strip().splitlines()
        text = f"storage: {shown_url(self._url)}: {type(cause).__name__}: {lines[0] if lines else ''}; tried again"
        if text not in self._told:
            self._told.add(text)
            self._say(text)


def _numbers(event: Event) -> list[int]:
    return event.get("numbers") or ([event["number"]] if "number" in event else [])


@contextlib.contextmanager
def _only_one(folder: Path, *, waits: bool = True) -> Iterator[None]:
    """Wait until no other process copies this sweep: two of them would write each trial twice."""
    fd = os.open(folder / "mirror.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepIsRunning(
                f"sweep {folder.name} is being copied by the process that mirrors it; wait for its end"
            ) from None
        yield
    finally:
        os.close(fd)


def main() -> int:
    """Copy the sweep in the folder that is the only argument into the storage whose URL stands on the input."""
    os.nice(10)
    url = sys.stdin.read().strip()

    def say(text: str) -> None:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)

    return 0 if follow(SweepFolder(Path(sys.argv[1])), url, say=say) else 1


if __name__ == "__main__":
    sys.exit(main())
