"""What others are told of a sweep: in a few words, in detail, and its trials in columns."""

from __future__ import annotations

import json
import math
import time
from typing import Any

from runstone_sweeps.record import TrialRecord, TrialState
from runstone_sweeps.store import status_of
from runstone_sweeps.store.followed import Followed
from runstone_sweeps.store.requests import is_python

_LONGEST_TEXT = 300


def summary(sweep: Followed) -> dict[str, Any]:
    """Return a sweep in a few words."""
    record = sweep.record
    best = record.best
    return {
        "id": record.sweep_id,
        "name": record.name,
        "status": status_of(sweep.folder, record),
        "trials": {"expected": record.trials_expected, **{str(state): n for state, n in record.counts.items()}},
        "metrics": record.metrics,
        "best": None if best is None else _best(best),
        "sampler": record.created.get("sampler"),
        "started_at": record.created.get("at"),
        "active_s": record.active_s,
        "last_at": record.last_at,
    }


def details(sweep: Followed) -> dict[str, Any]:
    """Return where a sweep stands."""
    record, spec = sweep.record, sweep.spec
    is_running = sweep.folder.is_running
    is_working = is_running and not (record.is_paused and not record.counts[TrialState.RUNNING])
    now_s = record.active_s + (max(0.0, time.time() - record.last_at) if is_working else 0.0)
    forecast, usage = record.forecast(now_s=now_s), record.usage
    return {
        **summary(sweep),
        "seq": record.next_seq,
        "config": record.config,
        "goal": spec.metrics[0].goal,
        "pruned_by": spec.metric.name if spec.pruner.name != "none" else None,
        "pruner": spec.pruner.name,
        "parameters": [
            {"name": parameter.name, "is_searched": parameter.name in {one.name for one in spec.space.searched}}
            for parameter in spec.space
        ],
        "parallel": record.parallel,
        "timeout_s": record.timeout_s,
        "is_paused": record.is_paused,
        "is_finished": record.is_finished,
        "ended_because": None if is_running else record.closed,
        "can_resume": not is_running and not is_python(record),
        "front": [trial.number for trial in record.front()] if len(spec.metrics) > 1 else [],
        "forecast": {
            "left_s": forecast.left_s,
            "trials_per_hour": forecast.trials_per_hour,
            "gain_per_hour": forecast.gain_per_hour,
        },
        "active_s": now_s,
        "usage": {
            "gpu_s": usage.gpu_s,
            "cpu_s": usage.cpu_s,
            "trial_s": usage.wall_s,
            "energy_j": usage.energy_j,
            "max_rss_bytes": usage.max_rss_bytes,
        },
        "spending": [{"name": name, "used": used, "limit": limit} for name, used, limit in record.spending()],
        "failures": [
            {"reason": cut(reason), "numbers": [trial.number for trial in trials]}
            for reason, trials in record.failures()
        ],
        "unreadable_events": record.unknown,
    }


def table(sweep: Followed, *, after: int = -1) -> dict[str, Any]:
    """Return all trials in columns; without them where no event came after `seq` of an earlier answer."""
    record = sweep.record
    told: dict[str, Any] = {"seq": record.next_seq, "is_unchanged": after == record.next_seq}
    if told["is_unchanged"]:
        return told
    trials = list(record.trials.values())
    ranks = {trial.number: rank for rank, trial in enumerate(record.ranked(), 1)}
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    metrics = [str(metric["name"]) for metric in record.metrics]
    values = [_values(trial) for trial in trials]
    return {
        **told,
        "number": [trial.number for trial in trials],
        "run_id": [trial.run_id for trial in trials],
        "state": [str(trial.state) for trial in trials],
        "rank": [ranks.get(trial.number) for trial in trials],
        "params": {name: [trial.params.get(name) for trial in trials] for name in names},
        "values": {
            metric: [None if one is None or place >= len(one) else one[place] for one in values]
            for place, metric in enumerate(metrics)
        },
        "is_feasible": [trial.is_feasible for trial in trials],
        "spread": [trial.spread for trial in trials],
        "last_step": [max(trial.reports, default=None) for trial in trials],
        "started_at": [trial.started_at for trial in trials],
        "duration_s": [trial.duration_s for trial in trials],
        "attempts": [trial.attempts for trial in trials],
        "host": [trial.runs[0].host if trial.runs else None for trial in trials],
        "same_as": [trial.same_as for trial in trials],
        "reason": [cut(trial.reason) for trial in trials],
    }


def dumps(value: Any) -> bytes:
    """Return a value as JSON; what JSON lacks is text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:  # rare, so that the fast way is tried first
        text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _best(trial: TrialRecord) -> dict[str, Any]:
    return {
        "number": trial.number,
        "run_id": trial.run_id,
        "value": trial.value,
        "values": list(_values(trial) or ()),
        "params": trial.params,
        "spread": trial.spread,
    }


def _values(trial: TrialRecord) -> tuple[float, ...] | None:
    """Return the results in the order of the metrics; of a pruned trial its last report."""
    if trial.values is not None:
        return trial.values
    return None if trial.value is None else (trial.value,)


def cut(text: str | None) -> str | None:
    """Return a text, or as much of it as a table has room for."""
    if text is None or len(text) <= _LONGEST_TEXT:
        return text
    return text[: _LONGEST_TEXT - 1] + "…"
