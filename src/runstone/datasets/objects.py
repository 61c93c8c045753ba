"""Data that is in memory: tables, arrays, and the datasets of torch and Hugging Face, as far as they can be hashed.

Frameworks are known by the names of their types; none is imported.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone.blobs import Blobs
from runstone.blobs.source import hasher_for
from runstone.datasets.manifest import Manifest, TreeFile, sorted_files
from runstone.errors import InvalidValue

_ROWS = 65_536
_CHUNK_BYTES = 8 << 20
_MOST_ARRAYS = 1_000
_MOST_SAMPLES = 10_000_000
Write = Callable[[Any], None]
"""Writes a content into an open file."""


@dataclass(slots=True)
class InMemory:
    """What is known of data that is in memory.

    Attributes:
        form: As of the manifest.
        type: Of the object, in full.
        contents: Writers by file name.
        tables: Arrow tables by file name.
        facts, not_hashed: As of the manifest.
    """

    form: str
    type: str
    contents: dict[str, Write] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    not_hashed: list[str] = field(default_factory=list)

    def manifest(self, blobs: Blobs | None, folder: Path) -> Manifest:
        """Write or hash the contents, and return the manifest.

        Args:
            blobs: Takes the contents; `None`: they are only hashed.
            folder: For files that are being written.

        Raises:
            OSError: the disk is full.
        """
        files = []
        for name, write in self.contents.items():
            if blobs is None:
                sink = _Hashing()
                write(sink)
                files.append(TreeFile(name, sink.hasher.hexdigest(), sink.size))
                continue
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f"{os.urandom(16).hex()}.partial"
            try:
                with partial.open("xb") as file:
                    write(file)
                entry = blobs.put(partial, name)
            finally:
                partial.unlink(missing_ok=True)
            files.append(TreeFile(name, entry.hash, entry.size_bytes))
        return Manifest(self.form, sorted_files(files), self.facts, tuple(self.not_hashed))


def in_memory(data: Any) -> InMemory:
    """Return what data in memory consists of.

    Args:
        data: A table of pandas, polars or Arrow (anything with an Arrow stream); an array of NumPy, or a tensor; a
            mapping or sequence of arrays; a dataset of torch or Hugging Face, or a loader of one.

    Raises:
        InvalidValue: it is nothing of that, or holds Python objects that have no fixed bytes.
    """
    kind = f"{type(data).__module__}.{type(data).__qualname__}"
    root = type(data).__module__.partition(".")[0]
    if root == "datasets":
        return _of_hugging_face(data, kind)
    table = _as_table(data)
    if table is not None:
        found = InMemory("table", kind, tables={"data.arrow": table})
        found.contents["data.arrow"] = lambda file: _write_table(table, file)
        return found
    arrays = _as_arrays(data)
    if arrays is not None:
        return InMemory("array", kind, contents={name: _array_writer(one) for name, one in arrays.items()})
    if (hasattr(data, "__getitem__") and hasattr(data, "__len__")) or any(
        f"{one.__module__}.{one.__name__}".startswith("torch.utils.data") for one in type(data).__mro__
    ):
        return _of_torch(data, kind)
    raise InvalidValue(
        f"a {kind} cannot be used as a dataset: give a path, a URL, a table, an array, or a dataset of torch or "
        "Hugging Face"
    )


# --- tables -----------------------------------------------------------------------------------------------------------


def _as_table(data: Any) -> Any:
    """Return data as an Arrow table, `None` where it is none."""
    root = type(data).__module__.partition(".")[0]
    is_frame = root == "pandas" and type(data).__name__ in ("DataFrame", "Series")
    if not is_frame and root not in ("pyarrow", "polars") and not hasattr(data, "__arrow_c_stream__"):
        return None
    import pyarrow as pa  # heavy, only for tables

    try:
        if isinstance(data, pa.Table):
            return _without_views(data)
        if is_frame:
            frame = data.to_frame() if type(data).__name__ == "Series" else data
            return _without_views(pa.Table.from_pandas(frame))
        if hasattr(data, "collect") and not hasattr(data, "__arrow_c_stream__"):  # a lazy frame of polars
            raise InvalidValue("a lazy frame has no rows yet; use dataset=frame.collect()")
        if isinstance(data, pa.RecordBatch):
            return _without_views(pa.Table.from_batches([data]))
        if hasattr(data, "__arrow_c_stream__"):
            return _without_views(pa.table(data))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidValue(
            f"this {type(data).__name__} cannot be hashed: {str(error).splitlines()[0][:300]}; columns of mixed Python "
            "objects have no fixed bytes"
        ) from None
    return None


def _without_views(table: Any) -> Any:
    """Return a table whose texts lie one behind the other: views depend on how they came about."""
    import pyarrow as pa

    plain = {"string_view": pa.large_string(), "binary_view": pa.large_binary()}
    if not any(str(field.type) in plain for field in table.schema):
        return table
    fields = [field.with_type(plain.get(str(field.type), field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def _write_table(table: Any, file: Any) -> None:
    """Write a table as an Arrow stream; the same rows are the same bytes, however they lie in memory."""
    import pyarrow as pa

    table = table.replace_schema_metadata(None)
    fields = [one.with_metadata(None) for one in table.schema]
    with pa.ipc.new_stream(pa.PythonFile(file, "w"), pa.schema(fields)) as stream:
        for start in range(0, table.num_rows, _ROWS):
            part = table.slice(start, _ROWS).combine_chunks()
            columns = [_tidy(column) for column in part.columns]
            stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields)))


def _tidy(column: Any) -> Any:
    """Return a column without what lies behind its nulls and around its slice."""
    import pyarrow as pa

    chunk = column.chunk(0) if column.num_chunks else pa.array([], type=column.type)
    try:
        return chunk.take(pa.array(range(len(chunk)), pa.int64()))
    except pa.ArrowNotImplementedError:  # a type that few have
        return pa.concat_arrays([chunk])


# --- arrays -----------------------------------------------------------------------------------------------------------


def _as_arrays(data: Any) -> dict[str, Any] | None:
    """Return arrays by file name, `None` where it is neither an array nor a bundle of them."""
    if (array := _as_array(data)) is not None:
        return {"data.npy": array}
    items: list[tuple[str, Any]]
    if isinstance(data, Mapping) and 0 < len(data) <= _MOST_ARRAYS:
        items = [(str(name), value) for name, value in data.items()]
    elif isinstance(data, tuple | list) and 0 < len(data) <= _MOST_ARRAYS:
        items = [(str(index), value) for index, value in enumerate(data)]
    else:
        return None
    arrays = {f"{name.replace('/', '_')}.npy": _as_array(value) for name, value in items}
    return arrays if len(arrays) == len(items) and all(one is not None for one in arrays.values()) else None


def _as_array(data: Any) -> Any:
    import numpy as np  # heavy, only for data

    root = type(data).__module__.partition(".")[0]
    if root == "torch" and hasattr(data, "detach"):
        data = data.detach().cpu().numpy()
    elif (
        not isinstance(data, np.ndarray) and root in ("jax", "jaxlib", "tensorflow", "cupy") and hasattr(data, "shape")
    ):
        data = np.asarray(data.get() if root == "cupy" else data)
    if not isinstance(data, np.ndarray):
        return None
    if data.dtype.hasobject:
        raise InvalidValue(f"an array of {data.dtype} holds Python objects, which have no fixed bytes")
    return data


def _array_writer(array: Any) -> Write:
    def write(file: Any) -> None:
        import numpy as np

        # Always in C order and without padding: the same numbers are the same bytes, however they lie in memory.
        header = io.BytesIO()
        description = np.lib.format.dtype_to_descr(array.dtype)
        np.lib.format.write_array_header_1_0(
            header, {"descr": description, "fortran_order": False, "shape": array.shape}
        )
        file.write(header.getvalue())
        flat = array if array.ndim else array.reshape(1)
        rows = max(1, _CHUNK_BYTES // max(1, flat[:1].nbytes))
        for start in range(0, len(flat), rows):
            file.write(np.ascontiguousarray(flat[start : start + rows]).tobytes())

    return write


# --- datasets of frameworks -------------------------------------------------------------------------------------------


def _of_hugging_face(data: Any, kind: str) -> InMemory:
    found = InMemory("object", kind)
    parts = data.items() if isinstance(data, Mapping) else [("", data)]
    for name, part in parts:
        facts: dict[str, Any] = {"type": type(part).__name__}
        for key in ("_fingerprint", "num_rows", "_split"):
            value = getattr(part, key, None)
            if value is not None:
                facts[key.strip("_")] = value if isinstance(value, int) else str(value)
        if (features := getattr(part, "features", None)) is not None:
            facts["features"] = {str(column): str(one)[:500] for column, one in features.items()}
        for cached in getattr(part, "cache_files", None) or ():
            with suppress(OSError, KeyError, TypeError):
                facts.setdefault("cache_bytes", []).append(Path(cached["filename"]).stat().st_size)
        found.facts[name or "data"] = facts
    found.not_hashed.append("the rows: Hugging Face's fingerprint stands for how they were made, not for their bytes")
    return found


def _of_torch(data: Any, kind: str) -> InMemory:
    found = InMemory("object", kind)
    _look(data, "data", found, frozenset())
    if not found.contents:
        found.not_hashed.append(
            "the samples: this dataset shows no tensors or list of files; only its type and length count"
        )
    return found


def _look(data: Any, name: str, found: InMemory, above: frozenset[int]) -> None:
    """Take in what a dataset shows of itself, and the datasets inside it."""
    if id(data) in above or len(above) > 20:
        return
    inner = above | {id(data)}
    facts: dict[str, Any] = {"type": f"{type(data).__module__}.{type(data).__qualname__}"}
    with suppress(Exception):  # a length of foreign code may do anything
        facts["length"] = len(data)
    found.facts[name] = facts
    for attribute in ("tensors", "data", "targets", "labels", "indices"):
        value = getattr(data, attribute, None)
        if attribute == "indices" and isinstance(value, Sequence) and not isinstance(value, str):
            value = _as_numbers(value)
        with suppress(InvalidValue):
            for file, array in (_as_arrays(value) or {}).items() if value is not None else ():
                found.contents[f"{name}.{attribute}.{file}"] = _array_writer(array)
    samples = getattr(data, "samples", None)
    if isinstance(samples, list) and 0 < len(samples) <= _MOST_SAMPLES and isinstance(samples[0], tuple):
        root = str(getattr(data, "root", ""))
        found.contents[f"{name}.samples.txt"] = lambda file: _write_samples(samples, root, file)
        found.not_hashed.append(f"the files of {name}: their names and classes are; use_dataset({root!r}) hashes them")
    nested = getattr(data, "dataset", None)
    if nested is not None:
        _look(nested, f"{name}.dataset", found, inner)
    for index, one in enumerate(itertools.islice(_sequence(getattr(data, "datasets", None)), 100)):
        _look(one, f"{name}.datasets.{index}", found, inner)


def _sequence(value: Any) -> Iterator[Any]:
    return iter(value) if isinstance(value, list | tuple) else iter(())


def _as_numbers(value: Sequence[Any]) -> Any:
    import numpy as np

    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        return None
    return array if array.dtype.kind in "iu" else None


def _write_samples(samples: Sequence[tuple[Any, ...]], root: str, file: Any) -> None:
    for path, *rest in samples:
        inside = os.path.relpath(path, root) if root and isinstance(path, str) else path
        file.write(f"{inside}\t{rest}\n".encode("utf-8", "surrogateescape"))


class _Hashing(io.RawIOBase):
    """A file that keeps only its hash."""

    def __init__(self) -> None:
        super().__init__()
        self.hasher = hasher_for(0)
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.hasher.update(view)
        self.size += len(view)
        return len(view)
