"""Makes a profile of rows as they stream by, in memory that does not grow with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runstone.datasets.sketch import Moments, Quantiles
from runstone.datasets.tables import LOOSEST, NoTable
from runstone.errors import InvalidValue
from runstone.monitoring.performance import PerformanceMeter
from runstone.monitoring.profile import Column, Floats, Kind, Performance, Profile
from runstone.monitoring.tables import LOG, MOST_COLUMNS, Rows, leniencies

MOST_CATEGORIES = 1_000
"""A column of text with more different values is free text, of which only the lengths are compared."""
DISCRETE = 50
_POINTS = 1_000
_BARS = 24
_SAMPLE_ROWS, _SAMPLE_CELLS = 5_000, 400_000
_CORRELATED = 100
_SEED = 20_263
_SHOWN_TEXT = 200
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def profile_rows(
    rows: Rows,
    *,
    features: Sequence[str] | None = None,
    label: str | None = None,
    prediction: str | None = None,
    ignore: Sequence[str] = (),
    expected: Mapping[str, Column] | None = None,
    task: str | None = None,
    source: Mapping[str, Any] | None = None,
    keeps: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None,
) -> Profile:
    """Read all rows once and return what they look like.

    Args:
        rows: The data.
        features: Columns that the model takes; default: all but `label`, `prediction` and `ignore`.
        label, prediction: Columns with the truth and with what the model said.
        ignore: Columns that are passed over, such as ids.
        expected: What the columns were; values of a kind that can be taken as theirs are.
        task: As of `Performance`; default: by the values.
        source: As of `Profile`.
        keeps: Chooses the rows of a batch that count.

    Raises:
        NoTable: it cannot be read as a table.
        InvalidValue: there are no rows or too many columns, or a column is not there.
    """
    for leniency in leniencies():
        profiler = _Profiler(features, label, prediction, frozenset(ignore), expected or {}, task, leniency == LOOSEST)
        try:
            for batch in rows.batches(leniency):
                profiler.add(keeps(batch) if keeps is not None else batch)
        except NoTable as error:
            if error.is_mixed and leniency < LOOSEST:  # its types hold for its beginning only
                continue
            raise
        return profiler.profile(rows.name, source or {"name": rows.name})
    raise AssertionError  # the loosest way tells of no mixed types


class _Profiler:
    """All columns, while they are read."""

    def __init__(
        self,
        features: Sequence[str] | None,
        label: str | None,
        prediction: str | None,
        ignore: frozenset[str],
        expected: Mapping[str, Column],
        task: str | None,
        is_loose: bool,
    ) -> None:
        self._features = features
        self._label = label
        self._prediction = prediction
        self._ignore = ignore
        self._expected = expected
        self._columns: dict[str, _Meter] = {}
        self._rows = 0
        self._sample: _Sample | None = None
        self._meter = PerformanceMeter(task)
        self._is_loose = is_loose

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in some rows."""
        if batch.num_columns > MOST_COLUMNS:
            raise InvalidValue(f"{batch.num_columns:,} columns are too many to watch; at most {MOST_COLUMNS:,} are")
        names = [name for name in batch.schema.names if self._is_wanted(name)]
        if self._sample is None:
            self._sample = _Sample(min(_SAMPLE_ROWS, _SAMPLE_CELLS // max(1, len(names))))
        self._rows += batch.num_rows
        read: dict[str, pa.Array] = {}
        for name in names:
            values = batch.column(batch.schema.get_field_index(name))
            meter = self._columns.get(name)
            if meter is None:
                meter = self._columns[name] = _Meter(
                    name, values.type, self._expected.get(name), is_loose=self._is_loose
                )
            read[name] = meter.add(values)
        self._sample.add(batch.num_rows, read)
        if self._label in read and self._prediction in read:
            self._meter.add(read[self._label], read[self._prediction])

    def _is_wanted(self, name: str) -> bool:
        if name in (self._label, self._prediction):
            return True
        return name not in self._ignore and not name.startswith(LOG)

    def profile(self, name: str, source: Mapping[str, Any]) -> Profile:
        """Return what was read."""
        for column in (self._label, self._prediction) if self._rows else ():
            if column is not None and column not in self._columns:
                there = ", ".join(sorted(self._columns)[:20]) or "none"
                raise InvalidValue(f"{name} has no column {column!r:.80}; it has {there}")
        others = {self._label, self._prediction}
        features = [one for one in self._columns if one not in others] if self._features is None else self._features
        columns = {one: meter.column(self._rows) for one, meter in self._columns.items()}
        sample = self._sample.rows() if self._sample is not None else {}
        return Profile(
            rows=self._rows,
            columns=columns,
            features=tuple(features),
            label=self._label,
            prediction=self._prediction,
            sample=sample,
            correlations=_correlations(sample, [columns[one] for one in features if one in columns]),
            performance=self._performance(sample),
            source=dict(source),
            sampled=max(map(len, sample.values()), default=0),
        )

    def _performance(self, sample: Mapping[str, list[Any]]) -> Performance | None:
        if self._label is None or self._prediction is None:
            return None
        return self._meter.performance(sample.get(self._label, []), sample.get(self._prediction, []))


class _Meter:
    """One column while it is read."""

    def __init__(self, name: str, arrow: pa.DataType, expected: Column | None, *, is_loose: bool) -> None:
        self._name = name
        self.kind: Kind = _kind(arrow, expected, is_loose=is_loose)
        self._unreadable = 0
        self._type = str(arrow)
        self._present = 0
        self._moments = Moments()
        self._quantiles = Quantiles()
        self._counts: dict[str, int] | None = {}

    def add(self, values: pa.Array) -> pa.Array:
        """Take in a part of it; return that part as numbers or text, with nulls."""
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        taken = _as(values, self.kind)
        if taken is None:  # another file of the same data has another type here
            raise InvalidValue(f"column {self._name!r:.80} is {self._type} at first, and {values.type} later on")
        known = taken.drop_null()
        if self.kind == "number":
            self._unreadable += taken.null_count - values.null_count
            finite = self._moments.add(np.asarray(known.to_numpy(zero_copy_only=False), dtype=np.float64))
            self._present += len(finite)
            if len(finite):
                self._quantiles.add(finite)
                self._count(pa.array(finite))
            return taken
        self._present += len(known)
        if self.kind in ("category", "text") and len(known):
            lengths = np.asarray(pc.utf8_length(known).to_numpy(zero_copy_only=False), dtype=np.float64)
            self._quantiles.add(self._moments.add(lengths))
            self._count(known)
        return taken

    def _count(self, values: pa.Array) -> None:
        """Count how often each value occurs, as long as there are few enough of them."""
        if self._counts is None:
            return
        counted = pc.value_counts(values)
        most = MOST_CATEGORIES if self.kind == "category" else DISCRETE
        if len(counted) + len(self._counts) <= 3 * most:
            for value, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
                word = word_of(value)
                self._counts[word] = self._counts.get(word, 0) + count
            if len(self._counts) <= most:
                return
        self._counts = None
        if self.kind == "category":
            self.kind = "text"

    def column(self, rows: int) -> Column:
        """Return what it comes down to, given the number of all rows."""
        has_numbers = self.kind in ("number", "text")
        values, shares = _distribution(self._quantiles) if has_numbers else ((), ())
        edges, bars = _bars(self._quantiles) if values else ((), ())
        counts = None
        if self._counts is not None and self.kind in ("number", "category") and self._present:
            counts = dict(sorted(self._counts.items(), key=lambda item: (-item[1], item[0])))
        return Column(
            name=self._name,
            kind=self.kind,
            type=self._type,
            count=rows,
            missing=rows - self._present,
            mean=self._moments.mean if values else None,
            std=self._moments.std if values else None,
            min=values[0] if values else None,
            max=values[-1] if values else None,
            values=values,
            shares=shares,
            edges=edges,
            bars=bars,
            counts=counts,
            distinct=len(counts) if counts is not None else None,
            singles=sum(count == 1 for count in counts.values()) if counts is not None else 0,
            unreadable=self._unreadable,
        )


def word_of(value: Any) -> str:
    """Return a category or a number as the word by which it is counted; whole numbers without a point."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)


def _kind(arrow: pa.DataType, expected: Column | None, *, is_loose: bool) -> Kind:
    """Return what a column is taken as: what is expected, wherever its values can be that."""
    arrow = arrow.value_type if pa.types.is_dictionary(arrow) else arrow
    is_text = pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or str(arrow) == "string_view"
    is_whole = pa.types.is_integer(arrow) or pa.types.is_boolean(arrow)
    if expected is not None:
        if pa.types.is_null(arrow):  # all of it is missing
            return expected.kind
        if expected.kind == "text" and is_text:
            return "text"
        if expected.kind == "category" and is_whole:  # as CSV has it
            return "category"
        if expected.kind == "number" and (pa.types.is_boolean(arrow) or (is_text and is_loose)):
            return "number"
    if pa.types.is_integer(arrow) or pa.types.is_floating(arrow) or pa.types.is_decimal(arrow):
        return "number"
    if is_text or pa.types.is_boolean(arrow) or pa.types.is_null(arrow):
        return "category"
    return "time" if pa.types.is_temporal(arrow) else "other"


def _as(values: pa.Array, kind: Kind) -> pa.Array | None:
    """Return values as numbers or text; `None` where they are of another kind."""
    arrow = values.type
    try:
        if kind == "number":
            if pa.types.is_boolean(arrow):
                values = values.cast(pa.int8())
            elif pa.types.is_string(arrow) or pa.types.is_large_string(arrow):
                is_number = pc.match_substring_regex(values, _NUMBER)
                values = pc.if_else(is_number, pc.utf8_trim_whitespace(values), pa.scalar(None, arrow))
            return values.cast(pa.float64(), safe=False)
        if kind in ("category", "text"):
            if pa.types.is_boolean(arrow):
                return pc.if_else(values, "True", "False")
            if pa.types.is_floating(arrow):
                return None
            return values.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return values


class _Sample:
    """Some rows, drawn evenly of all that stream by: those with the smallest of random keys."""

    def __init__(self, rows: int) -> None:
        self._most = rows
        self._draw = np.random.default_rng(_SEED)
        self._keys = np.empty(0)
        self._kept: pa.Table | None = None

    def add(self, count: int, columns: Mapping[str, pa.Array]) -> None:
        """Take in some rows."""
        keys = self._draw.random(count)
        is_full = len(self._keys) >= self._most
        chosen = np.flatnonzero(keys < self._keys.max()) if is_full else np.arange(count)
        if len(chosen) > self._most:
            chosen = chosen[np.argpartition(keys[chosen], self._most)[: self._most]]
        plain = {name: one for name, one in columns.items() if _is_plain(one.type)}
        part = pa.table(plain).take(pa.array(chosen)) if plain else None
        if part is None:
            return
        kept = part if self._kept is None else pa.concat_tables([self._kept, part], promote_options="default")
        self._keys = np.concatenate([self._keys, keys[chosen]])
        if len(self._keys) > self._most:
            best = np.sort(np.argpartition(self._keys, self._most)[: self._most])
            self._keys, kept = self._keys[best], kept.take(pa.array(best))
        self._kept = kept.combine_chunks()

    def rows(self) -> dict[str, list[Any]]:
        """Return them column by column; what is no finite number is `None`."""
        if self._kept is None:
            return {}
        return {name: [_finite(value) for value in self._kept[name].to_pylist()] for name in self._kept.column_names}


def _is_plain(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_float64(arrow) or pa.types.is_large_string(arrow))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value[:_SHOWN_TEXT] if isinstance(value, str) else value


def _distribution(quantiles: Quantiles) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a step function within a thousandth of the share up to each value."""
    every, weights = quantiles.weighted()
    if not len(every):
        return (), ()
    values, first = np.unique(every, return_index=True)
    shares = np.add.reduceat(weights, first).cumsum() / weights.sum()
    if len(values) > _POINTS:
        wanted = np.linspace(0.0, 1.0, _POINTS + 1)
        places = np.unique(np.minimum(np.searchsorted(shares, wanted), len(values) - 1))
        values, shares = values[places], shares[places]
    shares[-1] = 1.0
    return tuple(values.tolist()), tuple(shares.tolist())


def _bars(quantiles: Quantiles) -> tuple[tuple[float, ...], tuple[int, ...]]:
    values, weights = quantiles.weighted()
    low, high = float(values[0]), float(values[-1])
    if not (high > low and math.isfinite(high - low)):
        return (low, high), (round(float(weights.sum())),)
    # A few values far out would press all others into one bar.
    inner = quantiles.at(np.array([0.005, 0.995]))
    if high - low > 4 * (inner[1] - inner[0]) > 0:
        low, high = float(inner[0]), float(inner[1])
    counts, edges = np.histogram(np.clip(values, low, high), bins=_BARS, range=(low, high), weights=weights)
    return tuple(edges.tolist()), tuple(round(float(one)) for one in counts)


def _correlations(
    sample: Mapping[str, list[Any]], columns: Sequence[Column]
) -> tuple[tuple[str, ...], tuple[tuple[float | None, ...], ...]]:
    names = tuple(one.name for one in columns if one.kind == "number" and one.name in sample)[:_CORRELATED]
    if len(names) < 2:
        return (), ()
    table = np.array([_ranks(sample[name]) for name in names])
    known = np.isfinite(table)
    with np.errstate(all="ignore"):
        means = np.where(known, table, 0.0).sum(axis=1) / known.sum(axis=1)
        apart = np.where(known, table - means[:, None], 0.0)
        together = apart @ apart.T
        squares = apart**2 @ known.T.astype(np.float64)
        matrix = together / np.sqrt(squares * squares.T)
    return names, tuple(tuple(round(float(r), 6) if math.isfinite(r) else None for r in row) for row in matrix)


def _ranks(values: Sequence[Any]) -> Floats:
    """Return the ranks of the values that are there, equal ones with their mean; NaN where there is none."""
    found = np.array([math.nan if value is None else value for value in values], np.float64)
    known = np.isfinite(found)
    _distinct, place, counts = np.unique(found[known], return_inverse=True, return_counts=True)
    found[known] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return found


__all__ = ["DISCRETE", "MOST_CATEGORIES", "profile_rows", "word_of"]
