"""A workspace: one folder that holds everything. Finds it, makes it, checks its format, hands out its parts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runstone import settings
from runstone.errors import AlreadyExists, FormatError, InvalidValue, RunNotFound, WorkspaceNotFound
from runstone.names import check_name, check_run_id, folder_name, new_run_id, new_run_name, shown
from runstone.params import to_json
from runstone.runlog import format as fmt
from runstone.runlog.writer import RunLog, clear_stop, request_stop
from runstone.status import Status

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from runstone.blobs import Blobs
    from runstone.datasets import Datasets
    from runstone.editing import Edited, Purge
    from runstone.lineage import Lineage
    from runstone.models import Models, ModelVersion
    from runstone.query import RunTable
    from runstone.query.standing import StandingIndex
    from runstone.runinfo import RunInfo
    from runstone.runlog.reader import JournalState
    from runstone.runlog.seal import Sealing
    from runstone.runlog.tail import MetricTail
    from runstone.values import Failure

StopReason = Literal["stop", "prune"]
_WORDS: dict[str, int] = {"stop": fmt.WORD_STOP, "prune": fmt.WORD_PRUNE}


class Workspace:
    """One folder that holds runs, sweeps and blobs. Cheap to make, holds nothing open. Threads may share it.

    What questions about runs have read stays in memory for the next one: ask the same workspace again and again.

    Args:
        path: The folder.

    Raises:
        WorkspaceNotFound: it is not there.
        FormatError: a newer version of Runstone made it, or it is something else.
    """

    url: str | None = None
    """Of the server that it is on; `None`: it is a folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = settings.expanded(path).absolute()
        self._index: StandingIndex | None = None
        _check_format(self.path)

    def __repr__(self) -> str:
        """Say where it lies."""
        return f"<Workspace {self.path}>"

    # --- reading ---------------------------------------------------------------------------------------------------

    def runs(
        self,
        filter: str = "",
        *,
        order_by: str | None = None,
        limit: int | None = None,
        deleted: bool = False,
        archived: bool | None = False,
    ) -> RunTable:
        """Return the runs that a filter selects, newest first unless `order_by` says otherwise.

        Args:
            filter: Such as `"metrics.val/acc.max > 0.9 and params.model = 'mlp'"`; empty for all. See docs/filters.md.
            order_by: Such as `"metrics.val/acc.max desc, started_at"`.
            limit: At most this many.
            deleted: Show the deleted runs instead of the others.
            archived: Show the archived runs instead of the others; `None`: both. A filter that names `archived` decides
                itself.

        Raises:
            InvalidFilter: the filter or the order does not parse; the message points at the place.
        """
        from runstone.query.standing import StandingIndex  # SQL, only for reading

        if self._index is None:
            self._index = StandingIndex(self.path)
        index = self._index.opened()
        return index.find_runs(filter, order_by=order_by, limit=limit, deleted=deleted, archived=archived)

    def plot(
        self,
        *metrics: str,
        filter: str = "",
        kind: str = "curves",
        x: str = "",
        y: str = "",
        by: str | Sequence[str] = (),
        smoothing: float = 0.0,
        log: str = "",
        goal: str | None = None,
        at: str | None = None,
        order_by: str | None = None,
        theme: str = "light",
    ) -> go.Figure:
        """Return a figure of the runs that a filter selects (needs plotly).

        Args:
            *metrics: Such as `"val/loss"`; for kinds with one number a run also `"val/loss.min"`.
            filter: Which runs.
            kind: `curves`, `groups`, `spread`, `scatter`, `histogram`, `heatmap`, `parallel`, `front` or `history`.
            x: For curves `step`, `time`, `relative` or a metric; for `scatter` and `heatmap` a field.
            y: A field, for `scatter` and `heatmap`.
            by: Fields to group by.
            smoothing: Of curves, from 0 to below 1.
            log: Which axes are logarithmic: `x`, `y` or `xy`.
            goal, at: As for `runstone.compare`.
            order_by: Which runs come first, where not all can be drawn.
            theme: `light` or `dark`.

        Raises:
            InvalidFilter: the filter, the order or a field does not parse.
            InvalidValue: there is no such metric or kind, or something that the kind needs is missing.
            InvalidConfig: plotly, or SciPy where groups are compared, is not installed.
        """
        from runstone.comparison import Plot, checked_goal, draw_plot  # figures, only where asked for

        wanted = Plot(
            kind=kind,
            metrics=metrics,
            x=x,
            y=y,
            by=(by,) if isinstance(by, str) else tuple(by),
            smoothing=smoothing,
            is_log_x="x" in log,
            is_log_y="y" in log,
            goal=checked_goal(goal),
            at=at,
        )
        return draw_plot(self.runs(filter, order_by=order_by), wanted).to_plotly(theme)

    def run(self, reference: str) -> RunInfo:
        """Return one run.

        Args:
            reference: Its id, at least 4 characters of the id's begin or end, or its name.

        Raises:
            RunNotFound: there is none.
            AmbiguousName: there are several; the message lists them.
        """
        from runstone.query import resolve_run  # SQL, only for reading
        from runstone.runinfo import RunInfo  # NumPy, only for reading

        return RunInfo(resolve_run(self.path, reference))

    def run_folders(self) -> Iterator[Path]:
        """Yield the folder of every run, in no order."""
        for project in _folders(self.path / "runs"):
            yield from _folders(project)

    def find_run_folder(self, run_id: str) -> Path | None:
        """Return the folder of the run with this very id, or `None`."""
        check_run_id(run_id)
        candidates = (project / run_id for project in _folders(self.path / "runs"))
        return next((candidate for candidate in candidates if candidate.is_dir()), None)

    def follow(self, run_id: str) -> MetricTail:
        """Return a follower of a run's metrics: each `poll()` returns the points that came since the last.

        Raises:
            RunNotFound: no run has this id.
        """
        from runstone.runlog.tail import MetricTail  # NumPy, only for reading

        return MetricTail(self._run_folder(run_id))

    @property
    def blobs(self) -> Blobs:
        """Content of artifacts, by hash."""
        from runstone.blobs import open_blobs  # only for artifacts

        return open_blobs(self.path)

    def register_model(
        self,
        name: str,
        run_id: str,
        *,
        artifact: str | None = None,
        version: str | None = None,
        reason: str | None = None,
        tags: Mapping[str, str] | None = None,
        notes: str | None = None,
    ) -> ModelVersion:
        """Register what a run has logged as an artifact as a new version of a model.

        Args:
            name: Of the model; made with its first version.
            run_id: The run.
            artifact: Name of its artifact; default: the only one.
            version: A number, or `major`, `minor`, `patch`; default: what the evidence speaks for.
            reason: Why a lower number than the proposed one is right.
            tags, notes: Of the version.

        Raises:
            RunNotFound, NotFound: there is no such run or artifact.
            AmbiguousName: the run has several artifacts, and none is named.
            InvalidValue, AlreadyExists: the number cannot be given.
        """
        from runstone import models  # only for models

        manifest = models.save_artifact(self.run(run_id), artifact, self.blobs)
        entry = models.Registration(name, version, None, reason, tags, notes)
        return models.register(self.models, self.blobs, manifest, entry)

    @property
    def models(self) -> Models:
        """The model registry."""
        from runstone.models import Models  # only for models
        from runstone.models.hooks import announcer

        return Models(self.path / "models", after=announcer(self.path))

    def lineage(self, ref: str, *, up: bool = True, down: bool = True, depth: int | None = None) -> Lineage:
        """Return what a thing came of and what came of it.

        Args:
            ref: A run (id, part of it, or name), `model:NAME@V`, `dataset:NAME@V`, or the hash of an artifact.
            up: Whether what it came of is wanted.
            down: Whether what came of it is wanted.
            depth: At most so many steps each way; default: all.

        Raises:
            NotFound: there is no such thing.
            AmbiguousName: several are meant.
        """
        from runstone.lineage import lineage_of  # only where asked for

        return lineage_of(self, ref, up=up, down=down, depth=depth)

    @property
    def datasets(self) -> Datasets:
        """The datasets: versions of data."""
        from runstone.datasets import Datasets  # only for data

        return Datasets(self.path)

    # --- making and changing ---------------------------------------------------------------------------------------

    def create_run(
        self,
        *,
        project: str,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        group: str | None = None,
        notes: str | None = None,
        run_id: str | None = None,
    ) -> LaunchedRun:
        """Make a run for another process, which joins it with `start_run` under `RUNSTONE_RUN_ID`.

        Raises:
            InvalidName: a name cannot be kept.
            AlreadyExists: a run has this id.
        """
        run_id = check_run_id(run_id) if run_id is not None else new_run_id()
        created = {
            "run_id": run_id,
            "project": check_name(project, "project"),
            "name": check_name(name, "run") if name is not None else new_run_name(),
            "group": check_name(group, "group") if group is not None else None,
            "notes": str(notes) if notes is not None else None,
            "parent": None,
        }
        checked_tags = check_tags(tags or {})
        log = self.open_new_run(created, role="launcher")
        launched = LaunchedRun(self, log)
        if params:
            launched.log_params(params)
        if checked_tags:
            launched.set_tags(checked_tags)
        return launched

    def launched_run(self, run_id: str, *, attempt: int | None = None) -> LaunchedRun:
        """Return a handle on a run for the one who launches it, after a restart or for its next attempt.

        Args:
            run_id: The run.
            attempt: The one that was launched and whose end is still to be told; default: the one that comes now.

        Raises:
            RunNotFound: no run has this id.
        """
        from runstone.runlog.reader import read_journal

        folder = self._run_folder(run_id)
        if attempt is not None:
            return LaunchedRun(self, RunLog(folder, role="launcher", attempt=attempt))
        journal = read_journal(folder)
        if not any(writer.is_alive for writer in journal.writers if writer.role == "main"):
            clear_stop(folder)  # what ended the process before must not end the one that is launched now
        return LaunchedRun(self, RunLog(folder, role="launcher", attempt=attempt_to_join(journal)))

    def open_new_run(self, created: Mapping[str, Any], **options: Any) -> RunLog:
        """Make a run and return its log; nothing is left where that fails.

        Args:
            created: Fields of its `created` event, checked.
            **options: Of `RunLog`.

        Raises:
            AlreadyExists: a run has this id.
            OSError: it cannot be made.
        """
        folder = self.make_run_folder(created["project"], created["run_id"])
        try:
            return RunLog(folder, created=created, **options)
        except BaseException:
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise

    def make_run_folder(self, project: str, run_id: str) -> Path:
        """Make the folder of a new run.

        Raises:
            AlreadyExists: a run has this id, in this project or another.
        """
        standing = self.find_run_folder(run_id)
        folder = self.path / "runs" / folder_name(project) / run_id
        if standing is None:
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                standing = folder
        raise AlreadyExists(f"a run with the id {run_id!r} is there already: {standing}; go on with it by resume=True")

    def seal(self, run_id: str) -> Sealing | None:
        """Put the metrics of an ended run into one compact, checksummed Parquet file. Loses nothing, can be done again.

        Returns:
            Points, and bytes before and after; `None` where there was nothing to do: all is sealed, or it is alive.

        Raises:
            RunNotFound: no run has this id.
            FormatError: its files are damaged.
        """
        from runstone.runlog.seal import seal  # Arrow, only for sealing

        return seal(self._run_folder(run_id))

    def request_stop(self, run_id: str, reason: StopReason = "stop") -> None:
        """Ask a running run to stop: its `should_stop` turns true at once.

        Raises:
            RunNotFound: no run has this id.
        """
        request_stop(self._run_folder(run_id), _word(reason))

    def set_name(self, run_id: str, name: str) -> None:
        """Give a run another name.

        Raises:
            RunNotFound: no run has this id.
            InvalidName: the name cannot be kept.
        """
        self.edit([run_id], name=name)

    def set_notes(self, run_id: str, notes: str | None) -> None:
        """Put another text into the notes of a run; `None` empties them.

        Raises:
            RunNotFound: no run has this id.
        """
        self.edit([run_id], notes=notes)

    def set_group(self, run_id: str, group: str | None) -> None:
        """Put a run into another group of its project; `None` takes it out.

        Raises:
            RunNotFound: no run has this id.
            InvalidName: the name cannot be kept.
        """
        self.edit([run_id], group=group)

    def set_tags(self, run_id: str, tags: Mapping[str, str], *, remove: tuple[str, ...] = ()) -> None:
        """Set and remove tags of a run, ended or not.

        Raises:
            RunNotFound: no run has this id.
            InvalidName, InvalidValue: they cannot be kept.
        """
        self.edit([run_id], set_tags=tags, remove_tags=remove)

    def pin(self, run_id: str, value: bool = True) -> None:
        """Mark a run, so that it is found again, or take the mark away.

        Raises:
            RunNotFound: no run has this id.
        """
        self.edit([run_id], pinned=value)

    def archive(self, run_id: str, value: bool = True) -> None:
        """Put a run away: lists show it only where asked for. `False` brings it back.

        Raises:
            RunNotFound: no run has this id.
        """
        self.edit([run_id], archived=value)

    def delete(self, run_id: str) -> None:
        """Hide a run from lists. Its files stay, and `restore` brings it back.

        Raises:
            RunNotFound: no run has this id.
        """
        self.edit([run_id], deleted=True)

    def restore(self, run_id: str) -> None:
        """Show a deleted run again.

        Raises:
            RunNotFound: no run has this id.
        """
        self.edit([run_id], deleted=False)

    def edit(self, runs_or_filter: str | Sequence[str], *, dry_run: bool = False, **edits: Any) -> Edited:
        """Change what is said of many runs, living ones too.

        Args:
            runs_or_filter: A list of ids, or a filter (archived runs are found too; with `deleted=False` it looks among
                the deleted runs).
            dry_run: Write nothing, and say what would change.
            **edits: `name`, `notes`, `group`, `set_tags` (by name), `remove_tags` (names), `pinned`, `archived`,
                `deleted`; what is not given stays.

        Returns:
            What changed, run by run; its `undo()` holds the arguments that take it back.

        Raises:
            RunNotFound: no run has one of the ids; nothing was changed.
            InvalidFilter: the filter does not parse.
            InvalidName, InvalidValue: a value cannot be kept, or there is no such field.
        """
        from runstone.editing import Edits, edit  # SQL for filters, only for editing

        unknown = sorted(set(edits) - set(Edits.__slots__))
        if unknown:
            raise InvalidValue(f"a run has no {unknown[0]!r} to change; there are {', '.join(Edits.__slots__)}")
        return edit(self, runs_or_filter, Edits(**edits), dry_run=dry_run)

    def purge(self, runs_or_filter: str | Sequence[str], *, dry_run: bool = False) -> Purge:
        """Remove deleted runs for good, except those that live or that a registered version was made by.

        Args:
            runs_or_filter: A list of ids, or a filter over the deleted runs.
            dry_run: Remove nothing, and say what would go.

        Returns:
            Which went, which stay and why, and the bytes.

        Raises:
            RunNotFound, InvalidFilter: nothing was removed.
            OSError: a folder cannot be removed.
        """
        from runstone.editing import purge_runs  # only for removing

        return purge_runs(self, runs_or_filter, dry_run=dry_run)

    def revoke_run(self, run_id: str, reason: str | None) -> None:
        """Say that nothing that a run made may be used any more, and why; `None` takes that back.

        Raises:
            RunNotFound: no run has this id.
        """
        from runstone.editing.editor import write_events  # only for editing

        write_events(self._run_folder(run_id), [("revoked", {"reason": reason})])

    def _run_folder(self, run_id: str) -> Path:
        folder = self.find_run_folder(run_id)
        if folder is None:
            raise RunNotFound(f"no run has the id {run_id!r} in {self.path}; `runstone runs list` shows what is there")
        return folder


class LaunchedRun:
    """A run that another process writes, as its launcher holds it. While it is open, the run does not count as crashed.

    `Workspace.create_run` makes one.
    """

    def __init__(self, workspace: Workspace, log: RunLog) -> None:
        self.workspace = workspace
        self._log = log
        self.id = log.path.name
        self.path = log.path

    @property
    def attempt(self) -> int:
        """Number of the attempt that it launches."""
        return self._log.attempt

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record params of the run."""
        self._log.write("params", params=to_json(params)[0])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self._log.write("tags", set=check_tags(tags), remove=[])

    def request_stop(self, reason: StopReason = "stop") -> None:
        """Ask the run to stop: its `should_stop` turns true at once."""
        request_stop(self.path, _word(reason))

    def end(self, status: Status | str, *, failure: Failure | None = None) -> None:
        """Say how the run ended, for a process that could not say it, and close.

        Raises:
            InvalidValue: `status` is no way to end.
        """
        word = str(end_status(status))
        told = {"type": failure.type, "message": failure.message, "traceback": failure.traceback} if failure else None
        try:
            self._log.write("end", status=word, failure=told, dropped=0)
        finally:
            self._log.close(word)

    def close(self) -> None:
        """Let go of the run. Without `end`, the run's own process decides how it ended."""
        self._log.close()


def open_workspace(path: Path | str | None = None) -> Workspace:
    """Return the workspace at `path`, else the one that `RUNSTONE_WORKSPACE` names, else the nearest here or above.

    Args:
        path: A folder, or the URL of a server; of a workspace there, runs are fetched when they are asked for.

    Raises:
        WorkspaceNotFound: there is none.
        FormatError: a newer version of Runstone made it.
        InvalidConfig: it is no URL of a server.
    """
    url = _url_of(path)
    if url is not None:
        from runstone.sync.remote import RemoteWorkspace  # only for workspaces on a server

        return RemoteWorkspace(url)
    if path is not None:
        return Workspace(_local(path))
    given = settings.workspace_path()
    if given is not None:
        return Workspace(given)
    found = _nearest(Path.cwd())
    if found is None:
        raise WorkspaceNotFound(
            f"no workspace ({settings.WORKSPACE_FOLDER}) in {Path.cwd()} or above; the first run makes one, or name "
            "another with --workspace, workspace= or RUNSTONE_WORKSPACE"
        )
    return Workspace(found)


def ensure_workspace(path: Path | str | Workspace | None = None) -> Workspace:
    """Return the workspace as `open_workspace` finds it, made where there is none: at `path`, or here.

    Of a workspace on a server, that is the one on this machine from which runs are sent there.

    Raises:
        FormatError: a newer version of Runstone made it.
        InvalidConfig: it is no URL of a server.
        OSError: it cannot be made.
    """
    url = path.url if isinstance(path, Workspace) else _url_of(path)
    if url is not None:
        from runstone.sync.spool import open_spool  # only for workspaces on a server

        return open_spool(url)
    if isinstance(path, Workspace):
        return path
    folder = settings.expanded(_local(path)) if path is not None else settings.workspace_path() or _nearest(Path.cwd())
    if folder is None:
        folder = Path.cwd() / settings.WORKSPACE_FOLDER
    folder = folder.absolute()
    if not (folder / "FORMAT").is_file():
        # Runs hold code and output: who may see them is for their owner to say, whatever the umask is.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_new(folder / ".gitignore", "*\n")
        _write_new(folder / "FORMAT", f"{fmt.FORMAT}\n")
    return Workspace(folder)


def _url_of(path: Path | str | Workspace | None) -> str | None:
    """Return the URL of the server that a place means, `None` where it is a folder."""
    if path is None:
        return settings.workspace_url()
    return path if isinstance(path, str) and settings.is_url(path) else None


def _local(path: Path | str) -> Path:
    if isinstance(path, str) and "://" in path:
        raise InvalidValue(f"{path!r:.200} is neither a folder nor a server (https://…)")
    return Path(path)


def prepare_to_join(folder: Path, journal: JournalState) -> int:
    """Return the attempt of a writer who comes now; a new one begins without its predecessor's stop word."""
    attempt = attempt_to_join(journal)
    if all(writer.attempt != attempt for writer in journal.writers if writer.role in ("main", "launcher")):
        clear_stop(folder)
    return attempt


def attempt_to_join(journal: JournalState) -> int:
    """Return the attempt of a writer who comes now: one that lives or was only launched, else the next."""
    attempts = [writer.attempt for writer in journal.writers if writer.role in ("main", "launcher")]
    if not attempts:
        return 1
    highest = max(attempts)
    main = [writer for writer in journal.writers if writer.attempt == highest and writer.role == "main"]
    return highest if not main or any(writer.is_alive for writer in main) else highest + 1


def check_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return tags as they are kept: names that are legal, values as text.

    Raises:
        InvalidName: a name cannot be kept.
        InvalidValue: they are not given by name.
    """
    if not isinstance(tags, Mapping):
        raise InvalidValue(f"tags must be given by name, got {shown(tags)}")
    return {check_name(key, "tag"): str(value) for key, value in tags.items()}


def end_status(status: Status | str) -> Status:
    """Return the status if a run can end so by its own word.

    Raises:
        InvalidValue: it cannot: only a reader finds that a run runs or crashed, and other words are none.
    """
    if status in (Status.FINISHED, Status.FAILED, Status.STOPPED, Status.PRUNED):
        return Status(status)
    raise InvalidValue(f"{status!r:.80} is no way to end; use finished, failed, stopped or pruned")


def _word(reason: str) -> int:
    if reason not in _WORDS:
        raise InvalidValue(f"the reason to stop is {reason!r}; it must be 'stop' or 'prune'")
    return _WORDS[reason]


def _nearest(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        candidate = folder / settings.WORKSPACE_FOLDER
        if (candidate / "FORMAT").is_file():
            return candidate
    return None


def _check_format(folder: Path) -> None:
    try:
        text = (folder / "FORMAT").read_bytes()[:80].decode("utf-8", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        hint = "the first run in it makes one" if folder.is_dir() else "there is no such folder"
        raise WorkspaceNotFound(f"{folder} is not a workspace: {hint}") from None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise FormatError(f"{folder / 'FORMAT'} holds {text[:40]!r}, not a number: this is no workspace of Runstone")
    if int(text) > fmt.FORMAT:
        raise FormatError(f"{folder} has format {text}, this version knows {fmt.FORMAT}; upgrade runstone")


def _folders(folder: Path) -> Iterator[Path]:
    """Yield the folders inside one; none where it is gone, or no folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield Path(entry.path)


def _write_new(path: Path, text: str) -> None:
    """Make a file with its whole content at once, unless it is there: two processes may make the same workspace."""
    partial = path.with_name(f"{path.name}.{os.urandom(16).hex()}.partial")
    try:
        partial.write_text(text)
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
