"""What a sweep found, in forms that other programs take: rows of trials, and the best one as a command or a config."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runstone import InvalidValue
from runstone_sweeps.environment import process_environment
from runstone_sweeps.record import SweepRecord, TrialRecord
from runstone_sweeps.record.journal import json_number
from runstone_sweeps.space import nest
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.spec.command import build_command, uses_json_file

Row = dict[str, Any]
# What a config for one run keeps of that of the sweep; the rest says how to search.
_RUN_KEYS = ("name", "project", "function", "env", "metric", "metrics", "gpus", "devices", "cpus", "memory", "grace")


def trial_rows(record: SweepRecord, spec: SweepSpec) -> Iterator[Row]:
    """Yield one flat row for each trial, all with the same columns, in the order of their numbers.

    Parameters are `params.NAME`, results `metrics.NAME`, what a constraint is broken by `constraints.NAME`; what a
    trial does not have is `None`. Times are aware datetimes, UTC.
    """
    names = list(dict.fromkeys(name for trial in record.trials.values() for name in trial.params))
    ranks = {trial.number: rank for rank, trial in enumerate(record.ranked(), 1)}
    front = {trial.number for trial in record.front()}
    for trial in record.trials.values():
        usage = trial.usage
        yield {
            "number": trial.number,
            "state": str(trial.state),
            "rank": ranks.get(trial.number),
            "is_best": trial.number in front,
            "is_feasible": trial.is_feasible,
            **_named("metrics", [m.name for m in spec.metrics], _values(trial)),
            "spread": trial.spread,
            **_named("constraints", [bound.metric for bound in spec.constraints], trial.constraints),
            **{f"params.{name}": trial.params.get(name) for name in names},
            "replicates": len(trial.runs),
            "same_as": trial.same_as,
            "is_audited": trial.is_audited,
            "prune_step": trial.prune_step,
            "attempts": trial.attempts,
            "started_at": _time(trial.started_at),
            "ended_at": _time(trial.ended_at),
            "duration_s": trial.duration_s,
            "gpu_s": usage.gpu_s,
            "cpu_s": usage.cpu_s,
            "energy_j": usage.energy_j,
            "max_rss_bytes": usage.max_rss_bytes,
            "reason": trial.reason,
            "run_id": trial.run_id,
        }


def to_csv(record: SweepRecord, spec: SweepSpec) -> str:
    """Return the trials as CSV (RFC 4180); lists and objects as JSON, times as ISO 8601."""
    written = io.StringIO()
    rows = list(trial_rows(record, spec))
    writer = csv.DictWriter(written, rows[0] if rows else ["number"])
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return written.getvalue()


def to_json(record: SweepRecord, spec: SweepSpec) -> Row:
    """Return the sweep as one JSON object: what it is, its best trials, and all trials.

    A number that JSON lacks is text, such as `"nan"`.
    """
    return {
        "id": record.sweep_id,
        "name": record.name,
        "metrics": [{"name": metric.name, "goal": metric.goal} for metric in spec.metrics],
        "seed": record.created.get("seed"),
        "config": record.config,
        "active_s": record.active_s,
        "best": [trial.number for trial in record.front()],
        "trials": list(whole_trials(record, spec)),
    }


def whole_trials(record: SweepRecord, spec: SweepSpec) -> Iterator[Row]:
    """Yield each trial as a JSON object with all that is recorded of it: reports and replicates too."""
    ranks = {trial.number: rank for rank, trial in enumerate(record.ranked(), 1)}
    for trial in record.trials.values():
        yield {
            "number": trial.number,
            "state": str(trial.state),
            "rank": ranks.get(trial.number),
            "params": nest(trial.params),
            "values": {m.name: json_number(v) for m, v in zip(spec.metrics, _values(trial), strict=False)},
            "constraints": [
                {"metric": bound.metric, "violation": json_number(violation)}
                for bound, violation in zip(spec.constraints, trial.constraints, strict=False)
            ],
            "is_feasible": trial.is_feasible,
            "reports": [[step, json_number(value)] for step, value in sorted(trial.reports.items())],
            "spread": trial.spread,
            "same_as": trial.same_as,
            "is_audited": trial.is_audited,
            "prune_step": trial.prune_step,
            "reason": trial.reason,
            "asked_at": _iso(trial.asked_at),
            "started_at": _iso(trial.started_at),
            "ended_at": _iso(trial.ended_at),
            "usage": trial.usage.to_json(),
            "runs": [
                {
                    "run_id": run.run_id,
                    "state": str(run.state),
                    "values": None if run.values is None else [json_number(value) for value in run.values],
                    "attempts": run.attempts,
                    "host": run.host,
                    "gpus": run.gpus,
                }
                for run in trial.runs
            ],
        }


def write_parquet(record: SweepRecord, spec: SweepSpec, path: Path) -> None:
    """Write the trials as a Parquet file: the rows of `trial_rows`; a parameter of mixed kinds is JSON text.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow as pa  # slow, only for this
    import pyarrow.parquet as pq

    rows = list(trial_rows(record, spec))
    columns: dict[str, Any] = {}
    for name in rows[0] if rows else ("number",):
        values = [row[name] for row in rows]
        kinds = {type(value) for value in values} - {type(None)}
        if not kinds <= {int, float} and (len(kinds) > 1 or kinds & {list, dict}):
            values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        columns[name] = pa.array(values, from_pandas=False, **({} if kinds != {int, float} else {"type": pa.float64()}))
    pq.write_table(pa.table(columns), path)


def best_command(spec: SweepSpec, record: SweepRecord, trial: TrialRecord, *, folder: Path) -> str:
    """Return a line for a POSIX shell that runs a trial's program again, as a run of its own.

    It has the very words with which the trial was started, its params and seed, and the variables of the config.

    Args:
        spec: The config.
        record: The sweep.
        trial: Which trial.
        folder: The sweep's files.

    Raises:
        InvalidValue: the sweep tries a Python function that only its own program knows.
    """
    from runstone_sweeps.study.seeds import derive_seed  # imports Optuna

    if spec.script is None and spec.command is None and spec.function is None:
        raise InvalidValue(f"sweep {record.name} tries a Python function; the program that began it can call that")
    json_file = folder / f"params.{trial.number}.json" if uses_json_file(spec.command) else None
    words = build_command(
        trial.params,
        script=spec.script,
        command=spec.command,
        function=spec.function,
        metric=spec.metrics[0].name,
        environment=process_environment(),
        json_file=json_file,
    )
    seed = derive_seed(int(record.created.get("seed", 0)), "trial", trial.number)
    variables = {
        **spec.env,
        **({"RUNSTONE_PROJECT": spec.project} if spec.project else {}),
        "RUNSTONE_SEED": str(seed),
        "RUNSTONE_TRIAL": json.dumps(nest(trial.params), ensure_ascii=False),
    }
    told = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"cd {shlex.quote(str(spec.working_dir))} && {told} {shlex.join(words)}"


def best_config(spec: SweepSpec, record: SweepRecord, trial: TrialRecord) -> Row:
    """Return a config with which `sweep run` runs one trial's point once: every parameter is a constant.

    Paths in it are absolute, so that it may lie anywhere.
    """
    raw = record.config or spec.raw
    config: Row = {key: raw[key] for key in _RUN_KEYS if key in raw}
    config["name"] = f"{record.name}-best"
    if spec.script is not None:
        script = spec.working_dir / spec.script
        config["script"] = str(script) if "/" in spec.script or script.is_file() else spec.script
    if spec.command is not None:
        config["command"] = list(spec.command)
    config["working_dir"] = str(spec.working_dir)
    config.setdefault("metrics", [{"name": m.name, "goal": m.goal, "value": m.value} for m in spec.metrics])
    config.pop("metric", None)
    if len(spec.metrics) == 1:
        config["metric"] = config.pop("metrics")[0]
    config["parameters"] = {name: {"value": value} for name, value in trial.params.items()}
    config.update(trials=1, sampler="random", pruner="none")
    if "seed" in record.created:
        config["seed"] = record.created["seed"]
    return config


def _named(prefix: str, names: list[str], values: Any) -> Row:
    padded = [*values, *([None] * len(names))]
    return {f"{prefix}.{name}": value for name, value in zip(names, padded, strict=False)}


def _values(trial: TrialRecord) -> tuple[float, ...]:
    return trial.values or (() if trial.value is None else (trial.value,))


def _time(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


def _iso(at: float | None) -> str | None:
    time = _time(at)
    return None if time is None else time.isoformat()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (list, Mapping)):
        return json.dumps(value, ensure_ascii=False)
    return value
