"""The life of one run: started, steps, ended. Knows no file format and no SQL."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from runstone import ending
from runstone.companions import Companions
from runstone.current import current_run, set_current
from runstone.errors import (
    InvalidName,
    InvalidValue,
    RunFinished,
    RunstoneError,
    TrackingWarning,
    WorkspaceNotFound,
)
from runstone.names import SYSTEM, check_name, shown
from runstone.params import to_json
from runstone.runlog import format as fmt
from runstone.runlog.handle import Handle
from runstone.runlog.scalars import MAX_TEXT_BYTES, as_step, encode_text, step_error
from runstone.runlog.silent import SilentLog
from runstone.runlog.writer import RunLog
from runstone.settings import OnError
from runstone.status import Status
from runstone.workspace import Workspace, check_tags, end_status

if TYPE_CHECKING:
    from runstone.datasets import Datasets, DatasetVersion
    from runstone.media import MediaLimits, Medium, Shelf
    from runstone.models import LoadedModel, ModelVersion, Signature
    from runstone.runinfo import RunInfo
    from runstone.values import Artifact

_FLUSH_S = 10.0
"""How long the end of a run waits for values that are still on a GPU."""
_SNAPSHOT_S = 5.0
"""How long registering a model waits for the snapshot of the environment."""
_STOP_REASONS = {fmt.WORD_GO: None, fmt.WORD_STOP: "stop", fmt.WORD_PRUNE: "prune"}


class Run:
    """One execution that records. `start_run` makes it; use it as a context manager, or call `finish`.

    Recording never waits for a disk, a lock or a network, and with `on_error="warn"` never raises: what could not be
    recorded is counted, written into the run, and warned of once a kind.

    A run can be pickled: the copy, in another process, joins the same run with files of its own.
    """

    def __init__(
        self, workspace: Workspace | None, log: RunLog | SilentLog, *, facts: Mapping[str, Any], on_error: OnError
    ) -> None:
        self._workspace = workspace
        self.id: str = log.path.name
        self.path: Path = log.path
        self.project: str = facts["project"]
        self.name: str = facts["name"]
        self.group: str | None = facts["group"]
        self._is_resumed: bool = facts["resumed"]
        self._on_error = on_error
        self._log = log
        log.tell = self._warn
        self._last_step: Any = None if self._is_resumed else -1
        self._failure: BaseException | None = None
        self._warned: set[str] = set()
        self._is_finished = False
        self._companions: Companions | None = None
        self._shelf: Shelf | None = None
        self._media_steps: dict[str, int] = {}
        self._before: Run | None = _still_open(set_current(self))
        if workspace is not None:
            runs_here[str(workspace.path), self.id] = self
        ending.watch(self)

    # --- what it is ------------------------------------------------------------------------------------------------

    @property
    def workspace(self) -> Workspace:
        """The workspace that it lies in.

        Raises:
            WorkspaceNotFound: it records nothing: it is switched off, or could not be opened.
        """
        if self._workspace is None:
            raise WorkspaceNotFound(f"run {self.name} records nothing: it is switched off, or could not be opened")
        return self._workspace

    @property
    def attempt(self) -> int:
        """Number of this process life of the run, from 1."""
        return self._log.attempt

    @property
    def is_resumed(self) -> bool:
        """Whether the run had been started before."""
        return self._is_resumed

    @property
    def is_finished(self) -> bool:
        """Whether it was ended here."""
        return self._is_finished

    @property
    def on_error(self) -> OnError:
        """What happens when something cannot be recorded: `"warn"` or `"raise"`."""
        return self._on_error

    @property
    def should_stop(self) -> bool:
        """Whether somebody, a sweep or a person, asked the run to stop. Costs nanoseconds; ask each step."""
        return self._log.control[0] != 0

    @property
    def stop_reason(self) -> str | None:
        """`"stop"`, `"prune"`, or `None` where nobody asked."""
        return _STOP_REASONS.get(self._log.control[0], "stop")

    @property
    def dropped(self) -> int:
        """Points that could not be recorded by this process."""
        return self._log.points.dropped

    def read(self) -> RunInfo:
        """Return the run as readers see it now, the environment snapshot included once it is taken."""
        from runstone.runinfo import RunInfo  # NumPy, only for reading

        if self._companions is not None:
            self._companions.join_snapshot(5.0)
        return RunInfo(self.path)

    def __repr__(self) -> str:
        """Say what it is in one line."""
        state = "finished" if self._is_finished else "open"
        return f"<Run {self.name} of {self.project}, {state}, id {self.id}>"

    def _repr_html_(self) -> str:
        from runstone.display import run_html  # only in notebooks
        from runstone.runinfo import RunInfo

        return run_html(RunInfo(self.path))

    # --- metrics ---------------------------------------------------------------------------------------------------

    def log(self, metrics: Mapping[str, Any], *, step: int | None = None) -> None:
        """Record one value of each metric. When it returns, the values survive `kill -9`.

        Args:
            metrics: Values by name: Python and NumPy numbers, bools, 0-d arrays and tensors. NaN and ±Inf are kept.
                Short texts make a series of texts. Nested mappings are opened: `{"train": {"loss": 1.0}}` is
                `train/loss`. A tensor on a CUDA device is not waited for: it is copied behind what the device is
                doing, and recorded when it has come, at the latest when the run ends; until then a kill loses it.
            step: Any 64-bit integer; it may repeat or go back. Default: one more than the last, from 0.

        Raises:
            InvalidName, InvalidValue, RunFinished, OSError: only with `on_error="raise"`.
        """
        try:
            if step is None:
                step = self._step_to_come()
            self._log.points.log(metrics, step)
            self._last_step = step
        except Exception as error:  # foreign code in a value may raise anything; _trouble decides
            if not isinstance(metrics, Mapping):
                self._trouble("metrics", InvalidValue(f"log takes metrics by name, got {shown(metrics)}"))
                return
            if step is not None and as_step(step) is not None:
                self._last_step = step  # the other values of this call are kept, or counted, at this step
            self._trouble("metrics", error)

    def log_series(self, name: str, steps: Any, values: Any) -> None:
        """Record a value for each of many steps at once, far faster than one by one, with the same promise as `log`.

        Args:
            name: Metric name.
            steps: Integers of 64 bits, shape `(n,)`: an array, a list, a `range`.
            values: Numbers or bools, shape `(n,)`: an array, a tensor (one on a GPU is waited for), a list.

        Raises:
            InvalidName, InvalidValue, RunFinished, OSError: only with `on_error="raise"`.
        """
        try:
            last_step = self._log.points.log_series(name, steps, values)
            self._last_step = self._last_step if last_step is None else last_step
        except Exception as error:  # see log
            self._trouble("metrics", error)

    def metric(self, name: str) -> MetricHandle:
        """Return a handle on one metric, for tight loops: `loss = run.metric("loss")`, then `loss(value)`.

        Raises:
            InvalidName: the name cannot be kept (whatever `on_error` says: this is before the loop).
        """
        return Handle(self, check_name(name, "metric"), None if self._is_resumed else -1, self._log_one).record

    def _log_one(self, handle: Handle, value: Any, step: int | None) -> None:
        """Record what a handle cannot store at once."""
        try:
            if step is None:
                step = self._step_of_handle(handle)
            self._log.points.log_one(handle.name, value, step)
            handle.last_step = step
        except Exception as error:  # see log
            self._trouble("metrics", error)

    def _step_of_handle(self, handle: Handle) -> int:
        if handle.last_step is None:  # the metric goes on where its files end
            from runstone.runinfo import RunInfo  # NumPy, only for reading

            standing = RunInfo(self.path).metrics.get(handle.name)
            handle.last_step = standing.last_step if standing is not None else -1
        return int(handle.last_step) + 1  # a NumPy integer would wrap around

    def rewind(self, step: int) -> None:
        """Say from which step this attempt of a resumed run logs again.

        Points of earlier attempts at or after `step` are superseded: kept in the files, left out of the run's curves.
        Beside that, each metric supersedes its own earlier points from the first step that this attempt logs in it.
        """
        checked = as_step(step)
        if checked is None:
            self._trouble("rewind", step_error(step))
            return
        self._event("rewind", step=checked)
        self._last_step = checked - 1

    def _step_to_come(self) -> int:
        if self._last_step is None:  # the run goes on where its files end
            from runstone.runinfo import RunInfo  # NumPy, only for reading

            metrics = RunInfo(self.path).metrics.values()
            own = (metric.last_step for metric in metrics if not metric.name.startswith(SYSTEM))
            self._last_step = max(own, default=-1)
        return int(self._last_step) + 1  # a NumPy integer would wrap around

    # --- media -----------------------------------------------------------------------------------------------------
    # What all of them have in common. `step`: any 64-bit integer; default: the one that `log` used last; where `log`
    # was not called yet, each name counts its own from 0. When the call returns, bytes and record survive `kill -9`.
    # With `on_error="raise"` they raise InvalidName, InvalidValue (unfit, or beyond `media_limits`), NotFound (no such
    # file), RunFinished and OSError; with `"warn"` nothing.

    def log_image(self, name: str, image: Any, *, step: int | None = None, caption: str | None = None) -> None:
        """Record an image.

        Args:
            name: Any text; images of one name are shown by step.
            image: Path of a file; image of Pillow; figure of matplotlib; array of shape `(height, width)` or `(height,
                width, channels)`, tensor of torch of shape `(channels, height, width)`: uint8, bool, or floats of 0 to
                1, with 1 to 4 channels. Arrays become PNG.
            step: Any 64-bit integer; default: the step that `log` used last.
            caption: Text beside it.
        """
        self._log_medium("image", name, step, lambda media: media.image(image, caption=caption))

    def log_audio(
        self,
        name: str,
        samples: Any,
        *,
        sample_rate: int | None = None,
        step: int | None = None,
        caption: str | None = None,
    ) -> None:
        """Record a sound.

        Args:
            name: Any text.
            samples: Path of a file; or array of shape `(samples,)` or `(samples, channels)`, floats of -1 to 1 or
                int16, which becomes a WAV file of 16 bits.
            sample_rate: Samples a second; needed for arrays.
            step, caption: As in `log_image`.
        """
        self._log_medium(
            "audio", name, step, lambda media: media.audio(samples, sample_rate=sample_rate, caption=caption)
        )

    def log_video(
        self,
        name: str,
        frames: Any,
        *,
        fps: float = 10.0,
        format: str = "gif",
        step: int | None = None,
        caption: str | None = None,
    ) -> None:
        """Record a video.

        Args:
            name: Any text.
            frames: Path of a file, kept as it is; or array of shape `(frames, height, width, channels)`, tensor of
                torch of shape `(frames, channels, height, width)`, of which Pillow makes an animated image.
            fps: Frames a second, for arrays.
            format: `gif` or `webp`, for arrays.
            step, caption: As in `log_image`.
        """
        self._log_medium("video", name, step, lambda media: media.video(frames, fps=fps, form=format, caption=caption))

    def log_table(self, name: str, table: Any, *, step: int | None = None) -> None:
        """Record a table, as Parquet.

        Args:
            name: Any text.
            table: Data frame of pandas or polars, Arrow table, mapping of columns, or sequence of mappings, one a row.
            step: As in `log_image`.
        """
        most = self.media_limits.rows_per_table
        self._log_medium("table", name, step, lambda media: media.table(table, max_rows=most))

    def log_text(self, name: str, text: str, *, step: int | None = None) -> None:
        """Record a text of any length. One of up to 64 KiB is a point of a series of texts, as from `log`.

        Args:
            name: Any text.
            text: Any text.
            step: As in `log_image`.
        """
        try:
            if not isinstance(text, str):
                raise InvalidValue(f"text {name!r:.80} must be text, got {shown(text)}")
            if len(encode_text(text)) <= MAX_TEXT_BYTES:
                self._log.points.log_one(check_name(name, "text"), text, self._step_of_media(name, step))
                return
        except Exception as error:  # see _trouble
            self._trouble("text", error)
            return
        self._log_medium("text", name, step, lambda media: media.long_text(text))

    def log_figure(
        self, name: str, figure: Any, *, format: str = "png", step: int | None = None, caption: str | None = None
    ) -> None:
        """Record a figure: of matplotlib as an image, of plotly as JSON that draws it again.

        Args:
            name: Any text.
            figure: Figure or axes of matplotlib, `matplotlib.pyplot` for the current one, or figure of plotly.
            format: `png` or `svg`, for matplotlib.
            step, caption: As in `log_image`.
        """
        self._log_medium("figure", name, step, lambda media: media.figure(figure, form=format, caption=caption))

    def log_histogram(
        self, name: str, values: Any, *, bins: int | Sequence[float] = 64, step: int | None = None
    ) -> None:
        """Record how often values fall into which range.

        Args:
            name: Any text.
            values: Array or tensor of any shape (one on a GPU is waited for), sequence of numbers. NaN and ±Inf are
                counted apart.
            bins: How many ranges of equal width from the lowest to the highest value; or their edges, ascending.
            step: As in `log_image`.
        """
        self._log_medium("histogram", name, step, lambda media: media.histogram(values, bins=bins))

    def log_object3d(self, name: str, shape: Any, *, step: int | None = None, caption: str | None = None) -> None:
        """Record a shape in space.

        Args:
            name: Any text.
            shape: Path of a GLB, OBJ, PLY or STL file; or points: array of shape `(n, 3)`, or `(n, 6)` with colours.
            step, caption: As in `log_image`.
        """
        self._log_medium("object3d", name, step, lambda media: media.object3d(shape, caption=caption))

    @property
    def media_limits(self) -> MediaLimits:
        """How much media this process adds to the run; set another to change that: `dataclasses.replace(…)`."""
        return self._media_shelf().limits

    @media_limits.setter
    def media_limits(self, limits: MediaLimits) -> None:
        self._media_shelf().limits = limits

    @property
    def media_left_out(self) -> dict[str, int]:
        """How many media this process did not record, by name: beyond the limits, unfit, or refused by the disk."""
        return self._shelf.left_out if self._shelf is not None and self._shelf.writer == self._log.writer else {}

    def _log_medium(self, kind: str, name: str, step: int | None, make: Callable[[Any], Medium]) -> None:
        """Make a medium, store its bytes, record it at a step."""
        from runstone import media  # NumPy, only where used

        shelf = self._media_shelf()
        try:
            check_name(name, kind)
            if self._is_finished:  # before bytes are stored for nothing
                raise RunFinished(f"run {self.name} is finished: no {kind} can be recorded; call reopen() first")
            if self._workspace is None:
                return
            if not shelf.has_room(name):
                raise media.NoRoom(f"{name!r:.80} and what comes after it is beyond run.media_limits: {shelf.limits}")
            at = self._step_of_media(name, step)
            medium = make(media)
            self._log.points.log_record(name, shelf.put(name, medium), at)
        except Exception as error:  # foreign code in what is logged may raise anything
            shelf.leave_out(str(name))
            self._trouble(kind, error)
            return
        if medium.notes:
            self._warn(f"{kind}-note", f"{kind} {name!r:.80}: {'; '.join(medium.notes)}")

    def _media_shelf(self) -> Shelf:
        from runstone.media import MediaLimits, Shelf  # NumPy, only where used

        before, writer = self._shelf, self._log.writer
        if before is None or before.writer != writer:  # a fork counts its own
            blobs = self._workspace.blobs if self._workspace is not None else None
            before = Shelf(blobs, writer, before.limits if before is not None else MediaLimits())
            self._shelf = before
        return before

    def _step_of_media(self, name: str, step: int | None) -> int:
        if step is not None:
            checked = as_step(step)
            if checked is None:
                raise step_error(step)
            return checked
        last = self._step_to_come() - 1
        if last != -1:
            return last
        own = self._media_steps.get(name, -1) + 1
        self._media_steps[name] = own
        return own

    # --- everything else -------------------------------------------------------------------------------------------

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record params: nested mappings of any JSON values. A param that is there already gets the new value.

        Values that JSON cannot hold are kept as text with their type, and warned of once.
        """
        try:
            if not isinstance(params, Mapping):
                raise InvalidValue(f"params must be given by name, got {shown(params)}")
            converted, places = to_json(params)
        except Exception as error:  # a mapping of foreign code may raise anything
            self._trouble("params", error)
            return
        if converted:
            self._event("params", params=converted)
        if places:
            where = ", ".join(repr(place) for place in places[:5]) + (", …" if len(places) > 5 else "")
            self._warn("params-as-text", f"params that JSON cannot hold are kept as text with their type: {where}")

    def set_tags(self, tags: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set tags: short texts to find runs by. Values are kept as text."""
        try:
            merged = {**check_tags(tags or {}), **check_tags(more)}
        except Exception as error:  # names that cannot be kept, values whose str raises
            self._trouble("tags", error)
            return
        self._event("tags", set=merged, remove=[])

    def remove_tags(self, *names: str) -> None:
        """Remove tags; names that are not there are ignored."""
        self._event("tags", set={}, remove=[str(name) for name in names])

    def set_notes(self, text: str | None) -> None:
        """Set the notes: free text about the run, in place of what stood there."""
        self._event("notes", value=None if text is None else str(text))

    def set_name(self, name: str) -> None:
        """Rename the run."""
        try:
            check_name(name, "run")
        except InvalidName as error:
            self._trouble("name", error)
            return
        if self._event("name", value=name):
            self.name = name

    def log_artifact(
        self, path: str | Path, *, name: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Artifact | None:
        """Store a file or folder with the run, by content: the same bytes are stored once in a workspace.

        Args:
            path: The file or folder. Links to files are followed; links to folders are not.
            name: Name of the artifact; default: the file's own. A second artifact of a name takes its place.
            metadata: Any JSON.

        Returns:
            What was stored; `None` where it could not be, with `on_error="warn"`.

        Raises:
            InvalidName, InvalidValue, NotFound, OSError: only with `on_error="raise"`.
        """
        if self._workspace is None:
            return None
        if self._is_finished:  # before a large file is copied for nothing
            self._event("artifact")
            return None
        from runstone.artifacts import store_artifact  # hashing, only where used

        try:
            artifact = store_artifact(self.workspace.blobs, Path(path), name, to_json(dict(metadata or {}))[0])
        except Exception as error:
            self._trouble("artifact", error)
            return None
        files = [{"path": f.path, "hash": f.hash, "size": f.size_bytes} for f in artifact.files]
        fields = {"name": artifact.name, "folder": artifact.is_folder, "files": files, "metadata": artifact.metadata}
        return artifact if self._event("artifact", **fields) else None

    def remove_artifact(self, name: str) -> None:
        """Let go of an artifact: the run no longer has it. Its bytes stay in the workspace until they are collected.

        Args:
            name: Name of the artifact. Nothing happens where the run has none of this name.
        """
        self._event("artifact_removed", name=name)

    def log_model(
        self,
        model: Any,
        *,
        name: str,
        version: str | None = None,
        pre: str | None = None,
        reason: str | None = None,
        signature: Signature | None = None,
        example: Any = None,
        labels: Sequence[Any] | None = None,
        flavour: str | None = None,
        init: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        notes: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        profile: Any = None,
    ) -> ModelVersion | None:
        """Save a model and register it as a new version, which never changes.

        Args:
            model: A model of scikit-learn, torch, Keras or ONNX, or the path of a model's files.
            name: Of the model in the registry; made with its first version.
            version: A number such as `2.1.0`, or `major`, `minor`, `patch`; default: what the evidence speaks for:
                signature or labels broken: major; other data, params or structure: minor; the same recipe: patch.
            pre: Words of a pre-release, such as `rc.1`.
            reason: Why a lower number than the proposed one is right; recorded.
            signature: What it takes and gives; default: inferred from `example`.
            example: Some of its input, as a table, an array or a mapping of arrays; the first five rows are kept.
            labels: The classes that it tells apart, in order; default: as the model says.
            flavour: `sklearn`, `torch`, `torch.export`, `keras`, `onnx`, `files`, `pickle`; default: by what it is.
            init: Arguments that make an empty torch module of its class; default: what Lightning keeps, or none.
            tags, notes: Of the version.
            metadata: Any JSON.
            profile: What monitoring compares with later: a table, an array, a path, or a
                `runstone.monitoring.Reference` with labels; `False`: nothing. Default: the tables that the run used,
                those with the role `train` first.

        Returns:
            The version; `None` where it could not be made, with `on_error="warn"`.

        Raises:
            InvalidName, InvalidValue, NotFound, AlreadyExists, OSError: only with `on_error="raise"`.
        """
        if self._workspace is None:
            return None
        if self._is_finished:  # before a large model is written for nothing
            self._event("output")
            return None
        try:
            from runstone import models  # the registry, only where it is used
            from runstone.models.hooks import announcer

            if self._companions is not None:
                self._companions.join_snapshot(_SNAPSHOT_S)  # it says from which commit the model comes
            blobs, info = self._workspace.blobs, self.read()
            manifest = models.save_model(
                model,
                blobs,
                flavour=flavour,
                signature=signature,
                example=example,
                labels=labels,
                init=init,
                metadata=metadata,
                run=info,
            )
            entry = models.Registration(name, version, pre, reason, tags, notes)
            after = announcer(self._workspace.path)
            registry = models.Models(self._workspace.path / "models", run_id=self.id, after=after)
            made = models.register(registry, blobs, manifest, entry)
        except Exception as error:
            self._trouble("model", error)
            return None
        self._event("output", kind="model", name=name, version=str(made.version), hash=made.manifest)
        if profile is not False and (profile is not None or any(link.kind == "dataset" for link in info.inputs)):
            try:
                from runstone.monitoring.reference import profile_registered  # Arrow, only for models with data

                profile_registered(self._workspace, made, info, manifest, model=model, given=profile)
            except Exception as error:
                self._trouble("profile", error)
            made = registry.get(name).find(str(made.version))
        return made

    def use_model(self, ref: str, *, role: str | None = None, trusted: bool = False, into: Any = None) -> LoadedModel:
        """Load a version of a model and record that this run used it.

        Args:
            ref: Such as `credit-risk@production`, `credit-risk@2.1.0`; see `runstone.load_model`.
            role: What it is used as, such as `teacher`.
            trusted, into: As for `runstone.load_model`.

        Raises:
            ModelNotFound, UntrustedModel, InvalidValue: whatever `on_error` says: without it nothing can go on.
        """
        from runstone import models  # the registry, only where it is used

        loaded = models.load_version(self.workspace.models, self.workspace.blobs, ref, trusted=trusted, into=into)
        found = loaded.version
        self._event("input", kind="model", name=found.model, version=str(found.version), hash=found.manifest, role=role)
        return loaded

    def use_dataset(
        self,
        data: Any,
        *,
        name: str | None = None,
        role: str | None = None,
        version: str | int | None = None,
        store: bool = False,
        profile: bool | None = None,
    ) -> DatasetVersion | None:
        """Record that this run uses some data, and which version of it: by the hash of its content.

        Args:
            data: A file or folder; a table of pandas, polars or Arrow; an array or tensor, or several of them; a
                dataset of torch or Hugging Face; a URL that fsspec knows; or a version that is there: `cifar@3`.
            name: Of the dataset; default: the last part of the path or URL, else `role`.
            role: What it is used as, such as `train`.
            version: A number or an alias, where `data` is the name of a dataset.
            store: Whether its content is put into the workspace. Without it the data stays where it is, its hashes
                prove which it was, and a URL is not fetched but pinned.
            profile: Whether tables are read whole for the profile of their columns; default: where they have 64 MiB or
                less together.

        Returns:
            The version, with `path`, `hash`, `files`, `schema` and `profile`; `None` where it could not be made, with
            `on_error="warn"`.

        Raises:
            DatasetNotFound, InvalidName: there is no version of that name, whatever `on_error` says: without it nothing
                can go on.
            InvalidName, InvalidValue, NotFound, OSError: only with `on_error="raise"`.
        """
        from runstone.datasets import using  # hashing, only where used

        if using.is_reference(data, version):
            used = using.find_used(self.workspace.datasets, data, version)
        else:
            if self._workspace is None:
                return None
            try:
                datasets = self._datasets()
                used = using.add_used(datasets, data, name=name, role=role, store=store, profile=profile)
            except Exception as error:
                self._trouble("dataset", error)
                return None
        if used.revoked is not None:
            self._warn(f"revoked-{used}", f"dataset {used} was revoked: {used.revoked.reason}")
        self._data_event("input", used, role)
        return used

    def log_dataset(
        self,
        data: Any,
        *,
        name: str,
        role: str | None = None,
        store: bool = True,
        profile: bool | None = None,
        tags: Mapping[str, str] | None = None,
        notes: str | None = None,
    ) -> DatasetVersion | None:
        """Keep data that this run made as a version of a dataset.

        Args:
            data: As for `use_dataset`.
            name: Of the dataset; made with its first version.
            role: What it is, such as `predictions`.
            store: Whether its content is put into the workspace.
            profile: As for `use_dataset`.
            tags, notes: Of the version, where it is new.

        Returns:
            The version; `None` where it could not be made, with `on_error="warn"`.

        Raises:
            InvalidName, InvalidValue, NotFound, OSError: only with `on_error="raise"`.
        """
        if self._workspace is None:
            return None
        if self._is_finished:  # before a large file is copied for nothing
            self._event("output")
            return None
        try:
            made = self._datasets().add(data, name=name, store=store, profile=profile, tags=tags, notes=notes)
        except Exception as error:
            self._trouble("dataset", error)
            return None
        self._data_event("output", made, role)
        return made

    def _datasets(self) -> Datasets:
        from runstone.datasets import Datasets  # only where used

        return Datasets(self.workspace.path, run_id=self.id)

    def _data_event(self, event: str, version: DatasetVersion, role: str | None) -> None:
        fields = {"name": version.name, "version": str(version.version), "hash": version.hash, "role": role}
        self._event(event, kind="dataset", **fields, source=version.read_from)

    # --- the end ---------------------------------------------------------------------------------------------------

    def alert(self, title: str, text: str = "", *, level: Literal["info", "warning", "error"] = "info") -> None:
        """Say that something should be looked at: it is shown on the run, and told to whom `alerts.yaml` names.

        Args:
            title: One line.
            text: What shows it.
            level: How much it matters.

        Raises:
            InvalidValue: the title is empty or the level is none of these; nothing else, unless `on_error="raise"`.
        """
        if level not in ("info", "warning", "error") or not str(title).strip():
            raise InvalidValue(
                f"an alert needs a title, and a level of info, warning or error; got {shown(title)}, {shown(level)}"
            )
        self._event("alert", id=os.urandom(8).hex(), rule="", level=level, title=str(title)[:500], text=str(text))

    def fail(self, error: BaseException) -> None:
        """Take an exception as the cause of the end, for `finish` to tell. Ctrl-C and SIGTERM mean stopped."""
        self._failure = error

    def finish(self, status: Status | str | None = None) -> None:
        """End the run. A second call does nothing.

        Args:
            status: How it ended. Default: what `fail` was told, else `pruned` or `stopped` where it was asked to, else
                `finished`.
        """
        if self._is_finished:
            return
        try:
            told = self._status() if status is None else end_status(status)
        except InvalidValue as error:
            self._trouble("status", error)
            told = self._status()
        trouble: Exception | None = None
        if self._companions is not None:
            self._companions.stop()
        self._wait_for_values()
        self._is_finished = True
        ending.unwatch(self)
        if current_run() is None:
            set_current(_still_open(self._before))
        try:
            if not self._log.is_silent:  # else a forked child that recorded nothing: it leaves no trace
                failure = _describe(self._failure) if told is Status.FAILED and self._failure is not None else None
                self._event("end", status=str(told), failure=failure, dropped=self._log.points.dropped)
        except Exception as error:
            trouble = error
        with contextlib.suppress(OSError):
            self._log.close(str(told))
        self._failure = None  # its traceback holds the frames of the user's whole call stack alive
        if trouble is not None:
            self._trouble("end", trouble)

    def _wait_for_values(self) -> None:
        """Take in what is still on its way, and tell of what this run could not keep."""
        lost = self._log.points.flush(_FLUSH_S)
        if lost:
            self._warn("gpu", f"{lost} values are lost: the GPU failed, or was not done {_FLUSH_S:g} s after the end")
        left_out = self.media_left_out
        if left_out:
            names = ", ".join(f"{name!r:.80} {count}" for name, count in list(left_out.items())[:5])
            more = ", …" if len(left_out) > 5 else ""
            self._warn("media-left-out", f"{sum(left_out.values())} media were not recorded: {names}{more}")

    def reopen(self) -> None:
        """Go on with a finished run, in the same attempt: a fit that is followed by a test belongs to one life.

        Does nothing while the run is open.
        """
        if not self._is_finished or self._workspace is None:
            return
        try:
            self._log = RunLog(self.path, attempt=self._log.attempt, rank=self._log.rank, backend=self._log.backend)
        except OSError as error:
            self._trouble("reopen", error)
            return
        self._log.tell = self._warn
        self._is_finished = False
        self._before = set_current(self)
        ending.watch(self)
        if self._companions is not None:
            self._companions.start(self._log)

    def _take_along(self, **options: Any) -> None:
        """Start what works beside the run; `start_run` calls it. Takes what `Companions` takes."""
        if isinstance(self._log, RunLog):
            self._companions = Companions(**options, trouble=self._trouble)
            self._companions.start(self._log)

    def end_with_process(self, error: BaseException | None) -> None:
        """End as the process does. Called by the hooks of `ending`."""
        if error is not None:
            self.fail(error)
        self.finish()

    def _status(self) -> Status:
        if self._failure is not None:
            return _status_of(self._failure)
        return {None: Status.FINISHED, "prune": Status.PRUNED}.get(self.stop_reason, Status.STOPPED)

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run as the block ended; an exception goes on its way."""
        if error is None:
            self.finish()
            return
        if not (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.fail(error)
        try:
            self.finish()
        except Exception as trouble:  # the user's exception is the one to be seen
            self._warn("end", f"could not record the end: {type(trouble).__name__}: {trouble}")

    def __reduce__(self) -> tuple[Callable[..., Run], tuple[Any, ...]]:
        """Pickle as an instruction to join this run."""
        place = str(self._workspace.path) if self._workspace is not None else None
        from runstone.starting import rejoin  # it needs this module

        return rejoin, (place, self.id, self._on_error, self._is_finished)

    def __copy__(self) -> Self:
        """Return the run itself: a copied callback or estimator goes on writing to the same run."""
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        """Return the run itself, as for a shallow copy."""
        return self

    # --- what could not be recorded --------------------------------------------------------------------------------

    def _event(self, event: str, **fields: Any) -> bool:
        """Write an event to the journal; return whether it is there."""
        try:
            if self._is_finished and event != "end":
                raise RunFinished(f"run {self.name} is finished: {event} cannot be recorded; call reopen() first")
            self._log.write(event, **fields)
        except Exception as error:
            self._trouble(event, error)
            return False
        return True

    def _trouble(self, what: str, error: Exception) -> None:
        """Raise, or warn once a kind: the one place where `on_error` is applied."""
        if self._on_error == "raise":
            raise error
        detail = str(error) if isinstance(error, RunstoneError) else f"{type(error).__name__}: {error}"
        self._warn(f"{what}-{type(error).__name__}", f"could not record {what}: {detail}")

    def _warn(self, kind: str, message: str) -> None:
        if kind in self._warned:
            return
        self._warned.add(kind)
        if not self._is_finished:
            with contextlib.suppress(OSError):
                self._log.write("warning", kind=kind, message=message)
        warn(f"run {self.name}: {message}")


class MetricHandle(Protocol):
    """One metric of one run, for tight loops; `Run.metric` makes it.

    Each call records one value: `handle(value)` or `handle(value, step=n)`. Without a step, its own values are counted.
    """

    def __call__(self, value: Any, *, step: int | None = None) -> None:
        """Record one value; see `Run.log`."""


def warn(message: str) -> None:
    """Warn as the user's filters say; where they turn warnings into errors, print: tracking stops nothing."""
    try:
        warnings.warn(message, TrackingWarning, stacklevel=_user_stack_level())
    except TrackingWarning:
        print(f"runstone: {message}", file=sys.stderr)


def _user_stack_level() -> int:
    """Return the stack level of the first frame outside this package, for the warning to point at the user's line."""
    frame: FrameType | None = sys._getframe(1)
    level, here = 1, str(Path(__file__).parent)
    while frame is not None and frame.f_code.co_filename.startswith(here):
        level, frame = level + 1, frame.f_back
    return level


def _still_open(run: Run | None) -> Run | None:
    while run is not None and run.is_finished:
        run = run._before
    return run


# The runs of this process by workspace and id: one writer each, however many copies arrive by pickle.
runs_here: weakref.WeakValueDictionary[tuple[str, str], Run] = weakref.WeakValueDictionary()


def _status_of(error: BaseException) -> Status:
    if isinstance(error, KeyboardInterrupt | ending.Terminated):
        return Status.STOPPED
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "TrialPruned" in kinds:  # Optuna's word for it, known by name: Optuna need not be installed
        return Status.PRUNED
    if "SIGTERMException" in kinds:  # Lightning's
        return Status.STOPPED
    return Status.FAILED


def _describe(error: BaseException) -> dict[str, str]:
    import traceback  # only for failures

    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # an exception whose own code fails
        text = ""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown)"
    return {"type": type(error).__name__, "message": message[:10_000], "traceback": text[-100_000:]}
