"""Runs as TensorBoard event files: written from a run's files, while it lives or later, each point once.

The event files are their own record of what is mirrored: a mirror that starts reads back what earlier ones wrote, and
goes on from there, however they ended. A run's folder below the log directory has besides

`runstone.json`  which run it belongs to; locked by the one who mirrors it
`runstone.done`  how the run's folder and the event files looked when an ended run was mirrored whole
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from runstone.blobs import open_blobs
from runstone.errors import RunstoneError
from runstone.names import folder_name
from runstone.runinfo import RunInfo
from runstone.runlog.portions import Portion, join
from runstone.runlog.tail import MetricTail
from runstone.tensorboard.difference import is_new
from runstone.tensorboard.mirror_media import MediaQueue, NotShown, summary_value
from runstone.tensorboard.protos import (
    Event,
    HParamsPluginData,
    SessionLog,
    Summary,
    TensorProto,
    TextPluginData,
)
from runstone.tensorboard.reader import event_files, exact_text, read_events
from runstone.tensorboard.records import framed
from runstone.values import JSON, Series, Status

POLL_S = 1.0
NOTES_TAG, TAGS_PREFIX = "runstone/notes", "runstone/tags/"
_OWN = ".runstone"
_FORMAT = 1
_VERSION = "brain.Event:2"
_OWNER, _DONE = "runstone.json", "runstone.done"
_RETRIES = 5
_PORTION = 1 << 16
_STRING = 7  # of TensorFlow's DataType
# Of the hparams plugin: success, failure, running.
_STATUS = {Status.FAILED: 2, Status.CRASHED: 2, Status.RUNNING: 3}


class RunMirror:
    """Mirrors one run into one folder. Not safe for several threads at once.

    Args:
        run_path: Folder of the run.
        logdir: Folder for TensorBoard; the run gets one below it.
    """

    def __init__(self, run_path: Path, logdir: Path) -> None:
        self.run_path = run_path
        self.written = 0
        """Points written by this mirror."""
        self.media_written = 0
        """Media and texts written by this mirror."""
        self.left_out: Counter[str] = Counter()
        """How many media were not written, by reason."""
        self.is_busy_elsewhere = False
        """Whether another process mirrors the run; this one waits for its turn."""
        self._logdir = logdir
        self._blobs = open_blobs(run_path.absolute().parents[2])
        self._lock: int | None = None
        self.folder: Path | None = None
        self._forget()

    def _forget(self) -> None:
        """Take nothing for granted: what is in the event files is read again before more is written."""
        self._tail: MetricTail | None = None
        self._file: BinaryIO | None = None
        self._standing: dict[str, Any] = {}
        self._standing_media: Counter[tuple[str, int, str, str]] = Counter()
        self._plugins: dict[str, str] = {}
        self._texts: dict[str, tuple[int, str]] = {}
        self._restarts: set[tuple[int, float]] = set()
        self._hparams = b""
        self._has_points = False
        self._is_reset = True

    # --- one look -----------------------------------------------------------------------------------------------------

    def update(self) -> bool:
        """Write what came since the last call; return whether the run goes on.

        Raises:
            OSError: the event files cannot be written. The next call starts over from what is in them.
            RunNotFound: the run is gone.
        """
        info = RunInfo(self.run_path)  # before the points: where it has ended now, all of them are in the files
        is_ended = info.status.is_ended
        if not self._claim(info):
            return not is_ended
        if self.folder is None:
            raise RunstoneError(f"run {info.id} has no folder in {self._logdir}")
        if is_ended and self._is_reset and self._is_done(self.folder):
            return False
        try:
            self._write(info, self.folder, is_ended)
        except BaseException:
            with contextlib.suppress(OSError):
                self._close_file()
            self._forget()
            raise
        return not is_ended

    def _write(self, info: RunInfo, folder: Path, is_ended: bool) -> None:
        if self._is_reset:
            self._read_back(folder)
        if self._tail is None:
            self._tail = MetricTail(self.run_path)
        signature = _signature(self.run_path)
        polled = self._tail.poll_portions()
        self._has_points = self._has_points or bool(polled)
        if self._has_points or is_ended:
            self._write_hparams(info, folder)
        self._write_texts(info, folder)
        self._write_points(info, folder, polled)
        self._standing, self._standing_media = {}, Counter()  # the first poll returns all that there is
        if self._file is not None:
            self._file.flush()
        if is_ended:
            self._close_file()
            self._note_done(folder, signature)

    def close(self) -> None:
        """Let go of the files and of the run."""
        self._close_file()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _close_file(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    # --- whose turn it is ---------------------------------------------------------------------------------------------

    def _claim(self, info: RunInfo) -> bool:
        if self._lock is None:
            self.folder = self.folder or claim_folder(self._logdir, info)
            self._lock = _lock(self.folder / _OWNER)
        self.is_busy_elsewhere = self._lock is None
        return self._lock is not None

    def _is_done(self, folder: Path) -> bool:
        try:
            told = json.loads((folder / _DONE).read_bytes())
        except (OSError, ValueError):
            return False
        return bool(told == [_signature(self.run_path), _signature(folder, _own_files(folder))])

    def _note_done(self, folder: Path, signature: str) -> None:
        _replace(folder / _DONE, json.dumps([signature, _signature(folder, _own_files(folder))]).encode())

    def _read_back(self, folder: Path) -> None:
        found = read_events(folder, _own_files(folder))
        self._standing = {tag: (points.step, points.value) for tag, points in found.points.items()}
        self._standing_media = found.marks
        self._plugins = {**dict.fromkeys(found.points, "scalars"), **found.marked_tags}
        self._texts = {tag: (texts[-1][0], texts[-1][2]) for tag, texts in found.texts.items()}
        self._restarts = found.restarts
        self._is_reset = False

    # --- what is written ----------------------------------------------------------------------------------------------

    def _add(self, folder: Path, event: Any) -> None:
        if self._file is None:
            # to the nanosecond: TensorBoard takes files in the order of their names
            now_s, now_ns = divmod(time.time_ns(), 10**9)
            name = f"events.out.tfevents.{now_s:010d}.{now_ns:09d}.{os.getpid()}{_OWN}"
            self._file = (folder / name).open("xb", buffering=1 << 16)
            self._file.write(framed(Event(wall_time=time.time(), file_version=_VERSION).SerializeToString()))
        self._file.write(framed(event.SerializeToString()))

    def _write_points(self, info: RunInfo, folder: Path, polled: Mapping[str, list[Portion]]) -> None:
        """Write points and media in the order of time, and before those of an attempt that goes back: that it does."""
        numbers = {
            name: join(name, kept)
            for name, portions in polled.items()
            if (kept := [portion for portion in portions if portion.payloads is None])
        }
        for name in numbers:
            self._plugins.setdefault(name, "scalars")
        batch, media = _Batch(numbers, self._standing), MediaQueue(polled, self._standing_media)
        starts = [(a.rewind_step, a.started_at.timestamp()) for a in info.attempts if a.rewind_step is not None]
        for step, at in sorted(set(starts) - self._restarts, key=lambda start: start[1]):
            self._write_batch(folder, batch, until_s=at)
            self._write_media(folder, media, until_s=at)
            event = Event(wall_time=at, step=step)
            event.session_log.status = SessionLog.START  # TensorBoard drops what it has from this step on
            self._add(folder, event)
            self._restarts.add((step, at))
        self._write_batch(folder, batch)
        self._write_media(folder, media)

    def _write_batch(self, folder: Path, batch: _Batch, until_s: float | None = None) -> None:
        for tag, step, value, wall_s, exact in batch.take(until_s):
            summary = Summary.Value(tag=tag, simple_value=value, node_name=exact)
            self._add(folder, Event(wall_time=wall_s, step=step, summary=Summary(value=[summary])))
            self.written += 1

    def _write_media(self, folder: Path, media: MediaQueue, until_s: float | None = None) -> None:
        for item in media.take(until_s):
            try:
                value = summary_value(self._tag_of(item.name, item.plugin), item, self._blobs)
            except NotShown as error:
                self.left_out[str(error)] += 1
                continue
            self._add(folder, Event(wall_time=item.wall_s, step=item.step, summary=Summary(value=[value])))
            self.media_written += 1

    def _tag_of(self, name: str, plugin: str) -> str:
        """Return the tag of a name: of one tag TensorBoard shows one kind only, the one that it saw first."""
        tag = name
        while self._plugins.setdefault(tag, plugin) != plugin:
            tag = f"{tag} ({plugin})"
        return tag

    def _write_texts(self, info: RunInfo, folder: Path) -> None:
        texts = {_text(f"{TAGS_PREFIX}{name}"): text for name, text in info.tags.items()}
        if info.notes is not None or NOTES_TAG in self._texts:
            texts[NOTES_TAG] = info.notes or ""
        for tag, text in texts.items():
            step, before = self._texts.get(tag, (-1, None))
            if text == before:
                continue
            value = Summary.Value(tag=tag, tensor=TensorProto(dtype=_STRING, string_val=[_utf8(text)]))
            value.tensor.tensor_shape.dim.add(size=1)
            value.metadata.plugin_data.plugin_name = "text"
            value.metadata.plugin_data.content = TextPluginData(version=0).SerializeToString()
            at = info.started_at.timestamp() if before is None else time.time()
            self._add(folder, Event(wall_time=at, step=step + 1, summary=Summary(value=[value])))
            self._texts[tag] = (step + 1, text)

    def _write_hparams(self, info: RunInfo, folder: Path) -> None:
        """Write params into a file of their own, which is replaced when they change.

        TensorBoard keeps the first that it sees of them; without a list of metrics it finds those itself.
        """
        at = info.started_at.timestamp()
        start, end = HParamsPluginData(), HParamsPluginData()
        for name, value in info.flat_params.items():
            _set_hparam(start.session_start_info.hparams[_text(name)], value)
        start.session_start_info.start_time_secs = at
        end.session_end_info.status = _STATUS.get(info.status, 1)
        if info.ended_at is not None:
            end.session_end_info.end_time_secs = info.ended_at.timestamp()
        content = start.SerializeToString(deterministic=True) + end.SerializeToString(deterministic=True)
        if content == self._hparams:
            return
        name = f"events.out.tfevents.{int(at):010d}.{info.id}.hparams{_OWN}"
        if info.flat_params:
            events = [Event(wall_time=at, file_version=_VERSION)]
            for tag, data in (("session_start_info", start), ("session_end_info", end)):
                value = Summary.Value(tag=f"_hparams_/{tag}")
                value.metadata.plugin_data.plugin_name = "hparams"
                value.metadata.plugin_data.content = data.SerializeToString(deterministic=True)
                events.append(Event(wall_time=at, summary=Summary(value=[value])))
            data = b"".join(framed(event.SerializeToString(deterministic=True)) for event in events)
            path = folder / name
            if not path.is_file() or path.read_bytes() != data:
                _replace(path, data)
        self._hparams = content


class _Batch:
    """Points of several metrics, in the order in which they were logged, as far as their wall times tell."""

    def __init__(self, polled: Mapping[str, Series], standing: Mapping[str, Any]) -> None:
        self._names: list[str] = []
        columns: list[tuple[Any, ...]] = []
        for name, series in sorted(polled.items()):
            kind = series.value.dtype.kind
            kept = np.arange(len(series))
            if name in standing:
                kept = np.flatnonzero(is_new(series.step, series.value, standing=standing[name]))
            value, wall_s = series.value[kept], series.wall_s[kept]
            bits = value.astype(np.float64).view(np.int64) if kind == "f" else value.astype(np.int64)
            # where a clock went back, the order of one metric stays as it is
            time_s = np.fmax.accumulate(wall_s) if len(kept) else wall_s
            number, kinds = np.full(len(kept), len(self._names)), np.full(len(kept), "fib".index(kind), np.int8)
            columns.append((time_s, wall_s, series.step[kept], bits, kinds, number))
            self._names.append(name)
        self._columns = [np.concatenate(parts) for parts in zip(*columns, strict=True)] if columns else [np.empty(0)]
        self._order = np.argsort(self._columns[0], kind="stable")
        self._next = 0

    def take(self, until_s: float | None = None) -> Iterator[tuple[str, int, float, float, str]]:
        """Yield tag, step, value, wall time and exact text of those before a time, or of all that are left."""
        end = len(self._order)
        if until_s is not None:
            end = max(self._next, int(np.searchsorted(self._columns[0], until_s, sorter=self._order)))
        while self._next < end:
            rows = self._order[self._next : min(end, self._next + _PORTION)]
            wall_s, step, bits, kind, number = (column[rows] for column in self._columns[1:])
            value = np.where(kind == 0, bits.view(np.float64), bits.astype(np.float64))
            with np.errstate(over="ignore"):
                is_plain = (kind == 0) & (np.isnan(value) | (value.astype(np.float32) == value))
            for metric, at, one_step, one, plain, whole, sort in zip(
                *(column.tolist() for column in (number, wall_s, step, value, is_plain, bits, kind)), strict=True
            ):
                exact = "" if plain else exact_text((one, whole, bool(whole))[sort])
                yield self._names[metric], one_step, one, at, exact
            self._next += len(rows)


# --- following --------------------------------------------------------------------------------------------------------


def mirror_until_ended(
    run_path: Path, logdir: Path, *, poll_s: float = POLL_S, tell: Callable[[str], None] = lambda _line: None
) -> int:
    """Mirror one run until it has ended; return how many points were written.

    Where another process mirrors it, this one takes over when that is gone. A disk that is full is tried again.

    Args:
        run_path, logdir: As for `RunMirror`.
        poll_s: Seconds between two looks.
        tell: Is told once of each kind of media that is left out.

    Raises:
        OSError: the event files could not be written, in the end.
        RunNotFound: the run is gone.
    """
    mirror = RunMirror(run_path, logdir)
    failures = 0
    told: set[str] = set()
    try:
        while True:
            try:
                goes_on = mirror.update()
                for reason in sorted(mirror.left_out.keys() - told):
                    tell(f"left out: {reason}")
                told.update(mirror.left_out)
                if not goes_on:
                    return mirror.written
                failures = 0
            except OSError as error:
                failures += 1
                if isinstance(error, RunstoneError) or (failures >= _RETRIES and RunInfo(run_path).status.is_ended):
                    raise
            time.sleep(poll_s)
    finally:
        mirror.close()


# --- folders ----------------------------------------------------------------------------------------------------------


def claim_folder(logdir: Path, info: RunInfo) -> Path:
    """Return the folder of a run below a log directory, made where there is none: `<project>/<run name>`.

    Both are named as `names.folder_name` does it; of several runs with one name, the later have the end of their id
    behind it. A folder that belongs to something else is never touched.

    Raises:
        OSError: it cannot be made.
    """
    project = logdir / folder_name(info.project)
    project.mkdir(parents=True, exist_ok=True)
    for folder in sorted(project.iterdir()):
        if _owner_of(folder) == info.id:  # also after the run was renamed
            return folder
    plain = folder_name(info.name)
    for name in (plain, f"{plain}~{info.id[-8:]}", f"{plain}~{info.id}"):
        folder = project / name
        if _make_folder(folder, info) or _owner_of(folder) == info.id:
            return folder
    raise FileExistsError(f"{project / plain} and its neighbours belong to something else; name another --logdir")


def _make_folder(folder: Path, info: RunInfo) -> bool:
    """Make a folder that says whose it is, whole or not at all."""
    partial = folder.with_name(f".{os.urandom(8).hex()}.partial")
    partial.mkdir()
    owner = {"format": _FORMAT, "run": info.id, "project": info.project}
    (partial / _OWNER).write_text(json.dumps(owner))
    if not folder.exists():
        with contextlib.suppress(OSError):  # another process was faster
            partial.rename(folder)
            return True
    (partial / _OWNER).unlink()
    partial.rmdir()
    return False


def _owner_of(folder: Path) -> str | None:
    try:
        told = json.loads((folder / _OWNER).read_bytes())
    except (OSError, ValueError):
        return None
    return str(told.get("run")) if isinstance(told, dict) else None


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock on a file, `None` where another process has it."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:  # a file system without locks: nobody is kept out
        pass
    return fd


def _own_files(folder: Path) -> list[str]:
    return [name for name in event_files(folder) if name.endswith(_OWN)]


def _signature(folder: Path, names: Iterable[str] | None = None) -> str:
    """Return what changes when a file of a folder does."""
    digest = hashlib.blake2b(digest_size=16)
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder) if names is None else names):  # noqa: PTH208 (names are all that is needed)
            with contextlib.suppress(OSError):
                stat = (folder / name).stat()
                digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{os.urandom(8).hex()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# --- values -----------------------------------------------------------------------------------------------------------


def _set_hparam(target: Any, value: JSON) -> None:
    """Set a `google.protobuf.Value` to what the hparams page can show: a number, a bool or text."""
    match value:
        case bool():
            target.bool_value = value
        case int() if -(2**53) <= value <= 2**53:
            target.number_value = float(value)
        case float() if np.isfinite(value):
            target.number_value = value
        case str():
            target.string_value = _text(value)
        case int() | float():
            target.string_value = str(value)  # JSON, in which the page gets it, has no such number
        case _:
            target.string_value = _text(json.dumps(value, ensure_ascii=False))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _text(text: str) -> str:
    return _utf8(text).decode()
