"""Follows the TensorBoard files that a launched program writes, and records what they hold as metrics."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from runstone.errors import RunstoneError
from runstone.runlog.writer import RunLog

if TYPE_CHECKING:
    from runstone.tensorboard.reader import RunEvents

POLL_S = 1.0
_SCAN_S = 20.0
_STAMP = re.compile(r"tfevents\.(\d{10})")
_OWN_ENDING = ".runstone"
# These say what a folder's curves are of; a folder of one of these names is told by it.
_PHASES = frozenset("train training val valid validation eval evaluation test testing".split())
_NOT_LOOKED_INTO = frozenset({"node_modules", "__pycache__", "site-packages", "wandb", "mlruns"})
_MOST_ENTRIES, _DEEPEST, _LONGEST_SCAN_S = 20_000, 6, 2.0
_MOST_PROCESSES = 64
_COARSE_S = 0.05
"""How far the times of a file system may be behind the clock."""


class EventFollower:
    """Reads event files as they grow, in a thread of its own.

    Args:
        run_path: Folder of the run.
        attempt: Of the run.
        where: A folder, or `auto`: what the program has open, wherever that lies, and what is new below `cwd`.
        cwd: Where the program was started.
        pid: Its first process.
        started_at: When, seconds since the epoch: older files are not followed.
        own: Takes the id of the writer that is made when there is something to record.
        keeps_itself: Asked whether the program records metrics by itself; then `auto` follows nothing.
        add_params: Takes params that were written for TensorBoard's page of hyperparameters.
    """

    def __init__(
        self,
        run_path: Path,
        attempt: int,
        where: Path | Literal["auto"],
        *,
        cwd: Path,
        pid: int,
        started_at: float,
        own: Callable[[str], None],
        keeps_itself: Callable[[], bool],
        add_params: Callable[[dict[str, object]], None],
    ) -> None:
        self.points = 0
        """Points recorded."""
        self.left_out: Counter[str] = Counter()
        """What was found and is not followed, by kind."""
        self.trouble: str | None = None
        """Why it ended early, if it did."""
        self._run_path, self._attempt = run_path, attempt
        self._where = where.absolute() if isinstance(where, Path) else None
        self._cwd, self._pid, self._started_at = cwd, pid, started_at
        self._workspace = run_path.absolute().parents[2]
        self._own, self._keeps_itself, self._add_params = own, keeps_itself, add_params
        self._log: RunLog | None = None
        self._now_s = started_at
        self._files: dict[Path, int] = {}
        self._refused: set[Path] = set()
        self._folders: dict[Path, RunEvents] = {}
        self._prefixes: dict[Path, str] = {}
        self._base: Path | None = None
        self._next_scan_s = time.monotonic() + _SCAN_S
        self._is_over = False
        self._bell = threading.Event()
        self._thread = threading.Thread(target=self._work, name="runstone-events", daemon=True)
        self._thread.start()

    def finish(self, timeout_s: float) -> None:
        """Read what is left, look once more for files, and end."""
        self._bell.set()
        self._thread.join(timeout_s)

    # --- the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._bell.wait(POLL_S):
                self._look(is_last=False)
            self._look(is_last=True)
        except Exception as error:  # whatever it is, the program goes on, and what was recorded stands
            self.trouble = f"TensorBoard files are not followed any more: {type(error).__name__}: {error}"
        finally:
            if self._log is not None:
                self._log.close()

    def _look(self, *, is_last: bool) -> None:
        if self._is_over:
            return
        for path in self._find(is_last=is_last):
            if path in self._files or path in self._refused:
                continue
            if self._is_followed(path):
                self._files[path] = 0
            else:
                self._refused.add(path)
        if not self._files:
            return
        if self._where is None and self._keeps_itself():
            self._is_over = True
            return
        if importlib.util.find_spec("tensorboardX") is None:
            self._is_over = True
            self.trouble = (
                "the program writes TensorBoard files; to follow them, tensorboardX must be there: "
                'pip install "runstone[tensorboard]"'
            )
            return
        for path in list(self._files):
            with contextlib.suppress(OSError):
                self._read(path)

    # --- which files -----------------------------------------------------------------------------------------------

    def _find(self, *, is_last: bool) -> Iterator[Path]:
        if self._where is not None:
            yield from self._scan(self._where)
            return
        has_seen_processes = False
        for path in _open_files(self._pid):
            has_seen_processes = True
            if "tfevents" in path.name:
                yield path
        if is_last or (not has_seen_processes and time.monotonic() >= self._next_scan_s):
            self._next_scan_s = time.monotonic() + _SCAN_S
            yield from self._scan(self._cwd)

    def _scan(self, root: Path) -> Iterator[Path]:
        """Yield event files below a folder, within bounds of time and size."""
        until, left = time.monotonic() + _LONGEST_SCAN_S, _MOST_ENTRIES
        waiting = [(root, 0)]
        while waiting and left > 0 and time.monotonic() < until:
            folder, depth = waiting.pop()
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    left -= 1
                    if "tfevents" in entry.name:
                        yield Path(entry.path)
                    elif (
                        depth < _DEEPEST
                        and not entry.name.startswith(".")
                        and entry.name not in _NOT_LOOKED_INTO
                        and entry.is_dir(follow_symlinks=False)
                    ):
                        waiting.append((Path(entry.path), depth + 1))

    def _is_followed(self, path: Path) -> bool:
        """Return whether a file is new, and not one that a run is mirrored into."""
        if path.name.endswith(_OWN_ENDING) or path.is_relative_to(self._workspace):
            return False
        try:
            written_at = path.stat().st_mtime
        except OSError:
            return False
        stamp = _STAMP.search(path.name)
        begun = float(stamp[1]) if stamp else written_at
        # Names count seconds: one of the same second may be of a program that had ended before.
        return begun >= int(self._started_at) and written_at >= self._started_at - _COARSE_S

    # --- what is in them -------------------------------------------------------------------------------------------

    def _read(self, path: Path) -> None:
        from runstone.tensorboard.protos import Event  # NumPy and tensorboardX, only where there are event files
        from runstone.tensorboard.reader import RunEvents
        from runstone.tensorboard.records import Losses, records

        start = self._files[path]
        with path.open("rb") as file:
            file.seek(start)
            data = file.read()
        if not data:
            return
        events = self._folders.setdefault(path.parent, RunEvents())
        end = 0
        for place, record in records(data, Losses()):
            end = place + len(record) + 16  # a record's length, and two checksums
            try:
                events.take(Event.FromString(record))
            except Exception:  # protobuf's own error class depends on its back end
                self.left_out["damaged record"] += 1
        self._files[path] = start + end
        self._record(path.parent, events)

    def _record(self, folder: Path, events: RunEvents) -> None:
        if events.hparams:
            self._add_params(dict(events.hparams))
            events.hparams = {}
        if events.points:
            prefix = self._prefix(folder)
            log = self._open_log()
            for tag, points in events.points.items():
                for row in range(len(points)):
                    self._now_s = points.wall_s[row]
                    value = points.typed.get(row, points.value[row])
                    try:
                        log.points.log_one(prefix + tag, value, points.step[row])
                        self.points += 1
                    except (RunstoneError, OSError) as error:
                        self.left_out[f"{type(error).__name__}"] += 1
            events.points = {}
        for kind, count in (
            ("text", sum(map(len, events.texts.values()))),
            ("image, sound or histogram", events.media_count),
        ):
            self.left_out[kind] += count
        events.texts, events.media_count = {}, 0
        events.marks.clear()

    def _open_log(self) -> RunLog:
        if self._log is None:
            self._log = RunLog(self._run_path, role="child", attempt=self._attempt, clock=lambda: self._now_s)
            self._own(self._log.writer.hex())
        return self._log

    def _prefix(self, folder: Path) -> str:
        """Return what the metrics of a folder's files begin with: nothing, or the folder's place below the first."""
        known = self._prefixes.get(folder)
        if known is not None:
            return known
        if self._base is None:
            self._base = self._where or (folder.parent if folder.name.lower() in _PHASES else folder)
        base = self._base
        if folder == base:
            prefix = ""
        elif folder.is_relative_to(base):
            prefix = f"{folder.relative_to(base)}/"
        else:
            prefix = f"{folder.name}/"
            if prefix in self._prefixes.values():
                prefix = f"{os.path.relpath(folder, self._cwd)}/"
        self._prefixes[folder] = prefix
        return prefix


def _open_files(pid: int) -> Iterator[Path]:
    """Yield the files that a program and those that it started have open, as far as the system tells."""
    import psutil  # only beside a program that runs

    try:
        first = psutil.Process(pid)
        processes = [first, *first.children(recursive=True)][:_MOST_PROCESSES]
    except psutil.Error:
        return
    for process in processes:
        folder = f"/proc/{process.pid}/fd"
        try:
            names = os.listdir(folder)  # noqa: PTH208 - hundreds of names, no Path for each
        except OSError:
            continue
        for name in names:
            with contextlib.suppress(OSError):
                target = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - as above
                if target.startswith("/") and not target.startswith(("/dev/", "/proc/")):
                    yield Path(target)
