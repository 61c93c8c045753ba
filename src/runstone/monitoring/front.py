"""The doors of monitoring: check a batch against a version, with all that follows from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from runstone.models import ModelVersion, read_manifest
from runstone.models.operation import Incident
from runstone.monitoring.batches import Batch
from runstone.monitoring.checking import baseline_of, compare_profiles
from runstone.monitoring.configfile import Watching, read_watching
from runstone.monitoring.incidents import Started, open_incident
from runstone.monitoring.profile import Profile
from runstone.monitoring.profiling import profile_rows
from runstone.monitoring.records import Check, note_check
from runstone.monitoring.reference import NoProfile, Reference, joined, profile_of, profile_reference
from runstone.monitoring.report import Level, Reason, Report, Thresholds
from runstone.monitoring.tables import LOG, of_version, rows_of
from runstone.workspace import Workspace, open_workspace


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a check.

    Attributes:
        report: What it found.
        check: As it is kept; `None` where nothing is recorded.
        incident: The incident that is open for it, a new one or that of before; `None` where none is needed.
        is_new: Whether it was opened by this check.
        started: What was done about it.
    """

    report: Report
    check: Check | None = None
    incident: Incident | None = None
    is_new: bool = False
    started: tuple[Started, ...] = ()

    @property
    def verdict(self) -> Level:
        """The verdict of the report."""
        return self.report.verdict


def check(
    ref: str,
    data: Any,
    *,
    labels: Any = None,
    predictions: Any = None,
    ignore: Sequence[str] | None = None,
    task: str | None = None,
    thresholds: Thresholds | None = None,
    workspace: str | Path | Workspace | None = None,
    is_dry: bool = False,
) -> Outcome:
    """Compare a batch with what a version was registered with, keep what was found, and act on it.

    Args:
        ref: The version, such as `credit-risk@production`.
        data: A path (CSV, Parquet, JSON lines, Arrow, .npy, or a folder), a table, or an array. It is read once, in
            memory that does not grow with it.
        labels: The truth, where it is known: a column, a file (with `:COLUMN`), or values.
        predictions: What the model said, likewise.
        ignore: Columns that are no features.
        task: `classification`, `scores` or `regression`; default: by the values.
        thresholds: From when on something counts. What is not given stands in `monitoring.yaml`.
        workspace: Where the version is; default: as `open_workspace`.
        is_dry: Only look: record nothing, open no incident, start nothing.

    Returns:
        The report with its verdict, and what was done.

    Raises:
        ModelNotFound: there is no such version.
        NoProfile: it has nothing to compare with.
        NoTable, NotFound, InvalidValue: the data cannot be read.
        InvalidConfig: SciPy or scikit-learn is missing, or `monitoring.yaml` has mistakes.
    """
    home = workspace if isinstance(workspace, Workspace) else open_workspace(workspace)
    version = home.models.find(ref)
    watching = read_watching(home.path, version.model)
    report = look(
        home, version, watching, data,
        labels=labels, predictions=predictions, ignore=ignore, task=task, thresholds=thresholds,
    )  # fmt: skip
    return Outcome(report) if is_dry else act(home, report, watching)


def compare(before: Any, after: Any, *, labels: str | None = None, thresholds: Thresholds | None = None) -> Report:
    """Compare two sets of rows, without any model.

    Args:
        before: The reference: data as for `check`, a `Reference`, or a `Profile`.
        after: The batch; data, or a `Profile`, such as that of a batch that was checked (`read_batch`).
        labels: Column with the labels of the batch.
        thresholds: From when on something counts.

    Raises:
        NoTable, NotFound, InvalidValue: data cannot be read.
        InvalidConfig: SciPy or scikit-learn is missing.
    """
    if not isinstance(before, Profile):
        given = before if isinstance(before, Reference) else Reference(before, labels=labels)
        before = profile_reference(given, None)
    if isinstance(after, Profile):
        return compare_profiles(before, after, thresholds=thresholds)
    rows = rows_of(after)
    label = labels if labels is not None else before.label
    there = rows.tables[0].schema().names
    found = profile_rows(rows, label=label if label in there else None, expected=before.columns)
    return compare_profiles(before, found, thresholds=thresholds, data=rows.name)


def look(
    workspace: Workspace,
    version: ModelVersion,
    watching: Watching,
    data: Any,
    *,
    labels: Any = None,
    predictions: Any = None,
    ignore: Sequence[str] | None = None,
    task: str | None = None,
    thresholds: Thresholds | None = None,
    keeps: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None,
    is_labels_only: bool = False,
) -> Report:
    """Return what a batch is like, without any consequence; as `check`.

    Args:
        keeps: Chooses the rows that count; default: of a prediction log those of the version.
        is_labels_only: Leave features alone: only labels, predictions and performance are judged. A version without a
            profile is held against what its run logged.
    """
    try:
        before = profile_of(workspace, version)
    except NoProfile:
        if not is_labels_only:
            raise
        before = Profile(0, {}, ())
    rows = rows_of(data)
    first = next(rows.batches(), None)
    there = set(first.schema.names if first is not None else rows.tables[0].schema().names)
    given = [labels, predictions]
    known = (
        (watching.labels, before.label, f"{LOG}label"),
        (watching.predictions, before.prediction, f"{LOG}prediction"),
    )
    for place, words in enumerate(known):
        if given[place] is None:
            given[place] = next((word for word in words if word in there), None)
    if keeps is None and f"{LOG}version" in there:
        keeps = of_version(str(version.version))
    rows, label, prediction = joined(rows, given[0], given[1], "label", "prediction")
    if label is not None and label != before.label and label in before.features:  # it was taken for a feature
        before = _with_label(before, label)
    expected = dict(before.columns)
    for own, other in ((label, before.label), (prediction, before.prediction)):
        if own is not None and other is not None and other in before.columns:
            expected[own] = before.columns[other]
    after = profile_rows(
        rows,
        label=label,
        prediction=prediction,
        ignore=tuple(ignore if ignore is not None else watching.ignore),
        expected=expected,
        task=task or watching.task or (before.performance.task if before.performance is not None else None),
        keeps=keeps,
    )
    batch = Batch(after, tuple(ignore if ignore is not None else watching.ignore), is_labels_only)
    baseline = None
    if after.performance is not None:
        metrics = read_manifest(version, workspace.blobs).metrics
        baseline = baseline_of(before, metrics, after.performance.main)
    return compare_batch(
        before,
        batch,
        thresholds=thresholds or watching.thresholds,
        baseline=baseline,
        data=rows.name,
        model=version.model,
        version=str(version.version),
    )


def compare_batch(before: Profile, batch: Batch, **options: Any) -> Report:
    """Return how a batch differs from a reference, and keep the batch with that.

    Args:
        before: The reference.
        batch: The batch, with what is no feature of it.
        options: As of `compare_profiles`.
    """
    after = batch.profile
    if after.label is not None and after.label != before.label and after.label in before.features:
        before = _with_label(before, after.label)  # it was taken for a feature
    before = _without(before, before.features if batch.is_labels_only else batch.ignore)
    return replace(compare_profiles(before, after, **options), batch=batch)


def unreadable(version: ModelVersion, data: str, problem: str, thresholds: Thresholds) -> Report:
    """Return what is said of a batch that cannot be read."""
    return Report(
        "error", (Reason("error", "schema", None, f"{data} cannot be judged: {problem}"),), data, 0, {"rows": 0},
        version.model, str(version.version), time.time(), (), None, None, (), (), thresholds,
    )  # fmt: skip


def act(workspace: Workspace, report: Report, watching: Watching) -> Outcome:
    """Do what follows from a report: open an incident, start what is to be done about it, and keep the report."""
    before = time.time()
    incident, started = open_incident(workspace, report, watching)
    is_new = incident is not None and incident.opened_at >= before
    number = incident.number if incident is not None else None
    kept = note_check(workspace.path, report, incident=number, sample_rows=watching.sample_rows)
    return Outcome(report, kept, incident, is_new, tuple(started))


def _with_label(profile: Profile, label: str) -> Profile:
    return replace(profile, label=label, features=tuple(one for one in profile.features if one != label))


def _without(profile: Profile, ignore: Sequence[str]) -> Profile:
    return replace(profile, features=tuple(one for one in profile.features if one not in ignore))
