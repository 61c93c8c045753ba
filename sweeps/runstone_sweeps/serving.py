"""What others are told of sweeps: followed records and tables in columns; and how one is steered. Knows no HTTP."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runstone import RunstoneError, Workspace
from runstone_sweeps.environment import process_environment
from runstone_sweeps.follow import RecordFollower
from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.requests import ask, is_python
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.store import SweepFolder, SweepNotFound, Sweeps, recorded_spec, status_of

_ID = re.compile(r"[0-9a-f]{32}")
# Records of so many sweeps stay in memory, those asked for last.
_KEPT = 16
_LONGEST_TEXT = 300
# How long a sweep has to begin, or to say why it does not.
_BEGIN_S = 20.0


class Followed:
    """A sweep whose record is read on where it was left. As a context manager it holds the record still.

    Attributes:
        folder: Its files.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self._follower = RecordFollower(folder.path)
        self._lock = threading.Lock()
        self._spec: tuple[object, SweepSpec] | None = None

    def __enter__(self) -> Self:
        """Take in what is new."""
        self._lock.acquire()
        try:
            self._follower.poll()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others have it."""
        self._lock.release()

    @property
    def record(self) -> SweepRecord:
        """What its events have come to."""
        return self._follower.record

    @property
    def spec(self) -> SweepSpec:
        """Its config as it was last edited."""
        if self._spec is None or self._spec[0] is not self.record.config:
            self._spec = self.record.config, recorded_spec(self.record, is_for_reading=True)
        return self._spec[1]


class Records:
    """The records that were asked for last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, Followed] = OrderedDict()
        self._summaries: dict[Path, tuple[object, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def of(self, workspace: Workspace, sweep_id: str) -> Followed:
        """Return a sweep by its id.

        Raises:
            SweepNotFound: there is none.
        """
        folder = SweepFolder(workspace.path / "sweeps" / sweep_id) if _ID.fullmatch(sweep_id) else None
        if folder is None or not any(folder.path.glob("journal.*.jsonl")):
            raise SweepNotFound(f"there is no sweep with the id {sweep_id!r:.80}")
        with self._lock:
            found = self._kept.setdefault(folder.path, Followed(folder))
            self._kept.move_to_end(folder.path)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def summaries(self, workspace: Workspace) -> list[dict[str, Any]]:
        """Return each sweep in a few words, the newest first; one whose files did not change is not read again."""
        found = []
        for folder in Sweeps(workspace):
            files = sorted((path.name, path.stat().st_size) for path in folder.path.glob("journal.*.jsonl"))
            stand = files, folder.is_running
            known = self._summaries.get(folder.path)
            if known is None or known[0] != stand:
                with self.of(workspace, folder.id) as sweep:
                    known = self._summaries[folder.path] = stand, summary(sweep)
            found.append(known[1])
        return found


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
            {"reason": _cut(reason), "numbers": [trial.number for trial in trials]}
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
        "reason": [_cut(trial.reason) for trial in trials],
    }


def stop(folder: SweepFolder) -> dict[str, Any]:
    """Stop a sweep as one Ctrl-C would."""
    is_running = folder.is_running
    if is_running:
        folder.request_stop()
    return {"id": folder.id, "is_asked": is_running}


def add_trials(folder: SweepFolder, count: int) -> dict[str, Any]:
    """Give a sweep a larger budget of trials.

    Raises:
        RequestRefused: trials are not what limits it, or there is no further point.
    """
    is_done = ask(folder, "more", trials=count)
    return {"id": folder.id, "is_done": is_done, "trials_expected": folder.read().trials_expected}


def resume(workspace: Workspace, folder: SweepFolder) -> dict[str, Any]:
    """Lift the pause of a sweep, or go on with one that does not run, in a process that outlives this one.

    Raises:
        RunstoneError: it did not begin; the message is what it printed last.
    """
    record = folder.read()
    if folder.is_running:
        return {"id": folder.id, "is_done": not record.is_paused or ask(folder, "unpause")}
    if is_python(record):
        raise RunstoneError(f"sweep {record.name} tries a Python function; run the program that began it again")
    before = record.sessions
    log = folder.path / "resume.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "runstone_sweeps.cli", "resume", folder.id, "--workspace", str(workspace.path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=process_environment(),
            start_new_session=True,
        )
    limit = time.monotonic() + _BEGIN_S
    while time.monotonic() < limit and process.poll() is None and folder.read().sessions == before:
        time.sleep(0.1)
    code = process.poll()
    if code is None:  # it leaves no zombie where this process lives on
        threading.Thread(target=process.wait, daemon=True).start()
    elif code and folder.read().sessions == before:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise RunstoneError(f"sweep {record.name} did not begin: {_cut(lines[-1]) if lines else f'exit code {code}'}")
    return {"id": folder.id, "is_done": True}


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


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= _LONGEST_TEXT:
        return text
    return text[: _LONGEST_TEXT - 1] + "…"
