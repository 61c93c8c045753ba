"""What a check found, as values: verdict, reasons, figures. Writes JSON; knows no data and no pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from runstone.monitoring.batches import Batch
from runstone.monitoring.classifier import DomainTest
from runstone.monitoring.measures import Distance
from runstone.monitoring.profile import Column, Performance

Level = Literal["ok", "warning", "drift", "error"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "drift", "error")
Cause = Literal["schema", "performance", "drift", "rows"]
CAUSES: tuple[Cause, ...] = ("schema", "performance", "drift", "rows")
"""The gravest first, among what is equally bad."""
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on something counts.

    Attributes:
        alpha: How often a batch without any change may be taken for one with a change, over all tests together.
        correction: `holm`, or `bh` for very many features, where some false ones among the found do no harm.
        effect: From which effect (see `Distance`) a sure change is drift and not only a warning.
        psi: From which population stability index beyond chance it is, whatever the effect.
        missing: From which growth of the share of missing values.
        unseen: From which share of rows with unseen values.
        auc: From which area a domain classifier says drift.
        accuracy: Which loss of accuracy is one.
        error: Which growth of the mean absolute error is one, as a share of it.
        min_rows: With fewer rows nothing but a warning is said of distributions.
    """

    alpha: float = 0.01
    correction: Literal["holm", "bh"] = "holm"
    effect: float = 0.1
    psi: float = 0.2
    missing: float = 0.02
    unseen: float = 0.01
    auc: float = 0.55
    accuracy: float = 0.02
    error: float = 0.1
    min_rows: int = 20


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a verdict is what it is: how bad, what sort, of which column, in a sentence."""

    level: Level
    cause: Cause
    feature: str | None
    text: str


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """One column, compared.

    Attributes:
        name: Of the column.
        role: `feature`, `label` or `prediction`.
        level: The worst that is said of it.
        before, after: What it was and is; `None` where it is not there.
        distance: Of the values; `None` where they cannot be compared.
        p_adjusted: p of the distance, corrected for all tests.
        missing_p: Corrected p of the change of the share of missing values.
        unseen: Values that the reference does not have, the most frequent ones, with how often they occur.
        unseen_count: Rows with such values.
        unseen_p: Corrected p of that.
    """

    name: str
    role: Literal["feature", "label", "prediction"]
    level: Level
    before: Column | None
    after: Column | None
    distance: Distance | None = None
    p_adjusted: float | None = None
    missing_p: float | None = None
    unseen: Mapping[str, int] = field(default_factory=dict)
    unseen_count: int = 0
    unseen_p: float | None = None


@dataclass(frozen=True, slots=True)
class PerformanceReport:
    """How the batch's predictions fit its labels, against how they did before.

    Attributes:
        now: The batch.
        figure: The figure that is judged.
        value, low, high: Its value in the batch with its interval (95 %).
        baseline: What it was; `None`: nobody knows.
        baseline_name: Where that comes from.
        p: How likely so bad a value is where nothing changed, one-sided and corrected; `None` without a baseline.
        level: What is said of it.
    """

    now: Performance
    figure: str
    value: float
    low: float
    high: float
    baseline: float | None
    baseline_name: str | None
    p: float | None
    level: Level


@dataclass(frozen=True, slots=True)
class Report:
    """What one check found.

    Attributes:
        verdict: `ok`, `warning` (look at it), `drift` (act), `error` (the model cannot work on it, or it cannot be
            judged).
        reasons: The worst first.
        data: Name of the batch.
        rows: Its rows.
        reference: Rows and source of what it was compared with.
        model, version: Of whom; `None` where only data was compared.
        at: When, in seconds since the Unix epoch.
        features: All columns, the worst first.
        classifier: The domain classifier; `None` where there were too few rows.
        performance: `None` where labels or predictions are not known.
        correlations: The pairs of features whose correlation changed most: names, before, after.
        notes: What could not be looked at, and why.
        thresholds: What it was judged by.
        batch: What the batch looked like; not part of what `to_dict` says. `None`: nobody kept it.
    """

    verdict: Level
    reasons: tuple[Reason, ...]
    data: str
    rows: int
    reference: Mapping[str, Any]
    model: str | None
    version: str | None
    at: float
    features: tuple[FeatureReport, ...]
    classifier: DomainTest | None
    performance: PerformanceReport | None
    correlations: tuple[tuple[str, str, float, float], ...]
    notes: tuple[str, ...]
    thresholds: Thresholds
    batch: Batch | None = None

    @property
    def subject(self) -> str:
        """Of whom, in a word."""
        return f"{self.model}@{self.version}" if self.model is not None else "the reference"

    @property
    def headline(self) -> str:
        """What was found, in a line."""
        worst = [one for one in self.reasons if one.level == self.verdict]
        if not worst:
            return f"{self.subject}: ok, nothing has changed in {self.rows:,} rows"
        more = f" (and {len(worst) - 1} more)" if len(worst) > 1 else ""
        return f"{self.subject}: {self.verdict}, {worst[0].text}{more}"

    @property
    def cause(self) -> Cause:
        """What sort the worst reason is of."""
        found = {one.cause for one in self.reasons if one.level == self.verdict}
        return next((cause for cause in CAUSES if cause in found), "drift")

    def is_at_least(self, level: Level) -> bool:
        """Return whether the verdict is this bad or worse."""
        return LEVELS.index(self.verdict) >= LEVELS.index(level)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON; distributions as bars of both, without the samples they came from."""
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "headline": self.headline,
            "reasons": [asdict(one) for one in self.reasons],
            "model": self.model,
            "version": self.version,
            "data": self.data,
            "rows": self.rows,
            "at": self.at,
            "reference": dict(self.reference),
            "features": [_feature(one) for one in self.features],
            "classifier": asdict(self.classifier) if self.classifier is not None else None,
            "performance": asdict(self.performance) if self.performance is not None else None,
            "correlations": [
                {"features": [first, second], "before": before, "after": after}
                for first, second, before, after in self.correlations
            ],
            "notes": list(self.notes),
            "thresholds": asdict(self.thresholds),
        }

    def to_markdown(self) -> str:
        """Return it for a pull request or a message."""
        from runstone.monitoring.pages import to_markdown  # it needs this module

        return to_markdown(self.to_dict())

    def to_html(self) -> str:
        """Return it as one page that needs nothing else."""
        from runstone.monitoring.pages import to_html  # it needs this module

        return to_html(self.to_dict())


def _feature(one: FeatureReport) -> dict[str, Any]:
    return {
        "name": one.name,
        "role": one.role,
        "level": one.level,
        "distance": asdict(one.distance) if one.distance is not None else None,
        "p": one.p_adjusted,
        "missing": {
            "before": one.before.missing_share if one.before is not None else None,
            "after": one.after.missing_share if one.after is not None else None,
            "p": one.missing_p,
        },
        "unseen": {"rows": one.unseen_count, "values": dict(one.unseen), "p": one.unseen_p},
        "before": _column(one.before),
        "after": _column(one.after),
        "bars": bars(one),
    }


def _column(column: Column | None) -> dict[str, Any] | None:
    if column is None:
        return None
    names = ("kind", "type", "count", "missing", "mean", "std", "min", "max", "distinct", "unreadable")
    return {name: getattr(column, name) for name in names}


MOST_BARS = 12


def bars(one: FeatureReport) -> dict[str, Any] | None:
    """Return both distributions as shares of the rows with a value, over the same bars.

    Returns:
        `labels` (of categories) or `edges` (of numbers, one more than bars), `before` and `after`; `None` where there
        is nothing to draw.
    """
    before, after = one.before, one.after
    if before is None or not before.present:
        return None
    if before.kind == "category":
        return _category_bars(before, after)
    if not before.values:
        return None
    columns = [column for column in (before, after) if column is not None and column.values]
    low = min(_inner(column)[0] for column in columns)
    high = max(_inner(column)[1] for column in columns)
    if not high > low:
        high = low + 1.0
    count = 24
    edges = [low + (high - low) * place / count for place in range(count + 1)]
    return {
        "edges": edges,
        "before": _shares(before, edges),
        "after": _shares(after, edges) if after is not None and after.values else [],
    }


def _inner(column: Column) -> tuple[float, float]:
    """Return between which values nearly all are; a few far out would press the rest together."""
    import numpy as np  # only where something is drawn

    shares = np.asarray(column.shares)
    low = column.values[int(np.searchsorted(shares, 0.005))]
    high = column.values[min(len(shares) - 1, int(np.searchsorted(shares, 0.995)))]
    least, most = column.values[0], column.values[-1]
    return (least, most) if most - least <= 3 * (high - low) else (low, high)


def _shares(column: Column, edges: Sequence[float]) -> list[float]:
    import numpy as np  # only where something is drawn

    up_to = column.share_up_to(np.asarray(edges[1:-1]))
    return [float(one) for one in np.diff(np.concatenate([[0.0], up_to, [1.0]]))]


def _category_bars(before: Column, after: Column | None) -> dict[str, Any] | None:
    first = before.counts or {}
    second = (after.counts or {}) if after is not None else {}
    pooled = {
        value: first.get(value, 0) / max(1, before.present)
        + second.get(value, 0) / max(1, after.present if after is not None else 1)
        for value in [*first, *second]
    }
    labels = sorted(pooled, key=lambda value: (-pooled[value], value))[:MOST_BARS]
    found: dict[str, Any] = {"labels": list(labels)}
    for name, column in (("before", before), ("after", after)):
        counts = (column.counts or {}) if column is not None else {}
        total = column.present if column is not None else 0
        found[name] = [counts.get(value, 0) / total for value in labels] if total else []
    if len(pooled) > len(labels):
        found["labels"].append("others")
        for name in ("before", "after"):
            found[name] = [*found[name], max(0.0, 1 - sum(found[name]))] if found[name] else []
    return found
