"""Tables, histograms, shapes in space, long texts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from runstone.errors import InvalidValue
from runstone.media.medium import Medium, comes_from, is_path, known_file, plain_text, without_none
from runstone.media.pictures import shown_shape
from runstone.names import shown
from runstone.runlog.columns import to_array
from runstone.runlog.scalars import encode_text

if TYPE_CHECKING:
    import pyarrow as pa

_SHAPES = ("glb", "obj", "ply", "stl")
_MOST_COLUMNS = 10_000
_MOST_NAMED = 100
_MOST_BINS = 10_000


def long_text(text: str) -> Medium:
    """Return a text of any length."""
    return Medium("text", "txt", encode_text(text))


def table(given: Any, *, max_rows: int) -> Medium:
    """Return a table, as Parquet.

    Args:
        given: Data frame of pandas or polars, Arrow table, mapping of columns, or sequence of mappings, one a row. A
            column that is of no one type is kept as text.
        max_rows: Rows beyond are left out.

    Raises:
        InvalidValue: it is none of these, or its columns differ in length.
    """
    import pyarrow.parquet as pq  # slow to load, and only for tables

    arrow = _to_arrow(given)
    if arrow.num_columns > _MOST_COLUMNS:
        raise InvalidValue(f"the table has {arrow.num_columns} columns, at most {_MOST_COLUMNS} are kept")
    notes: tuple[str, ...] = ()
    rows = arrow.num_rows
    if rows > max_rows:
        arrow = arrow.slice(0, max_rows)
        notes = (f"the table has {rows} rows, the first {max_rows} are kept",)
    file = io.BytesIO()
    pq.write_table(arrow, file, compression="zstd")
    metadata = without_none(
        rows=arrow.num_rows,
        rows_left_out=rows - arrow.num_rows or None,
        column_count=arrow.num_columns,
        columns=[plain_text(name) for name in arrow.column_names[:_MOST_NAMED]],
    )
    return Medium("table", "parquet", file.getvalue(), metadata, notes)


def _to_arrow(given: Any) -> pa.Table:
    import pyarrow as pa  # slow to load, and only for tables

    if isinstance(given, pa.Table):
        return given
    if comes_from(given, "polars") and hasattr(given, "to_arrow"):
        return given.to_arrow()
    if comes_from(given, "pandas") and hasattr(given, "columns"):
        index = [] if _is_plain_index(given.index) else [given.index.to_frame(index=False)]
        columns: dict[Any, Any] = {}
        for frame in (*index, given):
            for position, name in enumerate(frame.columns):
                columns[_free_name(columns, name)] = frame.iloc[:, position]
    elif isinstance(given, Mapping):
        columns = {}
        for name, values in given.items():
            columns[_free_name(columns, name)] = values
    elif isinstance(given, Sequence) and given and all(isinstance(row, Mapping) for row in given):
        names = dict.fromkeys(name for row in given for name in row)
        columns = {}
        for name in names:
            columns[_free_name(columns, name)] = [row.get(name) for row in given]
    else:
        raise InvalidValue(
            f"a table is a data frame, a mapping of columns or a sequence of rows that are mappings, got {shown(given)}"
        )
    arrays = {name: _column(name, values) for name, values in columns.items()}
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1:
        told = ", ".join(f"{name!r} {len(array)}" for name, array in list(arrays.items())[:8])
        raise InvalidValue(f"the columns of a table have one length; these have: {told}")
    return pa.table(arrays)


def _is_plain_index(index: Any) -> bool:
    return type(index).__name__ == "RangeIndex" and index.name is None


def _free_name(taken: Mapping[str, Any], name: Any) -> str:
    """Return the name of a column as text, another one where it is there already: 1 and "1", a pandas frame's twins."""
    text = plain_text(name if not isinstance(name, tuple) else "/".join(map(str, name)))
    free, number = text, 2
    while free in taken:
        free, number = f"{text} ({number})", number + 1
    return free


def _column(name: str, values: Any) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise InvalidValue(f"column {name!r:.80} of a table must be a sequence, got {shown(values)}")
    if hasattr(values, "detach") or (hasattr(values, "__array__") and not comes_from(values, "pandas")):
        values = to_array(values)
        if values.ndim != 1:
            values = list(values)
    try:
        return pa.array(values, from_pandas=comes_from(values, "pandas") or None)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([_cell(value) for value in values], pa.string())


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    try:
        return plain_text(value)
    except Exception as error:  # foreign code may raise anything
        return f"(its str raises {type(error).__name__})"


def histogram(given: Any, *, bins: int | Sequence[float] = 64) -> Medium:
    """Return how often values fall into which range.

    Args:
        given: Array or tensor of any shape, or sequence of numbers. NaN and ±Inf are counted apart.
        bins: How many ranges of equal width between the lowest and the highest value; or their edges, ascending: values
            outside are counted as `below` and `above`.

    Raises:
        InvalidValue: it is no array of real numbers, or the bins are none.
    """
    try:
        values = to_array(given).ravel()
    except Exception as error:  # foreign code may raise anything
        raise InvalidValue(f"this is no array: {shown(given)} ({type(error).__name__}: {error})") from None
    if values.dtype.kind not in "biuf":
        raise InvalidValue(f"a histogram is made of real numbers, got {values.dtype} from {shown_shape(given)}")
    if values.dtype.kind == "b" or values.dtype == np.float16:
        values = values.astype(np.float32)
    is_finite = np.isfinite(values)
    finite = values if is_finite.all() else values[is_finite]
    edges = _edges(bins)
    with np.errstate(all="ignore"):  # what overflows is seen by its result
        try:
            counts, found = np.histogram(finite, bins=edges)
        except (ValueError, IndexError, MemoryError) as error:
            raise InvalidValue(f"no histogram can be made of these values: {error}") from None
        mean = float(finite.mean(dtype=np.float64)) if len(finite) else None
    if not np.isfinite(found).all():
        raise InvalidValue("no histogram can be made of these values: their range is larger than a float")
    special = values[~is_finite] if len(finite) < len(values) else values[:0]
    metadata = without_none(
        edges=[float(edge) for edge in found] if len(finite) or not isinstance(edges, int) else [],
        counts=[int(count) for count in counts] if len(finite) or not isinstance(edges, int) else [],
        count=len(values),
        nan=int(np.isnan(special).sum()),
        positive_inf=int((special == np.inf).sum()),
        negative_inf=int((special == -np.inf).sum()),
        below=int((finite < found[0]).sum()) if len(finite) else 0,
        above=int((finite > found[-1]).sum()) if len(finite) else 0,
        min=float(finite.min()) if len(finite) else None,
        max=float(finite.max()) if len(finite) else None,
        mean=mean,
    )
    return Medium("histogram", metadata=metadata)


def _edges(bins: Any) -> int | list[float]:
    if isinstance(bins, int | np.integer) and not isinstance(bins, bool):
        if not 1 <= bins <= _MOST_BINS:
            raise InvalidValue(f"bins must be 1 to {_MOST_BINS}, got {bins}")
        return int(bins)
    try:
        edges = np.asarray(bins, np.float64)
    except (TypeError, ValueError):
        edges = np.empty(0)
    if edges.ndim != 1 or not 2 <= len(edges) <= _MOST_BINS + 1 or not (np.diff(edges) > 0).all():
        raise InvalidValue(f"bins must be a number or ascending edges, 2 at least, got {shown(bins)}")
    if not np.isfinite(edges).all():
        raise InvalidValue(f"the edges of bins must be finite, got {shown(bins)}; ±Inf is counted apart anyway")
    return [float(edge) for edge in edges]


def object3d(given: Any, *, caption: str | None = None) -> Medium:
    """Return a shape in space.

    Args:
        given: Path of a GLB, OBJ, PLY or STL file, kept as it is; or points: an array of shape `(n, 3)`, x, y and z, or
            `(n, 6)`, with red, green and blue behind.
        caption: Text beside it.

    Raises:
        NotFound: there is no such file.
        InvalidValue: it is none of these.
    """
    caption = plain_text(caption) if caption is not None else None
    if is_path(given):
        path, form = known_file(given, "a shape in space", _SHAPES)
        return Medium("object3d", form, path, without_none(caption=caption))
    try:
        points = to_array(given)
    except Exception as error:  # foreign code may raise anything
        raise InvalidValue(f"these are no points: {shown(given)} ({type(error).__name__}: {error})") from None
    if points.dtype.kind not in "iuf" or points.ndim != 2 or points.shape[1] not in (3, 6) or not len(points):
        raise InvalidValue(f"points are numbers of shape (n, 3) or (n, 6), got {points.dtype} {shown_shape(given)}")
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(points), allow_pickle=False)
    metadata = without_none(points=len(points), has_colours=points.shape[1] == 6, caption=caption)
    return Medium("object3d", "npy", file.getvalue(), metadata)
