"""What the footer of a sealed file says: which rows are whose. Knows both forms in which it was ever written.

Format 1 kept a JSON list for each stretch of rows; format 2 keeps columns, as Arrow in base64 (other readers of Parquet
want text in a footer), so that a run of a million names is opened in a moment.
"""

from __future__ import annotations

import base64
import bisect
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SEALED_FORMAT = 2
_FACTS, _NAMES, _PLACES, _CRC = b"runstone", b"runstone.names", b"runstone.places", b"runstone.crc32"
_COLUMNS = {
    "name": np.int32,
    "writer": np.int32,
    "kind": np.int8,
    "group": np.int32,
    "row": np.int32,
    "count": np.int32,
    "is_superseded": np.bool_,
    "first_step": np.int64,
    "last_step": np.int64,
    "is_ordered": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Where the points of each metric lie. Arrays have the shape `(stretches,)`, in the order of the rows.

    Attributes:
        facts: What else the footer says: `format`, `id` of the sealing, `writers`.
        names: The metrics, in alphabetical order.
        name, writer: Whose a stretch of rows is, as numbers into `names` and into the writers.
        kind: A key type of `runlog.format`.
        group, row, count: Row group, first row in it, and how many rows.
        is_superseded: Whether a later attempt superseded any of them when they were sealed.
        first_step, last_step: Steps of the first and of the last row (0 in format 1, which does not say).
        is_ordered: Whether steps never go back from row to row; `False` also where that is not known.
    """

    facts: Mapping[str, Any]
    names: Sequence[str]
    name: NDArray[np.int32]
    writer: NDArray[np.int32]
    kind: NDArray[np.int8]
    group: NDArray[np.int32]
    row: NDArray[np.int32]
    count: NDArray[np.int32]
    is_superseded: NDArray[np.bool_]
    first_step: NDArray[np.int64]
    last_step: NDArray[np.int64]
    is_ordered: NDArray[np.bool_]

    @property
    def writers(self) -> list[str]:
        """The writers whose points are in the file."""
        return list(self.facts["writers"])

    @property
    def has_steps(self) -> bool:
        """Whether first and last steps are known."""
        return int(self.facts["format"]) > 1

    def place(self, name: str) -> int | None:
        """Return the number of a metric, `None` where it is not in the file."""
        place = bisect.bisect_left(self.names, name)
        return place if place < len(self.names) and self.names[place] == name else None

    def stretches(self, name: str) -> range:
        """Return the stretches of a metric."""
        place = self.place(name)
        if place is None:
            return range(0)
        # of the array's own type: else all of it would be converted each time
        low, high = np.searchsorted(self.name, np.array([place, place + 1], self.name.dtype))
        return range(int(low), int(high))

    def write(self) -> dict[bytes, bytes]:
        """Return what is to be put into the footer."""
        names = _packed(pa.table({"name": pa.array(self.names, pa.string())}))
        places = _packed(pa.table({column: pa.array(getattr(self, column)) for column in _COLUMNS}))
        facts = json.dumps(dict(self.facts), separators=(",", ":")).encode()
        crc = str(zlib.crc32(facts + names + places)).encode()
        return {_FACTS: facts, _NAMES: names, _PLACES: places, _CRC: crc}


def catalogue_of(facts: Mapping[str, Any], names: Sequence[str], columns: Sequence[Any]) -> Catalogue:
    """Return a catalogue with columns in its order, all empty where there are none."""
    given = columns or [[]] * len(_COLUMNS)
    return Catalogue(
        facts, names, *(np.asarray(column).astype(kind) for column, kind in zip(given, _COLUMNS.values(), strict=True))
    )


def read_catalogue(metadata: Mapping[bytes, bytes]) -> Catalogue:
    """Return what a footer says.

    Raises:
        KeyError, ValueError: it was not written by Runstone, or is damaged.
    """
    facts = json.loads(metadata[_FACTS])
    if int(facts["format"]) > SEALED_FORMAT:
        return catalogue_of(facts, [], [])  # whoever asked refuses it
    if int(facts["format"]) == 1:
        return _first_format(facts)
    if zlib.crc32(metadata[_FACTS] + metadata[_NAMES] + metadata[_PLACES]) != int(metadata[_CRC]):
        raise ValueError("its footer is damaged")
    names = _unpacked(metadata[_NAMES])["name"].to_pylist()
    places = _unpacked(metadata[_PLACES])
    return catalogue_of(facts, names, [places[column].to_numpy() for column in _COLUMNS])


def _first_format(facts: dict[str, Any]) -> Catalogue:
    places = facts.pop("places")
    names = list(dict.fromkeys(place[0] for place in places))
    if names != sorted(names):
        raise ValueError("its metrics are not in alphabetical order")
    numbers = {name: number for number, name in enumerate(names)}
    writers = {writer: number for number, writer in enumerate(facts["writers"])}
    rows = [(numbers[name], writers[writer], *rest, 0, 0, False) for name, writer, *rest in places]
    return catalogue_of(facts, names, list(zip(*rows, strict=True)))


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue())


def _unpacked(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(base64.b64decode(data)) as reader:
        return reader.read_all()
