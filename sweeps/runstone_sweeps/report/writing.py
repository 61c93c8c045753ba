"""A sweep as one HTML file that needs nothing beside it and no network."""

from __future__ import annotations

import uuid
from pathlib import Path

from runstone import InvalidValue, RunInfo, Workspace, WorkspaceNotFound
from runstone_sweeps.record import SweepRecord
from runstone_sweeps.report.drawing import Figure
from runstone_sweeps.report.fronts import draw_front, draw_hypervolume
from runstone_sweeps.report.history import draw_curves, draw_history, draw_spending, draw_timeline
from runstone_sweeps.report.page import page_of
from runstone_sweeps.report.parameters import (
    draw_contours,
    draw_edf,
    draw_importance,
    draw_parallel,
    draw_slices,
)
from runstone_sweeps.results.export import best_command
from runstone_sweeps.results.surroundings import find_differences
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.store import SweepFolder
from runstone_sweeps.study import find_importances, pruner_audit

# A forest takes seconds for each thousand trials.
_MOST_FOR_FANOVA = 1_000
_TRACEBACK_LENGTH = 6_000


def write_report(folder: SweepFolder, record: SweepRecord, spec: SweepSpec, output: Path | None = None) -> Path:
    """Write the report of a sweep and return where it lies.

    Args:
        folder: The sweep's files.
        record: What its events say.
        spec: With what it was created.
        output: The file; `report.html` beside the sweep's record if not given.

    Raises:
        OSError: it cannot be written.
    """
    path = (output or folder.path / "report.html").absolute()
    text = render(folder, record, spec)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="replace")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def render(folder: SweepFolder, record: SweepRecord, spec: SweepSpec) -> str:
    """Return the report as HTML."""
    command = ""
    if record.best is not None:
        try:
            command = best_command(spec, record, record.best, folder=folder.path)
        except InvalidValue:  # a Python function: no command line calls it
            command = ""
    return page_of(
        record,
        spec,
        figures=draw_figures(record, spec),
        command=command,
        audit=audit_text(record, spec),
        tracebacks=_tracebacks(folder, record),
        surroundings=find_differences(folder, record),
    )


def draw_figures(record: SweepRecord, spec: SweepSpec) -> list[Figure]:
    """Return the figures of a sweep; what shows one metric is drawn for each of them."""
    found: list[Figure] = []
    if len(spec.metrics) > 1:
        found += [draw_front(record, spec), draw_hypervolume(record, spec)]
    searched = [parameter.name for parameter in spec.space.searched]
    complete = sum(trial.values is not None for trial in record.trials.values())
    for index in range(len(spec.metrics)):
        importances = {"PED-ANOVA": find_importances(spec, record, method="ped_anova", metric=index)}
        is_short = complete <= _MOST_FOR_FANOVA
        importances["fANOVA"] = find_importances(spec, record, method="fanova", metric=index) if is_short else {}
        ranked = list(importances["PED-ANOVA"])
        order = [*(name for name in ranked if name in searched), *(name for name in searched if name not in ranked)]
        found += [
            draw_history(record, spec, index),
            draw_importance(spec, index, importances),
            draw_edf(record, spec, index),
            draw_parallel(record, spec, index, order),
            draw_slices(record, spec, index, order),
            draw_contours(record, spec, index, order),
        ]
    return [*found, draw_curves(record, spec), draw_timeline(record), draw_spending(record, spec)]


def audit_text(record: SweepRecord, spec: SweepSpec) -> str:
    """Return in a sentence what the trials tell of the pruner that ran to their end although it was against them."""
    index = next(place for place, metric in enumerate(spec.metrics) if metric is spec.metric)
    audit = pruner_audit(record, spec.metric, index)
    if not audit.n:
        if spec.audit:
            return "Audit of the pruner: no trial that it decided against has run to its end yet."
        return "The pruner was not audited (`audit: 0.05` lets a part of what it decides against run to its end)."
    low, high = audit.interval
    return (
        f"Audit of the pruner: {audit.n} trials that it decided against ran to their end; {audit.wrong} of them became "
        f"the best ({audit.rate:.0%}, with 95 % confidence {low:.0%} to {high:.0%}), {audit.above_median} were better "
        "than the median of the others."
    )


def _tracebacks(folder: SweepFolder, record: SweepRecord) -> dict[int, str]:
    """Return the traceback of one trial of each kind of failure, as far as its run has one."""
    found: dict[int, str] = {}
    try:
        workspace = Workspace(folder.path.parent.parent)
    except WorkspaceNotFound:  # the folder of the sweep was copied somewhere else, without its runs
        return found
    for _, trials in record.failures()[:20]:
        for trial in trials[:3]:
            path = workspace.find_run_folder(trial.run_id)
            failure = None if path is None else RunInfo(path).failure
            if failure is not None and failure.traceback:
                found[trial.number] = failure.traceback[-_TRACEBACK_LENGTH:]
                break
    return found
