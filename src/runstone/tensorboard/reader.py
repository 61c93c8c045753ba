"""The event files of a folder as points, texts and params. Knows what TensorBoard's messages mean; changes nothing."""

from __future__ import annotations

import math
import os
import struct
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from runstone.tensorboard.marks import read_mark
from runstone.tensorboard.protos import Event, HParamsPluginData, SessionLog
from runstone.tensorboard.records import Losses, open_records, records
from runstone.values import JSON, Status

_FLOAT32 = struct.Struct("<f")
# Of TensorFlow's DataType: the number, how `tensor_content` holds it, and the field that holds it otherwise.
_STRING = 7
_BFLOAT16, _HALF = 14, 19
_NUMBERS = {
    1: ("<f4", "float_val"),
    2: ("<f8", "double_val"),
    3: ("<i4", "int_val"),
    4: ("<u1", "int_val"),
    5: ("<i2", "int_val"),
    6: ("<i1", "int_val"),
    9: ("<i8", "int64_val"),
    10: ("<?", "bool_val"),
    _BFLOAT16: ("<u2", "half_val"),
    17: ("<u2", "int_val"),
    _HALF: ("<f2", "half_val"),
}
OLD_TEXT = "/text_summary"
"""What writers of the first version append to the tag of a text."""

_MOST_TEXT_BYTES = 16 << 20
_MEDIA = frozenset({"histo", "image", "audio"})  # of the first version; of the second, tensors of these plugins:
_MEDIA_PLUGINS = frozenset({"histograms", "images", "audio"})
_STATUS = {1: Status.FINISHED, 2: Status.FAILED}  # of the hparams plugin: success, failure


@dataclass(slots=True)
class TagPoints:
    """The points of one tag, in the order of the files.

    Attributes:
        typed: Values that are integers or bools, by index; all others are floats.
    """

    step: array[int] = field(default_factory=lambda: array("q"))
    value: array[float] = field(default_factory=lambda: array("d"))
    wall_s: array[float] = field(default_factory=lambda: array("d"))
    typed: dict[int, int | bool] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.step)

    def add(self, step: int, value: float | int | bool, wall_s: float) -> None:
        """Take one more."""
        if not isinstance(value, float):
            self.typed[len(self.step)] = value
        self.step.append(step)
        self.value.append(_as_float(value))
        self.wall_s.append(wall_s)


@dataclass(slots=True)
class RunEvents:
    """What the event files of one folder hold.

    Attributes:
        files: Size of each file, as far as it was there when it was read.
        points: By tag.
        texts: By tag: step, wall time, text; without those of a run's series that was mirrored.
        media: By file: where the records with media begin.
        media_count: How many media there seem to be; `import_media.found_media` tells which are fit.
        marks: What the mirror tells of the media that it wrote, as often as it does: name, step, kind, key.
        marked_tags: The plugin that shows them, by tag.
        plugins: The plugin that the first value of a tag names.
        hparams: Of the hparams plugin, by name.
        status: How the run ended, where the hparams plugin was told.
        restarts: Step and wall time of each restart that said from which step it logs again.
        not_carried: How many values of each kind are left out here.
        first_s, last_s: Wall times of the earliest and the latest event that has one.
    """

    files: dict[str, int] = field(default_factory=dict)
    points: dict[str, TagPoints] = field(default_factory=dict)
    texts: dict[str, list[tuple[int, float, str]]] = field(default_factory=dict)
    media: dict[str, array[int]] = field(default_factory=dict)
    media_count: int = 0
    marks: Counter[tuple[str, int, str, str]] = field(default_factory=Counter)
    marked_tags: dict[str, str] = field(default_factory=dict)
    plugins: dict[str, str] = field(default_factory=dict)
    hparams: dict[str, JSON] = field(default_factory=dict)
    status: Status | None = None
    restarts: set[tuple[int, float]] = field(default_factory=set)
    not_carried: Counter[str] = field(default_factory=Counter)
    losses: Losses = field(default_factory=Losses)
    first_s: float | None = None
    last_s: float | None = None

    @property
    def point_count(self) -> int:
        """Points over all tags."""
        return sum(len(points) for points in self.points.values())

    def take(self, event: Any) -> None:
        """Take one `Event` message."""
        wall_s, step = event.wall_time, event.step
        if math.isfinite(wall_s) and wall_s > 0:
            self.first_s = wall_s if self.first_s is None else min(self.first_s, wall_s)
            self.last_s = wall_s if self.last_s is None else max(self.last_s, wall_s)
        match event.WhichOneof("what"):
            case "summary":
                for value in event.summary.value:
                    self._take_value(value, step, wall_s)
            case "session_log":
                if event.session_log.status == SessionLog.START:
                    self.restarts.add((step, wall_s))
            case "graph_def" | "meta_graph_def":
                self.not_carried["graph"] += 1
            case "tagged_run_metadata":
                self.not_carried["run metadata"] += 1
            case "log_message":
                self.not_carried["log message"] += 1

    def _take_value(self, value: Any, step: int, wall_s: float) -> None:
        tag, kind = value.tag, value.WhichOneof("value")
        plugin = value.metadata.plugin_data.plugin_name
        if plugin:
            self.plugins.setdefault(tag, plugin)  # the first value of a tag decides, as in TensorBoard
        plugin = self.plugins.get(tag, "")
        if plugin == "hparams":
            self._take_hparams(value.metadata.plugin_data.content)
        elif kind == "simple_value":
            self._points_of(tag).add(step, _exact(value.simple_value, value.node_name), wall_s)
        elif kind == "tensor" and plugin in ("", "scalars"):
            number = tensor_number(value.tensor)
            if number is None:
                self.not_carried["tensor"] += 1
            else:
                self._points_of(tag).add(step, number, wall_s)
        elif is_medium(value, plugin):
            self.media_count += 1
            mark = read_mark(value.node_name)
            if mark is not None:
                self.marks[mark.name, step, mark.kind, mark.key] += 1
                self.marked_tags.setdefault(tag, plugin or "images")
        elif kind == "tensor" and plugin == "text":
            if value.tensor.ByteSize() > _MOST_TEXT_BYTES:
                self.not_carried[f"text beyond {_MOST_TEXT_BYTES >> 20} MiB"] += 1
                return
            self.texts.setdefault(tag, []).append((step, wall_s, tensor_text(value.tensor)))
        else:
            named = {"obsolete_old_style_histogram": "histogram", None: "empty summary"}
            kind = named.get(kind, kind)
            self.not_carried[_singular(plugin) if kind == "tensor" else kind] += 1

    def _points_of(self, tag: str) -> TagPoints:
        points = self.points.get(tag)
        if points is None:
            points = self.points[tag] = TagPoints()
        return points

    def _take_hparams(self, content: bytes) -> None:
        try:
            data = HParamsPluginData.FromString(content)
        except Exception:  # protobuf's own error class depends on its back end
            self.losses.damaged += 1
            return
        for name, value in data.session_start_info.hparams.items():
            self.hparams[name] = _json_of(value)
        if data.HasField("session_end_info"):
            self.status = _STATUS.get(data.session_end_info.status, self.status)


def event_files(folder: Path) -> list[str]:
    """Return the names of the event files in a folder, oldest first as TensorBoard takes them."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if "tfevents" in entry.name and entry.is_file())
    except OSError:
        return []


def read_events(folder: Path, names: Sequence[str]) -> RunEvents:
    """Read event files of one folder, in the order in which they are named.

    Raises:
        OSError: a file cannot be read.
    """
    found = RunEvents()
    for name in names:
        with open_records(folder / name) as data:
            found.files[name] = len(data)
            for place, record in records(data, found.losses):
                try:
                    event = Event.FromString(record)
                except Exception:  # protobuf's own error class depends on its back end
                    found.losses.damaged += 1
                    continue
                before = found.media_count
                found.take(event)
                if found.media_count > before:
                    found.media.setdefault(name, array("q")).append(place)
    return found


def is_medium(value: Any, plugin: str) -> bool:
    """Return whether a `Summary.Value` is a histogram, an image, a sound or a mirrored text.

    Args:
        value: The message.
        plugin: Which its tag belongs to; empty where none was named.
    """
    kind = value.WhichOneof("value")
    if kind == "tensor":
        return plugin in _MEDIA_PLUGINS or (plugin == "text" and read_mark(value.node_name) is not None)
    return kind in _MEDIA


# --- values -----------------------------------------------------------------------------------------------------------


def tensor_number(tensor: Any) -> float | int | bool | None:
    """Return the one number that a tensor holds, `None` where it holds none or several."""
    known = _NUMBERS.get(tensor.dtype)
    if known is None:
        return None
    kind, name = known
    if any(dim.size != 1 for dim in tensor.tensor_shape.dim):
        return None
    if tensor.tensor_content:
        content = tensor.tensor_content
        if len(content) != np.dtype(kind).itemsize:
            return None
        item = np.frombuffer(content, kind)[0]
    else:
        numbers = getattr(tensor, name)
        if len(numbers) > 1:
            return None
        item = numbers[0] if numbers else 0  # nothing stands for a zero
        if tensor.dtype == _HALF:
            item = np.array([item], np.uint16).view("<f2")[0]
    if tensor.dtype == _BFLOAT16:  # the upper half of a float32
        item = np.array([int(item) << 16], "<u4").view("<f4")[0]
    number = item.item() if isinstance(item, np.generic) else item
    return float(number) if tensor.dtype in (1, 2, _BFLOAT16, _HALF) else number


def tensor_text(tensor: Any) -> str:
    """Return the texts that a tensor holds: rows as lines, their cells between bars."""
    texts = [item.decode("utf-8", "replace") for item in tensor.string_val] if tensor.dtype == _STRING else []
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    width = sizes[-1] if len(sizes) > 1 and sizes[-1] > 0 else 1
    return "\n".join(" | ".join(texts[start : start + width]) for start in range(0, len(texts), width))


def exact_text(value: float | int | bool) -> str:
    """Return what must be told of a number beside the float32 that TensorBoard keeps of it; empty where nothing."""
    if isinstance(value, float):
        return "" if math.isnan(value) or _as_float32(value) == value else value.hex()
    return str(value)


def _exact(value: float, told: str) -> float | int | bool:
    """Return a number as it was before it became a float32, where the one who wrote it told; see `exact_text`."""
    if not told:
        return float(value)
    try:
        found = {"True": True, "False": False}[told] if told[0] in "TF" else _parse_number(told)
    except (KeyError, ValueError, OverflowError):
        return float(value)  # other writers use the field for other things
    return found if _as_float32(_as_float(found)) == value else float(value)


def _parse_number(text: str) -> float | int:
    return float.fromhex(text) if "x" in text else int(text)


def _as_float32(value: float) -> float:
    try:
        return float(_FLOAT32.unpack(_FLOAT32.pack(value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def _as_float(value: float | int | bool) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _json_of(value: Any) -> JSON:
    """Return a `google.protobuf.Value` as JSON."""
    match value.WhichOneof("kind"):
        case "number_value":
            return float(value.number_value)
        case "string_value":
            return str(value.string_value)
        case "bool_value":
            return bool(value.bool_value)
        case "list_value":
            return [_json_of(item) for item in value.list_value.values]
        case "struct_value":
            return {str(name): _json_of(item) for name, item in value.struct_value.fields.items()}
        case _:
            return None


def _singular(plugin: str) -> str:
    known = {"pr_curves": "precision-recall curve"}
    return known.get(plugin, plugin)
