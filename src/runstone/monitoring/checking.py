"""Compares a batch with a reference and gives the verdict. Opens nothing, records nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runstone.monitoring import measures
from runstone.monitoring.classifier import DomainTest, tell_apart
from runstone.monitoring.profile import Column, Performance, Profile
from runstone.monitoring.report import (
    CAUSES,
    LEVELS,
    FeatureReport,
    Level,
    PerformanceReport,
    Reason,
    Report,
    Thresholds,
)
from runstone.statistics import correct

# The false alarms that are allowed are shared out: half to the features, a quarter to labels, predictions and
# performance, an eighth each to the domain classifier and the correlations.
_FEATURES, _TARGETS, _CLASSIFIER, _CORRELATIONS = 2, 4, 8, 8
_MOST_OF_ONE = 0.8
_FEW_CLASSES = 5
"""Numbers of so few values are told of by their shares: the mean of classes means nothing."""
_SHOWN_UNSEEN = 10
_SHOWN_PAIRS, _SHOWN_P = 10, 0.001


@dataclass(frozen=True, slots=True)
class Baseline:
    """How well a version did before.

    Attributes:
        name: Where that comes from.
        value: Of the figure.
        figure: `accuracy`, `mae`.
        count: Rows that it was counted over; `None`: nobody knows, it is taken as it is.
        spread: As of `Performance`.
    """

    name: str
    value: float
    figure: str
    count: int | None = None
    spread: float = 0.0


def compare_profiles(
    before: Profile,
    after: Profile,
    *,
    thresholds: Thresholds | None = None,
    baseline: Baseline | None = None,
    data: str = "the batch",
    model: str | None = None,
    version: str | None = None,
    at: float | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Return how a batch differs from a reference, and what is to be thought of it.

    Args:
        before: The reference.
        after: The batch.
        thresholds: From when on something counts.
        baseline: How well the version did before.
        data: Name of the batch.
        model, version: Of whom.
        at: When, in seconds since the Unix epoch; default: now.
        notes: What is already known that could not be looked at.

    Raises:
        InvalidConfig: SciPy or scikit-learn is not installed.
    """
    found = _Comparison(before, after, thresholds or Thresholds(), list(notes))
    found.compare(baseline)
    reasons = sorted(found.reasons, key=lambda one: (-LEVELS.index(one.level), CAUSES.index(one.cause)))
    verdict = reasons[0].level if reasons else "ok"
    features = sorted(found.features, key=_rank)
    return Report(
        verdict=verdict,
        reasons=tuple(reasons),
        data=data,
        rows=after.rows,
        reference={"rows": before.rows, **before.source},
        model=model,
        version=version,
        at=time.time() if at is None else at,
        features=tuple(features),
        classifier=found.classifier,
        performance=found.performance,
        correlations=found.correlations,
        notes=(*before.notes, *found.notes),
        thresholds=found.thresholds,
    )


def _rank(one: FeatureReport) -> tuple[Any, ...]:
    p = one.p_adjusted if one.p_adjusted is not None else 1.0
    effect = one.distance.effect if one.distance is not None else 0.0
    return -LEVELS.index(one.level), one.role == "feature", p, -effect, one.name


class _Comparison:
    """One comparison while it is made."""

    def __init__(self, before: Profile, after: Profile, thresholds: Thresholds, notes: list[str]) -> None:
        self.before = before
        self.after = after
        self.thresholds = thresholds
        self.notes = notes
        self.reasons: list[Reason] = []
        self.features: list[FeatureReport] = []
        self.classifier: DomainTest | None = None
        self.performance: PerformanceReport | None = None
        self.correlations: tuple[tuple[str, str, float, float], ...] = ()

    def compare(self, baseline: Baseline | None) -> None:
        if not self.after.rows:
            self._say("error", "rows", None, "the batch has no rows")
        pairs = [self._pair(name, "feature") for name in self.before.features]
        self.features += self._judged([one for one in pairs if one is not None], _FEATURES, extra=0)
        if self.after.rows:
            self._tell_apart()
            self._correlate()
        targets = [self._target("label"), self._target("prediction")]
        performance = self._performance(baseline)
        p = [performance.p] if performance is not None and performance.p is not None else []
        self.features += self._judged([one for one in targets if one is not None], _TARGETS, extra=len(p))
        if performance is not None:
            self._judge_performance(performance, len(p) + 2)
        few = self.thresholds.min_rows
        if 0 < self.after.rows < few:
            self._say(
                "warning", "rows", None,
                f"{self.after.rows} row{'s are' if self.after.rows > 1 else ' is'} too few to judge distributions by: "
                f"{few} are asked for",
            )  # fmt: skip
        self._tell_power()
        new = sorted(set(self.after.columns) - set(self.before.columns) - {self.after.label, self.after.prediction})
        if new:
            self.notes.append(f"columns that the reference does not have are not looked at: {_listed(new)}")

    # --- columns ---------------------------------------------------------------------------------------------------

    def _pair(self, name: str, role: Any) -> FeatureReport | None:
        before, after = self.before.columns.get(name), self.after.columns.get(name)
        if after is None:
            if self.after.rows:
                self._say("error", "schema", name, f"column {name!r} is missing")
            return FeatureReport(name, role, "error" if self.after.rows else "ok", before, None)
        if before is None or before.kind in ("time", "other"):
            return None if before is None else FeatureReport(name, role, "ok", before, after)
        return self._compared(before, after, role)

    def _target(self, role: Any) -> FeatureReport | None:
        names = getattr(self.before, role), getattr(self.after, role)
        before = self.before.columns.get(names[0]) if names[0] is not None else None
        after = self.after.columns.get(names[1]) if names[1] is not None else None
        if before is None or after is None or before.kind in ("time", "other"):
            return None
        return self._compared(before, after, role)

    def _compared(self, before: Column, after: Column, role: Any) -> FeatureReport:
        name = before.name
        if after.kind == "category" and not after.present:
            after = replace(after, kind=before.kind)
        if before.kind == "category" and after.kind == "text":
            after = replace(after, kind="category", counts={"(more than 1,000 different)": after.present})
        if before.kind != after.kind:
            words = {"number": "numbers", "category": "text", "text": "text", "time": "times", "other": "other values"}
            self._say(
                "error", "schema", name,
                f"{name!r} has {words[after.kind]} ({after.type}) where the reference has {words[before.kind]} "
                f"({before.type})",
            )  # fmt: skip
            return FeatureReport(name, role, "error", before, after)
        level: Level = "ok"
        if not after.present and role == "label":  # they are not known yet
            return FeatureReport(name, role, "ok", before, after)
        if not after.present and after.count and before.present:
            level = "error" if after.count >= self.thresholds.min_rows else "warning"
            self._say(level, "schema", name, f"{name!r} has no value in any row")
        elif after.unreadable:
            level = "error" if after.unreadable > after.count * self.thresholds.missing else "warning"
            self._say(level, "schema", name, f"{after.unreadable:,} values of {name!r} are no numbers")
        new = measures.unseen(before, after) if before.kind == "category" else {}
        return FeatureReport(
            name, role, level, before, after, measures.distance(before, after),
            unseen=dict(list(new.items())[:_SHOWN_UNSEEN]), unseen_count=sum(new.values()),
        )  # fmt: skip

    def _judged(self, found: Sequence[FeatureReport], share: int, *, extra: int) -> list[FeatureReport]:
        """Return columns with their p corrected together, and say what is wrong with them."""
        tests: list[tuple[int, str, float]] = []
        for place, one in enumerate(found):
            before, after = one.before, one.after
            if before is None or after is None or before.kind != after.kind or not after.count:
                continue
            if one.distance is not None:
                tests.append((place, "p_adjusted", one.distance.p))
            if (after.missing or before.missing) and one.role != "label":  # labels come late, or never
                p = measures.share_p(before.missing, before.count, after.missing, after.count)
                tests.append((place, "missing_p", p))
            if one.unseen_count:
                tests.append((place, "unseen_p", measures.unseen_p(before, after, one.unseen_count)))
        corrected = correct(
            [p for _place, _name, p in tests], self.thresholds.correction, comparisons=len(tests) + extra
        )
        told: list[dict[str, Any]] = [{} for _ in found]
        for (place, name, _p), p in zip(tests, corrected, strict=True):
            told[place][name] = min(1.0, p * share)
        return [self._judge(replace(one, **more)) for one, more in zip(found, told, strict=True)]

    def _judge(self, one: FeatureReport) -> FeatureReport:
        levels: list[Level] = [one.level]
        limits = self.thresholds
        what = {"feature": "", "label": "the label ", "prediction": "the prediction "}[one.role] + repr(one.name)
        before, after = one.before, one.after
        if before is None or after is None:
            return one
        if one.distance is not None and one.p_adjusted is not None and one.p_adjusted < limits.alpha:
            found = one.distance
            is_large = found.effect >= limits.effect or found.psi - found.psi_chance >= limits.psi
            levels.append(
                self._say(self._level(is_large), "drift", one.name, f"{what} {_moved_text(before, after, found)}")
            )
        if one.missing_p is not None and one.missing_p < limits.alpha and one.level == "ok":
            grown = after.missing_share - before.missing_share
            text = f"{what} is missing in {after.missing_share:.1%} of the rows, {before.missing_share:.1%} before"
            levels.append(self._say(self._level(grown >= limits.missing), "drift", one.name, text))
        if one.unseen_p is not None and one.unseen_p < limits.alpha:
            share = one.unseen_count / after.present
            text = (
                f"{what} has values that were not there before in {share:.1%} of the rows: {_listed(list(one.unseen))}"
            )
            levels.append(self._say(self._level(share >= limits.unseen), "drift", one.name, text))
        return replace(one, level=max(levels, key=LEVELS.index))

    def _level(self, is_large: bool) -> Level:
        return "drift" if is_large and self.after.rows >= self.thresholds.min_rows else "warning"

    # --- the whole -------------------------------------------------------------------------------------------------

    def _tell_apart(self) -> None:
        names = [
            one.name
            for one in self.features
            if one.role == "feature"
            and one.before is not None
            and one.after is not None
            and one.before.kind == one.after.kind
            and one.before.kind in ("number", "category")
        ]
        if not names:
            return
        self.classifier = tell_apart(self.before, self.after, names)
        if self.classifier is None:
            why = "it takes fifty rows of both"
            for whose, one in (("the batch", self.after), ("the reference", self.before)):
                why = why if one.sample else f"{whose} keeps no rows to compare with"
            self.notes.append(f"no domain classifier was trained: {why}")
            return
        found = replace(self.classifier, p=min(1.0, self.classifier.p * _CLASSIFIER))
        self.classifier = found
        if found.p < self.thresholds.alpha:
            text = f"a classifier tells its rows from those of the reference with an AUC of {found.auc:.2f}"
            self._say(self._level(found.auc >= self.thresholds.auc), "drift", None, text)

    def _correlate(self) -> None:
        found = correlations(self.before, self.after)
        self.correlations = tuple(pair[:4] for pair in found[:_SHOWN_PAIRS] if pair[4] < _SHOWN_P)
        if not found or found[0][4] * len(found) * _CORRELATIONS >= self.thresholds.alpha:
            return
        first, second, was, now, _p = found[0]
        text = f"{first!r} and {second!r} go together otherwise: their correlation was {was:.2f} and is {now:.2f}"
        self._say(self._level(abs(now - was) >= 2 * self.thresholds.effect), "drift", None, text)

    def _tell_power(self) -> None:
        if not self.after.rows or not self.before.rows or not self.before.features:
            return
        p = self.thresholds.alpha / _FEATURES / 2 / max(1, len(self.before.features))
        gap = measures.smallest_gap(self.before.rows, self.after.rows, p)
        self.notes.append(
            f"with {self.after.rows:,} rows, a shift of one feature shows from a distance of its distribution "
            f"functions of about {gap:.2f} on (0: the same, 1: nothing in common)"
        )

    # --- performance -----------------------------------------------------------------------------------------------

    def _performance(self, baseline: Baseline | None) -> PerformanceReport | None:
        now = self.after.performance
        if now is None:
            return None
        figure = now.main
        value, error = now.figures[figure], now.spread / math.sqrt(now.count)
        low, high = _wilson(value, now.count) if figure == "accuracy" else (value - 1.96 * error, value + 1.96 * error)
        if baseline is None or baseline.figure != figure:
            self.notes.append(f"there is no {figure} from before to compare with")
            return PerformanceReport(now, figure, value, low, high, None, None, None, "ok")
        p = _worse_p(now, baseline, value)
        return PerformanceReport(now, figure, value, low, high, baseline.value, baseline.name, p, "ok")

    def _judge_performance(self, found: PerformanceReport, tests: int) -> None:
        self.performance = found
        if found.p is None or found.baseline is None:
            return
        p = min(1.0, found.p * _TARGETS * min(3, tests))
        level: Level = "ok"
        if p < self.thresholds.alpha:
            if found.figure == "accuracy":
                is_large = found.baseline - found.value >= self.thresholds.accuracy
            else:
                is_large = found.value - found.baseline >= self.thresholds.error * abs(found.baseline)
            word = "fell" if found.figure == "accuracy" else "grew"
            text = (
                f"{found.figure} {word} from {found.baseline:.4g} ({found.baseline_name}) to {found.value:.4g} "
                f"({found.low:.4g} to {found.high:.4g}) in {found.now.count:,} rows"
            )
            level = self._say(self._level(is_large), "performance", None, text)
        self.performance = replace(found, p=p, level=level)

    def _say(self, level: Level, cause: Any, feature: str | None, text: str) -> Level:
        self.reasons.append(Reason(level, cause, feature, text))
        return level


def _worse_p(now: Performance, baseline: Baseline, value: float) -> float:
    """Return how likely so bad a value is where the truth is as before, one-sided."""
    if baseline.figure == "accuracy":
        return _less_right_p(now.count, value, baseline)
    worse = value - baseline.value
    variance = now.spread**2 / now.count
    if baseline.count is not None:
        variance += baseline.spread**2 / baseline.count
    if worse <= 0:
        return 1.0
    return 0.5 * math.erfc(worse / math.sqrt(2 * variance)) if variance > 0 else 0.0


def _less_right_p(count: int, accuracy: float, baseline: Baseline) -> float:
    """Return p of so few right ones: exact, since good models have few wrong ones, which are far from normal."""
    stats, right = measures.scipy_stats(), round(accuracy * count)
    if baseline.count is None:
        was = 1 - 0.5 / count if baseline.value >= 1 else max(0.0, baseline.value)
        return float(stats.binom.cdf(right, count, was))
    before = round(baseline.value * baseline.count)
    return float(stats.hypergeom.cdf(right, count + baseline.count, right + before, count))


def _wilson(share: float, count: int) -> tuple[float, float]:
    """Return the interval of a share with 95 % confidence.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22(158), 1927.
    """
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def _moved_text(before: Column, after: Column, found: measures.Distance) -> str:
    shown = f"KS {found.statistic:.2f}" if found.test == "ks" else f"distance {found.effect:.2f}"
    figures = f"PSI {found.psi:.2f}, {shown}"
    if after.distinct == 1 and after.counts and (before.distinct is None or before.distinct > 1):
        return f"is always {_listed(list(after.counts))} now ({figures})"
    is_class = before.counts is not None and after.counts is not None and len(before.counts) <= _FEW_CLASSES
    if before.kind == "number" and not is_class and before.mean is not None and after.mean is not None:
        return f"moved from a mean of {before.mean:.4g} to {after.mean:.4g} ({figures})"
    if before.counts and after.counts:
        shares = {
            value: after.counts.get(value, 0) / after.present - before.counts.get(value, 0) / before.present
            for value in {**before.counts, **after.counts}
        }
        value = max(shares, key=lambda one: (abs(shares[one]), one))
        was, now = before.counts.get(value, 0) / before.present, after.counts.get(value, 0) / after.present
        return f"changed: {value!r:.60} in {now:.1%} of the rows, {was:.1%} before ({figures})"
    return f"changed ({figures})"


def correlations(before: Profile, after: Profile) -> list[tuple[str, str, float, float, float]]:
    """Return pairs of features, how they were and are correlated, and p of the change, the smallest first.

    Features that nearly always have the same value are left out: a few rows make their correlations.

    Source: Bonett and Wright, "Sample Size Requirements for Estimating Pearson, Kendall and Spearman Correlations",
    Psychometrika 65(1), 2000.
    """
    names, matrix = before.correlations
    places = {name: place for place, name in enumerate(after.correlations[0])}
    own = [name for name in names if name in places and _varies(before, name) and _varies(after, name)]
    order = {name: place for place, name in enumerate(names)}
    found = []
    for place, first in enumerate(own):
        for second in own[:place]:
            was, now = matrix[order[first]][order[second]], after.correlations[1][places[first]][places[second]]
            if was is None or now is None:
                continue
            apart = math.atanh(min(0.99, max(-0.99, now))) - math.atanh(min(0.99, max(-0.99, was)))
            variance = sum(
                (1 + r * r / 2) / (_pairs(one, first, second) - 3) for one, r in ((before, was), (after, now))
            )
            p = math.erfc(abs(apart) / math.sqrt(2 * variance))
            found.append((second, first, was, now, p))
    return sorted(found, key=lambda pair: (pair[4], -abs(pair[3] - pair[2])))


def _varies(profile: Profile, name: str) -> bool:
    column = profile.columns[name]
    if profile.sampled * (1 - column.missing_share) < 30:
        return False
    return column.counts is None or max(column.counts.values(), default=0) <= _MOST_OF_ONE * column.present


def _pairs(profile: Profile, first: str, second: str) -> float:
    """Return over how many rows a correlation was taken, about."""
    present = (1 - profile.columns[first].missing_share) * (1 - profile.columns[second].missing_share)
    return max(4.0, profile.sampled * present)


def _listed(words: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(f"{word!r:.60}" for word in words[:most])
    return f"{shown} and {len(words) - most} more" if len(words) > most else shown


def baseline_of(reference: Profile, metrics: Mapping[str, float], figure: str) -> Baseline | None:
    """Return how well a version did before: with the reference, else as its run logged it; `None`: nobody knows.

    Args:
        reference: Of the version.
        metrics: Of its manifest.
        figure: `accuracy` or `mae`.
    """
    known = reference.performance
    if known is not None and figure in known.figures:
        name = str(reference.source.get("performance") or reference.source.get("role") or "reference")
        return Baseline(name, known.figures[figure], figure, known.count, known.spread)
    wanted = {"accuracy": ("accuracy", "acc"), "mae": ("mae", "mean_absolute_error")}[figure]
    for split in ("test", "holdout", "val", "validation", "eval", ""):
        for name, value in metrics.items():
            parts = name.lower().replace("_", "/").split("/")
            head, last = parts[0] if len(parts) > 1 else "", "_".join(parts[1:] if len(parts) > 1 else parts)
            if head == split and last in wanted:
                return Baseline(name, float(value), figure)
    return None
