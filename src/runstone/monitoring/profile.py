"""What data looked like, as values that are kept with a version: columns, a sample of rows, figures. Reads no data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runstone.errors import FormatError

FORMAT = 1
Kind = Literal["number", "category", "text", "time", "other"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: Its name.
        kind: `number`; `category`: text, booleans; `text`: so many different ones that only lengths are compared;
            `time`; `other`.
        type: As the file or table has it.
        count: Rows.
        missing: Rows without a value; NaN and ±Inf count.
        mean, std, min, max: Of finite numbers (of the lengths, for `text`).
        values, shares: Distribution function: of all finite numbers, the share up to each of these values, at most
            about a thousand, of which the last is 1.
        edges, bars: A histogram for people: edges of 24 bars, and how many values are in each.
        counts: How often each value occurs, the most frequent first: categories, and numbers of 50 values or less.
        distinct: How many different values there are; `None`: too many to count.
        singles: Values that occur once.
        unreadable: Values that should be numbers and are other text; they count as missing.
    """

    name: str
    kind: Kind
    type: str
    count: int
    missing: int
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    values: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    bars: tuple[int, ...] = ()
    counts: Mapping[str, int] | None = None
    distinct: int | None = None
    singles: int = 0
    unreadable: int = 0

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.count - self.missing

    @property
    def missing_share(self) -> float:
        """Share of the rows without a value, 0 to 1."""
        return self.missing / self.count if self.count else 0.0

    def share_up_to(self, points: Floats) -> Floats:
        """Return the share of the numbers that are not higher than each point."""
        places = np.searchsorted(np.asarray(self.values), points, side="right")
        return np.concatenate([[0.0], self.shares])[places]


@dataclass(frozen=True, slots=True)
class Performance:
    """How predictions fit labels.

    Attributes:
        task: `classification`, `scores` (probabilities of the second of two classes) or `regression`.
        count: Rows with both.
        figures: `accuracy`, `f1`, `auc`, `brier`; or `mae`, `rmse`, `r2`, `bias`.
        spread: Standard deviation of what the first figure is the mean of.
    """

    task: Literal["classification", "scores", "regression"]
    count: int
    figures: Mapping[str, float]
    spread: float

    @property
    def main(self) -> str:
        """The figure that is judged by."""
        return "mae" if self.task == "regression" else "accuracy"


@dataclass(frozen=True, slots=True)
class Profile:
    """What data looked like.

    Attributes:
        rows: How many.
        columns: By name.
        features: Names of the columns that the model takes.
        label, prediction: Columns with the truth and with what the model said; `None` where there is none.
        sample: Some of the rows, column by column, drawn evenly; for what takes whole rows. Empty where none are kept.
        sampled: How many rows the correlations were taken over.
        correlations: Spearman's, in the sample, between the first hundred numbers among the features: their names, and
            rows of a matrix; `None` where one of two does not vary.
        performance: How predictions fitted labels; `None` where one of them is not there.
        source: Where the data came from: `name`, `role`, `hash`, whichever are known.
        notes: What could not be said, in words.
    """

    rows: int
    columns: Mapping[str, Column]
    features: tuple[str, ...]
    label: str | None = None
    prediction: str | None = None
    sample: Mapping[str, list[Any]] = field(default_factory=dict)
    correlations: tuple[tuple[str, ...], tuple[tuple[float | None, ...], ...]] = ((), ())
    performance: Performance | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sampled: int = 0

    def with_rows(self, most: int | None) -> Profile:
        """Return it with at most so many rows of data in it, drawn evenly of the sample; `None`: as it is.

        Without any, no domain classifier can be trained later; all else is compared as before.
        """
        count = max(map(len, self.sample.values()), default=0)
        if most is None or count <= most:
            return self
        chosen = [place * count // most for place in range(most)]
        kept = {name: [values[place] for place in chosen] for name, values in self.sample.items()} if most else {}
        return replace(self, sample=kept)

    def to_bytes(self) -> bytes:
        """Return it as it is kept."""
        said = {"format": FORMAT, "kind": "profile", **self.to_dict()}
        return json.dumps(said, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Profile:
        """Return what `to_bytes` gave.

        Raises:
            FormatError: it is no profile, or a newer version wrote it.
        """
        try:
            raw = json.loads(data)
            if raw.get("kind") != "profile" or raw["format"] > FORMAT:
                raise FormatError(
                    f"this is no profile of format {FORMAT}; a newer version of Runstone may have made it"
                )
            columns = {name: _column(column) for name, column in raw["columns"].items()}
            names, matrix = raw["correlations"]
            performance = raw["performance"]
            return cls(
                rows=raw["rows"],
                columns=columns,
                features=tuple(raw["features"]),
                label=raw["label"],
                prediction=raw["prediction"],
                sample=raw["sample"],
                correlations=(tuple(names), tuple(tuple(row) for row in matrix)),
                performance=Performance(**performance) if performance is not None else None,
                source=raw["source"],
                notes=tuple(raw["notes"]),
                sampled=raw.get("sampled", max(map(len, raw["sample"].values()), default=0)),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"this profile is damaged: {type(error).__name__}: {error}") from None


def _column(raw: Mapping[str, Any]) -> Column:
    lists = {name: tuple(raw[name]) for name in ("values", "shares", "edges", "bars")}
    return Column(**{**raw, **lists})
