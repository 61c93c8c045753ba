"""A batch against a reference: what is found, what is not, and what batches that are no good come to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from runstone.errors import InvalidValue
from runstone.monitoring import Reference, Report, Thresholds, checking, compare, measures, profile_rows
from runstone.monitoring import reference as references
from runstone.monitoring.performance import PerformanceMeter
from runstone.monitoring.profile import Performance
from runstone.monitoring.tables import rows_of
from tests.monitoring.made import COLUMNS, LABEL, patients
from tests.monitoring.shifts import SETS, SHIFTS, tally

IS_SOAK = bool(os.environ.get("RUNSTONE_SOAK"))


def against(change: Callable[[pd.DataFrame], object], *, rows: int = 500, **options: object) -> Report:
    """Compare a changed batch with rows of the same kind."""
    reference = patients(1000, 1)
    reference["group"] = np.where(reference["mean radius"] > 14, "large", "small")
    batch = patients(rows, 2)
    batch["group"] = np.where(batch["mean radius"] > 14, "large", "small")
    return compare(Reference(reference, labels=LABEL), change(batch), labels=LABEL, **options)  # type: ignore[arg-type]


# --- known shifts on real data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", SETS)
def test_a_planted_shift_is_found_at_500_rows(name: str, shift: str) -> None:
    batches = 20 if IS_SOAK else 1
    assert tally(name, shift, batches).found == batches


@pytest.mark.parametrize("name", SETS)
def test_few_batches_without_a_shift_are_taken_for_one(name: str) -> None:
    batches = 200 if IS_SOAK else 8
    assert tally(name, None, batches).found <= max(1, 0.05 * batches)  # of a few, one may be


# --- verdicts --------------------------------------------------------------------------------------------------------


def test_what_is_as_before_is_ok() -> None:
    found = against(lambda batch: batch)
    assert (found.verdict, found.reasons) == ("ok", ())
    assert found.classifier is not None
    assert found.classifier.low < 0.5 < found.classifier.high + 0.05
    assert found.headline == "the reference: ok, nothing has changed in 500 rows"


def test_a_reason_names_the_column_and_what_happened_to_it() -> None:
    found = against(lambda batch: batch.assign(**{"mean texture": batch["mean texture"] * 2}))
    assert found.verdict == "drift"
    assert found.reasons[0].feature == "mean texture"
    assert "moved from a mean of 19" in found.reasons[0].text
    assert found.features[0].name == "mean texture"
    assert found.features[0].distance is not None
    assert found.features[0].distance.psi > 0.25


def test_a_column_that_is_missing_is_an_error() -> None:
    found = against(lambda batch: batch.drop(columns="worst area"))
    assert found.verdict == "error"
    assert found.reasons[0].text == "column 'worst area' is missing"
    assert found.cause == "schema"


def test_text_where_numbers_were_is_an_error() -> None:
    found = against(lambda batch: batch.assign(**{"worst area": "large"}))
    assert found.verdict == "error"
    assert "'worst area' has text" in found.reasons[0].text


def test_a_column_without_any_value_is_an_error() -> None:
    found = against(lambda batch: batch.assign(**{"worst area": np.nan}))
    assert found.verdict == "error"
    assert found.reasons[0].text == "'worst area' has no value in any row"
    found = against(lambda batch: batch.assign(group=None))
    assert [(one.level, one.feature) for one in found.reasons if one.cause == "schema"] == [("error", "group")]


def test_a_column_that_hangs_is_drift() -> None:
    found = against(lambda batch: batch.assign(**{"worst area": 700.0}))
    assert found.verdict == "drift"
    assert "is always '700' now" in " ".join(one.text for one in found.reasons)


def test_unseen_categories_are_named() -> None:
    found = against(lambda batch: batch.assign(group=["huge" if row % 25 == 0 else "small" for row in range(500)]))
    texts = [one.text for one in found.reasons if one.feature == "group"]
    assert any("were not there before in 4.0% of the rows: 'huge'" in text for text in texts)


def test_one_row_and_no_row_get_a_clear_verdict() -> None:
    found = against(lambda batch: batch.head(1))
    assert found.verdict == "warning"
    assert found.reasons[0].text == "1 row is too few to judge distributions by: 20 are asked for"
    found = against(lambda batch: batch.head(0))
    assert found.verdict == "error"
    assert found.reasons[0].text == "the batch has no rows"
    wild = against(lambda batch: batch.head(1).assign(**{"mean radius": 1e9}))
    assert wild.verdict == "warning"


def test_a_sure_but_tiny_change_of_many_rows_is_no_drift() -> None:
    draw = np.random.default_rng(0)
    before = {"a": draw.normal(size=200_000)}
    after = {"a": draw.normal(loc=0.03, size=200_000)}
    found = compare(before, after)
    assert found.verdict == "warning"
    assert found.features[0].p_adjusted is not None
    assert found.features[0].p_adjusted < 1e-4


def test_infinite_values_and_columns_of_the_reference_that_never_varied_do_no_harm() -> None:
    before = {"a": np.r_[np.zeros(300), np.inf], "b": np.ones(301)}
    assert compare(before, {"a": np.zeros(300), "b": np.ones(300)}).verdict == "ok"
    assert compare(before, {"a": np.zeros(300), "b": np.full(300, 2.0)}).verdict == "drift"


def test_columns_that_are_new_are_told_and_not_judged() -> None:
    found = against(lambda batch: batch.assign(extra=1))
    assert found.verdict == "ok"
    assert any("'extra'" in note for note in found.notes)


def test_integers_of_a_csv_are_the_categories_that_they_were() -> None:
    before = {"code": np.array(["1", "2", "3"] * 100)}
    found = compare(before, {"code": np.array([1, 2, 3] * 100)})
    assert found.verdict == "ok"


def test_thresholds_are_the_users() -> None:
    strict = against(lambda batch: batch, rows=500, thresholds=Thresholds(alpha=0.999999, effect=0.0))
    assert strict.verdict == "drift"


# --- labels and performance ------------------------------------------------------------------------------------------


def judged(accuracy: float, rows: int = 500) -> Report:
    reference = patients(1000, 1)
    reference["said"] = np.where(np.arange(1000) % 20 == 0, 1 - reference[LABEL], reference[LABEL])  # 95 % are right
    batch = patients(rows, 2)
    draw = np.random.default_rng(3)
    batch["said"] = np.where(draw.random(rows) > accuracy, 1 - batch[LABEL], batch[LABEL])
    before = references.profile_reference(Reference(reference, LABEL, "said", role="test"), None)
    after = profile_rows(rows_of(batch), label=LABEL, prediction="said", expected=before.columns)
    baseline = checking.baseline_of(before, {}, "accuracy")
    return checking.compare_profiles(before, after, baseline=baseline)


def test_a_model_that_does_as_well_as_before_is_ok() -> None:
    found = judged(0.95)
    assert found.verdict == "ok"
    assert found.performance is not None
    assert found.performance.baseline == pytest.approx(0.95)
    assert found.performance.low < 0.95 < found.performance.high


def test_a_loss_of_accuracy_is_told_with_its_interval() -> None:
    found = judged(0.85)
    assert found.verdict == "drift"
    assert found.cause == "performance"
    assert "accuracy fell from 0.95 (test)" in found.reasons[0].text


def test_metrics_of_the_run_are_the_baseline_where_nothing_else_is_known() -> None:
    profile = profile_rows(rows_of(patients(50, 1)))
    found = checking.baseline_of(profile, {"train/acc": 0.99, "val/acc": 0.9, "test_accuracy": 0.88}, "accuracy")
    assert found is not None
    assert (found.name, found.value) == ("test_accuracy", 0.88)
    assert checking.baseline_of(profile, {"train/acc": 0.99}, "accuracy") is None


def test_regressions_and_scores_are_told_apart() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(size=400)
    meter = PerformanceMeter(None)
    meter.add(pa.array(truth), pa.array(truth + draw.normal(scale=0.1, size=400)))
    regression = meter.performance([], [])
    assert regression is not None
    assert regression.task == "regression"
    assert regression.figures["r2"] > 0.95
    labels = (draw.random(400) < 0.5).astype(float)
    scores = np.clip(0.5 * labels + 0.5 * draw.random(400), 0, 1)
    meter = PerformanceMeter(None)
    meter.add(pa.array(labels), pa.array(scores))
    found = meter.performance(labels.tolist(), scores.tolist())
    assert found is not None
    assert found.task == "scores"
    assert found.figures["auc"] == pytest.approx(roc_auc_score(labels, scores))
    with pytest.raises(InvalidValue, match="must be one of"):
        PerformanceMeter("ranking")


# --- figures against those of others ---------------------------------------------------------------------------------


def test_distances_are_those_of_scipy() -> None:
    from scipy import stats

    draw = np.random.default_rng(4)
    one, other = draw.normal(size=800), draw.normal(0.2, 1.2, size=500)
    before, after = (profile_rows(rows_of({"a": values})).columns["a"] for values in (one, other))
    found = measures.distance(before, after)
    assert found is not None
    exact = stats.ks_2samp(one, other, method="asymp")
    assert found.statistic == pytest.approx(exact.statistic, abs=0.002)
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(one, other) / one.std(ddof=1), rel=0.01)
    ranks = stats.mannwhitneyu(other, one, use_continuity=False).pvalue
    assert found.p == pytest.approx(2 * min(exact.pvalue, ranks), rel=0.25)


def test_categories_are_compared_as_scipy_does() -> None:
    from scipy import stats

    before = profile_rows(rows_of({"a": np.array(["x"] * 300 + ["y"] * 200 + ["z"] * 100)})).columns["a"]
    after = profile_rows(rows_of({"a": np.array(["x"] * 100 + ["y"] * 100 + ["z"] * 100)})).columns["a"]
    found = measures.distance(before, after)
    assert found is not None
    exact = stats.chi2_contingency([[300, 200, 100], [100, 100, 100]], correction=False)
    assert found.statistic == pytest.approx(exact.statistic)
    assert found.p == pytest.approx(exact.pvalue)
    assert found.effect == pytest.approx(1 / 2 - 1 / 3)


def false_alarms(reference: np.ndarray, draw_batch: Callable[[], np.ndarray], *, limit: float) -> float:  # type: ignore[type-arg]
    """Return the share of 300 batches without a shift whose p, of distance or of unseen values, is below a limit."""
    before = profile_rows(rows_of({"a": reference})).columns["a"]
    count = 0
    for _ in range(300):
        after = profile_rows(rows_of({"a": draw_batch()}), expected={"a": before}).columns["a"]
        found = measures.distance(before, after)
        assert found is not None
        new = sum(measures.unseen(before, after).values()) if before.kind == "category" else 0
        count += min(found.p, measures.unseen_p(before, after, new) if new else 1.0) < limit
    return count / 300


def test_values_that_are_rare_make_no_false_alarms_in_small_batches() -> None:
    draw = np.random.default_rng(5)

    def nearly_zero(rows: int) -> np.ndarray:  # type: ignore[type-arg]
        return np.where(draw.random(rows) < 0.0005, draw.exponential(size=rows), 0.0)

    def long_tail(rows: int) -> np.ndarray:  # type: ignore[type-arg]
        return np.where(draw.random(rows) < 0.0005, draw.integers(0, 40, rows), 0).astype(str)

    def counts(rows: int) -> np.ndarray:  # type: ignore[type-arg]
        return draw.poisson(0.0005, rows).astype(float)

    for sort in (nearly_zero, long_tail, counts):
        share = false_alarms(sort(20_000), lambda sort=sort: sort(100), limit=0.001)  # type: ignore[misc]
        assert share <= 0.01, f"{sort.__name__}: {share:.1%} of batches have a p below 0.1 %"


def test_shares_of_millions_of_rows_are_compared_as_fisher_does() -> None:
    from scipy import stats

    for one, of, other, other_of in ((3, 200_000, 2, 100), (1, 150_000, 4, 400), (90_000, 100_000, 9, 20)):
        exact = stats.fisher_exact([[one, of - one], [other, other_of - other]]).pvalue
        assert measures.share_p(one, of, other, other_of) == pytest.approx(exact, rel=0.1), (one, of, other, other_of)


def test_a_category_that_a_small_reference_missed_is_no_sure_sign() -> None:
    before = profile_rows(rows_of({"a": np.array(["x", "y"] * 50)})).columns["a"]
    after = profile_rows(rows_of({"a": np.array(["x"] * 9_700 + ["z"] * 300)})).columns["a"]
    assert measures.unseen_p(before, after, 300) == pytest.approx((10_000 / 10_100) ** 300, abs=0.01)


def test_a_few_errors_more_of_a_good_model_are_judged_exactly() -> None:
    from scipy import stats

    now = Performance("classification", 20, {"accuracy": 0.9}, 0.3)
    base = checking.Baseline("test", 0.99, "accuracy", 5_000, 0.1)
    p = checking._worse_p(now, base, 0.9)
    assert p == pytest.approx(stats.fisher_exact([[18, 2], [4_950, 50]], alternative="less").pvalue)
    assert p > 0.01, "the normal approximation says 0.00004"
    unknown = checking._worse_p(now, checking.Baseline("val/acc", 0.99, "accuracy"), 0.9)
    assert unknown == pytest.approx(stats.binomtest(18, 20, 0.99, alternative="less").pvalue)


# --- reports ---------------------------------------------------------------------------------------------------------


def test_reports_hold_what_was_found_and_nothing_that_a_name_smuggles_in() -> None:
    evil = "<script>alert(1)</script>|`x`"
    before = {evil: np.arange(300.0), "group": np.array(["<b>", "c"] * 150)}
    found = compare(before, {evil: np.arange(300.0) + 200, "group": np.array(["<b>", "new|"] * 150)})
    page, text = found.to_html(), found.to_markdown()
    assert "<script>" not in page
    assert "<b>c" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "\\<script\\>" in text
    assert page.count("<svg") == 2
    assert found.to_dict()["features"][0]["bars"]["after"]


def test_a_page_of_many_columns_stays_small() -> None:
    data = {f"c{place}": np.random.default_rng(place).normal(size=60) for place in range(300)}
    found = compare(data, data)
    assert len(found.to_html()) < 3_000_000
    assert COLUMNS


@pytest.mark.soak
@pytest.mark.skipif(not IS_SOAK, reason="ten million rows; RUNSTONE_SOAK=1")
def test_ten_million_rows_are_streamed(tmp_path: Path) -> None:
    import resource

    import pyarrow.parquet as pq

    draw = np.random.default_rng(0)
    with pq.ParquetWriter(tmp_path / "large.parquet", pa.schema([("a", pa.float64())])) as writer:
        for _ in range(100):
            writer.write_table(pa.table({"a": draw.normal(size=100_000)}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = compare({"a": draw.normal(size=5_000)}, tmp_path / "large.parquet")
    assert (found.rows, found.verdict) == (10_000_000, "ok")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10
