"""Media and texts of a run as values of TensorBoard's, in the order in which they were logged. Knows no event file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from runstone.blobs import Blobs
from runstone.errors import InvalidValue, RunstoneError
from runstone.runlog import format as fmt
from runstone.runlog.portions import Portion
from runstone.runlog.scalars import encode_text
from runstone.tensorboard.histograms import to_tensor
from runstone.tensorboard.marks import Mark, content_key, histogram_key, known_facts
from runstone.tensorboard.picture_files import picture
from runstone.tensorboard.protos import Summary, TensorProto
from runstone.values import JSON

MOST_BYTES = 64 << 20
"""The largest medium that is shown: TensorBoard reads event files whole."""

_STRING = 7  # of TensorFlow's DataType
_PICTURES = frozenset({"png", "jpg", "jpeg", "gif", "bmp"})  # what TensorBoard knows
_IS_WAV = b"\x10\x0b"  # of the audio plugin: the field `encoding`, its number for WAV
_COLOURS = 3  # how many a pixel has matters to nobody: the file tells
_PLUGINS = {"histogram": "histograms", "audio": "audio", "text": "text", "table": "text"}
_SHOWN_ROWS, _SHOWN_COLUMNS, _SHOWN_CELL = 100, 50, 1000


class NotShown(Exception):
    """A medium has no place in TensorBoard, or cannot be read; the message says why."""


@dataclass(slots=True)
class Item:
    """One medium or text as the run's files have it.

    Attributes:
        time_s: To order by: the wall time, where a clock went back that of the one before.
        fields: Its record; of a text `{"kind": "text", "text": …}`.
    """

    name: str
    step: int
    wall_s: float
    time_s: float
    fields: dict[str, JSON]

    @property
    def kind(self) -> str:
        """As in `Record.kind`."""
        return str(self.fields.get("kind", "unknown"))

    @property
    def plugin(self) -> str:
        """Which of TensorBoard's pages shows it."""
        return _PLUGINS.get(self.kind, "images")

    @property
    def key(self) -> str:
        """What tells its content from others."""
        match self.fields:
            case {"text": str(text)}:
                return content_key(encode_text(text))
            case {"hash": str(content)}:
                return content
        return histogram_key(self.fields)

    @property
    def identity(self) -> tuple[str, int, str, str]:
        """What it is known by, in the run and in event files."""
        return self.name, self.step, self.kind, self.key


class MediaQueue:
    """The media and texts of one look at a run, in the order of time, those that stand already left out.

    Args:
        polled: What came, by name; numbers are passed over.
        standing: How often each is in the event files already; what is found here is taken out.
    """

    def __init__(self, polled: Mapping[str, Sequence[Portion]], standing: Counter[tuple[str, int, str, str]]) -> None:
        self._items: list[Item] = []
        for name, portions in polled.items():
            for portion in portions:
                if portion.payloads is not None:
                    self._items += _items(name, portion)
        self._items.sort(key=attrgetter("time_s"))
        self._standing = standing
        self._next = 0

    def __len__(self) -> int:
        """Return how many are left, those that stand included."""
        return len(self._items) - self._next

    def take(self, until_s: float | None = None) -> Iterator[Item]:
        """Yield those before a time, or all that are left."""
        while self._next < len(self._items) and (until_s is None or self._items[self._next].time_s < until_s):
            item = self._items[self._next]
            self._next += 1
            identity = item.identity if self._standing else None
            if identity is not None and self._standing[identity] > 0:
                self._standing[identity] -= 1
                continue
            yield item


def _items(name: str, portion: Portion) -> Iterator[Item]:
    steps, walls, time_s = portion.step.tolist(), portion.wall_s.tolist(), float("-inf")
    for step, wall_s, payload in zip(steps, walls, portion.values().tolist(), strict=True):
        time_s = max(time_s, wall_s)
        fields = {"kind": "text", "text": payload} if portion.kind == fmt.TYPE_STRING else fmt.unpack_record(payload)
        yield Item(name, step, wall_s, time_s, fields or {})


def summary_value(tag: str, item: Item, blobs: Blobs) -> Any:
    """Return a medium as a `Summary.Value`.

    Args:
        tag: Under which TensorBoard shows it.
        item: The medium.
        blobs: Where its bytes are.

    Raises:
        NotShown: it cannot be.
    """
    mark = Mark(item.kind, item.name, item.key, known_facts(item.fields))
    value = Summary.Value(tag=tag, node_name=mark.pack())
    form = str(item.fields.get("name"))
    match item.kind:
        case "histogram":
            try:
                value.tensor.CopyFrom(to_tensor(item.fields))
            except InvalidValue as error:
                raise NotShown(f"histogram: {error}") from None
            value.metadata.plugin_data.plugin_name = "histograms"
        case "text":
            text = item.fields.get("text")
            content = encode_text(text) if isinstance(text, str) else _content(item, blobs)
            _set_strings(value, [[content]])
        case "image" | "figure" | "video" if form in _PICTURES:
            content = _content(item, blobs)
            found = picture(content)
            value.image.encoded_image_string = content
            value.image.width, value.image.height = found[1:] if found is not None else (0, 0)
            value.image.colorspace = _COLOURS
        case "audio" if form == "wav":
            _set_strings(value, [[_content(item, blobs)]])
            value.metadata.plugin_data.plugin_name = "audio"
            value.metadata.plugin_data.content = _IS_WAV
        case "table" if form == "parquet":
            _set_strings(value, _table(_path(item, blobs)))
        case kind:
            raise NotShown(f"TensorBoard shows no {kind}{f' in {form} form' if 'name' in item.fields else ''}")
    return value


def _path(item: Item, blobs: Blobs) -> Path:
    size = item.fields.get("size", 0)
    if not isinstance(size, int) or size > MOST_BYTES:
        raise NotShown(f"{item.kind} of more than {MOST_BYTES >> 20} MiB")
    try:
        path = blobs.local_path(str(item.fields.get("hash")))
        if path.stat().st_size == size:
            return path
    except (RunstoneError, OSError):
        pass
    raise NotShown(f"{item.kind} whose content is not in this workspace")


def _content(item: Item, blobs: Blobs) -> bytes:
    path = _path(item, blobs)
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotShown(f"{item.kind} whose content cannot be read: {error.strerror}") from None


def _set_strings(value: Any, rows: Sequence[Sequence[bytes]]) -> None:
    """Set a text, or a table of texts."""
    value.tensor.CopyFrom(TensorProto(dtype=_STRING, string_val=[cell for row in rows for cell in row]))
    for size in (len(rows), len(rows[0])) if len(rows) > 1 else (1,):
        value.tensor.tensor_shape.dim.add(size=size)
    value.metadata.plugin_data.plugin_name = "text"


def _table(path: Path) -> list[list[bytes]]:
    import pyarrow as pa  # slow to load, and only for tables
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names[:_SHOWN_COLUMNS]
            first = next(file.iter_batches(batch_size=_SHOWN_ROWS, columns=names), None)
            columns = [first.column(place).to_pylist() for place in range(len(names))] if first is not None else []
    except (OSError, pa.ArrowException) as error:
        raise NotShown(f"table that cannot be read: {error}") from None
    if not names:
        raise NotShown("table without a column")
    rows = [names, *zip(*columns, strict=True)]
    return [[encode_text(str(cell)[:_SHOWN_CELL]) for cell in row] for row in rows]
