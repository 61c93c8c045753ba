"""What a run records to be looked at and listened to, by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from runstone.errors import InvalidValue, RunFinished
from runstone.names import check_name, shown
from runstone.recording.recorder import Recorder
from runstone.runlog.scalars import MAX_TEXT_BYTES, as_step, encode_text, step_error

if TYPE_CHECKING:
    from runstone.media import MediaLimits, Medium, Shelf


class MediaRecorder(Recorder):
    """The part of a run that records images, sounds, videos, tables, texts, figures, histograms and shapes.

    What all methods have in common. `step`: any 64-bit integer; default: the one that `log` used last; where `log` was
    not called yet, each name counts its own from 0. When the call returns, bytes and record survive `kill -9`. With
    `on_error="raise"` they raise InvalidName, InvalidValue (unfit, or beyond `media_limits`), NotFound (no such file),
    RunFinished and OSError; with `"warn"` nothing.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shelf: Shelf | None = None
        self._media_steps: dict[str, int] = {}

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
