"""Values of TensorBoard's as media of a run. What they say is not trusted: sizes are bounded, bytes are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone.blobs import Blobs
from runstone.errors import InvalidName, InvalidValue
from runstone.media import MediaLimits, Medium, NoRoom, Shelf, long_text
from runstone.names import check_name
from runstone.runinfo import RunInfo
from runstone.runlog.points import Points
from runstone.runlog.scalars import MAX_TEXT_BYTES, encode_text
from runstone.tensorboard.histograms import of_message, of_tensor
from runstone.tensorboard.marks import Mark, content_key, histogram_key, read_mark
from runstone.tensorboard.picture_files import picture, shape_of_wav, sound
from runstone.tensorboard.protos import Event
from runstone.tensorboard.reader import OLD_TEXT, RunEvents, is_medium, tensor_text
from runstone.tensorboard.records import open_records, record_at
from runstone.values import JSON

_STRING = 7  # of TensorFlow's DataType
_MOST_STRINGS = 1000
_NOT_FIT = "{} that cannot be read"


@dataclass(slots=True)
class FoundMedium:
    """One medium or text of the event files; texts of up to 64 KiB are kept inline, as `run.log_text` does."""

    name: str
    step: int
    wall_s: float
    medium: Medium

    @property
    def identity(self) -> tuple[str, int, str, str]:
        """What it is known by, in event files and in a run."""
        content = self.medium.content
        key = content_key(content) if isinstance(content, bytes) else histogram_key(self.medium.metadata)
        return self.name, self.step, self.medium.kind, key


def standing_media(info: RunInfo) -> Iterator[tuple[str, int, str, str]]:
    """Yield what each medium and text of a run is known by."""
    for name in info.record_names:
        for record in info.records(name, attempt="all"):
            if record.text is not None:
                key = content_key(encode_text(record.text))
            else:
                key = record.hash if record.hash is not None else histogram_key(record.metadata)
            yield name, record.step, record.kind, key


def found_media(folder: Path, events: RunEvents) -> Iterator[FoundMedium]:
    """Yield the media and texts of event files that were read; count in `events.not_carried` what is unfit.

    One record is in memory at a time.

    Raises:
        OSError: a file cannot be read.
    """
    for name, places in events.media.items():
        with open_records(folder / name) as data:
            for place in places:
                try:
                    event = Event.FromString(record_at(data, place))
                except Exception:  # protobuf's own error class depends on its back end; the file was written anew
                    events.losses.damaged += 1
                    continue
                for value in event.summary.value:
                    plugin = events.plugins.get(value.tag, "")
                    if is_medium(value, plugin):
                        yield from _named(_media_of(value, plugin, events), value, event, events)
    for tag, texts in events.texts.items():
        if tag.startswith("runstone/"):
            continue  # notes and tags of a mirrored run
        try:
            name = check_name(tag.removesuffix(OLD_TEXT), "text")
        except InvalidName:
            events.not_carried["text without a legal name"] += len(texts)
            continue
        for step, wall_s, text in texts:
            yield FoundMedium(name, step, wall_s, long_text(text))


class MediaWriter:
    """Writes media into a run, within the limits of a run's media.

    Args:
        blobs: Where bytes go.
        points: Of the run's log.
        writer: Of the run's log.
    """

    def __init__(self, blobs: Blobs, points: Points, writer: bytes) -> None:
        self._points = points
        self.limits = MediaLimits()
        self._shelf = Shelf(blobs, writer, self.limits)

    def write(self, found: FoundMedium) -> bool:
        """Write one; return whether there was room for it.

        Raises:
            OSError: the disk refuses.
        """
        content = found.medium.content
        if found.medium.kind == "text" and isinstance(content, bytes) and len(content) <= MAX_TEXT_BYTES:
            self._points.log_one(found.name, content.decode(), found.step)
            return True
        if not self._shelf.has_room(found.name):
            return False
        try:
            record = self._shelf.put(found.name, found.medium)
        except NoRoom:
            return False
        self._points.log_record(found.name, record, found.step)
        return True


def _named(media: Iterator[Medium], value: Any, event: Any, events: RunEvents) -> Iterator[FoundMedium]:
    mark = read_mark(value.node_name)
    for medium in media:
        try:
            name = check_name(mark.name if mark is not None else value.tag, medium.kind)
        except InvalidName:
            events.not_carried[f"{medium.kind} without a legal name"] += 1
            continue
        yield FoundMedium(name, event.step, event.wall_time, medium)


def _media_of(value: Any, plugin: str, events: RunEvents) -> Iterator[Medium]:
    """Yield what is in one value; an image summary may hold several."""
    mark = read_mark(value.node_name)
    match value.WhichOneof("value"), plugin:
        case ("histo", _) | ("tensor", "histograms"):
            try:
                told = of_message(value.histo) if value.HasField("histo") else of_tensor(value.tensor)
            except InvalidValue:
                events.not_carried[_NOT_FIT.format("histogram")] += 1
                return
            yield Medium("histogram", metadata=_facts(mark, {"count": _total(told), **told}))
        case "image", _:
            yield from _image(value.image.encoded_image_string, mark, events)
        case "audio", _:
            yield from _audio(value.audio.encoded_audio_string, mark, events)
        case "tensor", "images":
            strings = value.tensor.string_val if value.tensor.dtype == _STRING else []
            yield from _several(strings[2:], "image", mark, events)  # behind width and height, as text
        case "tensor", "audio":
            strings = value.tensor.string_val if value.tensor.dtype == _STRING else []
            sizes = [dim.size for dim in value.tensor.tensor_shape.dim]
            labels = 2 if len(sizes) == 2 and sizes[1] == 2 else 1  # each sound has a label beside it, or none has
            yield from _several(strings[::labels], "audio", mark, events)
        case "tensor", "text" if mark is not None and mark.kind == "text":
            yield long_text(tensor_text(value.tensor))
        case _:
            events.not_carried[mark.kind if mark is not None else plugin] += 1


def _several(contents: Any, kind: str, mark: Mark | None, events: RunEvents) -> Iterator[Medium]:
    if not contents:
        events.not_carried[f"{kind} that is empty"] += 1
    if len(contents) > _MOST_STRINGS:
        events.not_carried[f"{kind} beyond {_MOST_STRINGS} of one step"] += len(contents) - _MOST_STRINGS
    for content in contents[:_MOST_STRINGS]:
        yield from (_image if kind == "image" else _audio)(content, mark, events)


def _image(content: bytes, mark: Mark | None, events: RunEvents) -> Iterator[Medium]:
    found = picture(content)
    if found is None:  # SVG too: it can hold programs
        events.not_carried[_NOT_FIT.format("image")] += 1
        return
    form, width, height = found
    told: dict[str, JSON] = {"width": width, "height": height} if width and height else {}
    kind = mark.kind if mark is not None and mark.kind in ("figure", "video") else "image"
    yield Medium(kind, form, content, _facts(mark, told))


def _audio(content: bytes, mark: Mark | None, events: RunEvents) -> Iterator[Medium]:
    form = sound(content)
    if form is None:
        events.not_carried[_NOT_FIT.format("audio")] += 1
        return
    told: dict[str, JSON] = {}
    if form == "wav" and (shape := shape_of_wav(content)) is not None:
        rate, channels, samples = shape
        told = {"sample_rate": rate, "channels": channels, "duration_s": samples / rate}
    yield Medium("audio", form, content, _facts(mark, told))


def _facts(mark: Mark | None, told: dict[str, JSON]) -> dict[str, JSON]:
    """Return the metadata of a medium: what its bytes tell counts more than what its mark does."""
    return {**told, **(mark.facts if mark is not None else {}), **{k: v for k, v in told.items() if k != "count"}}


def _total(told: dict[str, JSON]) -> int:
    counts = told["counts"]
    return int(sum(count for count in counts if isinstance(count, int | float))) if isinstance(counts, list) else 0
