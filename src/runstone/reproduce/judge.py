"""Whether a run came out as an earlier one did, metric by metric. Knows series and statistics; starts nothing.

| verdict | meaning |
|---|---|
| `equal` | the same steps with the same values, bit for bit |
| `within noise` | not equal, and no further off than the test allows |
| `different` | further off, or other steps |
| `missing`, `new` | only the earlier, only the later run logged it |
| `not judged` | it measures time or the machine, which is never the same |

The test of noise: where two or more earlier runs of the same commit and params are there beside the original, the last
value must lie in the interval that holds 99 % of further runs like these (a prediction interval of Student's
distribution). Where their seeds differ, that is the noise of seeds; where not, of repetition. Where there are too
few, last, lowest and highest value must lie within a relative tolerance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from runstone.params import flatten_params, is_equal
from runstone.reproduce.plan import is_seed
from runstone.runinfo import RunInfo
from runstone.values import JSON, MetricSummary
from runstone.workspace import Workspace

DEFAULT_TOLERANCE = 0.01
_LEAST_PEERS = 2
_MOST_PEERS = 50
_MACHINE = "system/"
# Student's t, 99.5th percentile, for 1, 2, 3, … degrees of freedom; computed from the distribution function.
_T = (
    63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.106, 3.055, 3.012, 2.977, 2.947, 2.921,
    2.898, 2.878, 2.861, 2.845, 2.831, 2.819, 2.807, 2.797, 2.787, 2.779, 2.771, 2.763, 2.756, 2.750,
)  # fmt: skip
_T_MANY = 2.576
_TIME = frozenset(
    "time times seconds sec secs ms duration elapsed eta throughput fps speed latency wall walltime runtime".split()
)


@dataclass(frozen=True, slots=True)
class MetricJudgement:
    """One metric of both runs.

    Attributes:
        verdict: See the module.
        then, now: The last value of each; `None` where it logged none.
        test: What was asked, in words.
        detail: Why it differs, in words; empty where it does not.
    """

    name: str
    verdict: str
    then: float | None
    now: float | None
    test: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Two runs.

    Attributes:
        verdict: `equal`, `within noise`, `different`, or `nothing to compare`.
        metrics: One entry a metric, by name.
        peers: Ids of the runs whose spread was used, the original's among them.
    """

    verdict: str
    metrics: tuple[MetricJudgement, ...]
    peers: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        fields = ("name", "verdict", "then", "now", "test", "detail")
        return {
            "verdict": self.verdict,
            "metrics": [{name: getattr(metric, name) for name in fields} for metric in self.metrics],
            "peers": list(self.peers),
        }


def judge(then: RunInfo, now: RunInfo, *, workspace: Workspace, tolerance: float = DEFAULT_TOLERANCE) -> Judgement:
    """Compare a run with an earlier one that it repeats.

    Args:
        then: The earlier run.
        now: The later run.
        workspace: Where earlier runs of the same params are looked for.
        tolerance: Relative difference that counts as noise where there are too few of them.
    """
    peers, kind = _peers(then, now, workspace)
    metrics = []
    for name in sorted({*then.metrics, *now.metrics}):
        if not name.startswith(_MACHINE):
            metrics.append(_judge_metric(name, then, now, peers, kind, tolerance))
    return Judgement(_overall(metrics), tuple(metrics), tuple(run_id for run_id, _metrics in peers))


def _overall(metrics: Sequence[MetricJudgement]) -> str:
    found = {metric.verdict for metric in metrics} - {"not judged"}
    if not found:
        return "nothing to compare"
    if found & {"different", "missing", "new"}:
        return "different"
    return "within noise" if "within noise" in found else "equal"


def is_time(name: str) -> bool:
    """Return whether a metric measures time or speed, by the words of its name."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return bool(words & _TIME) or bool(re.search(r"(_s|per_s|/s)$|per_sec", name.lower()))


_Peers = list[tuple[str, Mapping[str, MetricSummary]]]


def _judge_metric(
    name: str, then: RunInfo, now: RunInfo, peers: _Peers, kind: str, tolerance: float
) -> MetricJudgement:
    before, after = then.metrics.get(name), now.metrics.get(name)
    if before is None or after is None:
        verdict = "new" if before is None else "missing"
        of = "the original" if before is None else "the new run"
        last = before.last if before else None, after.last if after else None
        return MetricJudgement(name, verdict, *last, "", f"{of} never logged it")
    values = before.last, after.last
    if _are_equal(then, now, name):
        return MetricJudgement(name, "equal", *values, "every point, bit for bit")
    if is_time(name):
        return MetricJudgement(name, "not judged", *values, "", "time is never the same")
    if (before.count, before.first_step, before.last_step) != (after.count, after.first_step, after.last_step):
        detail = f"steps {_steps(before)} then, {_steps(after)} now"
        return MetricJudgement(name, "different", *values, "the same steps", detail)
    lasts = [summary.last for _id, metrics in peers if (summary := metrics.get(name)) is not None]
    if len(lasts) > _LEAST_PEERS and all(map(math.isfinite, lasts)):
        return _against_spread(name, values, lasts, kind)
    return _against_tolerance(name, before, after, tolerance)


def _steps(summary: MetricSummary) -> str:
    return f"{summary.first_step} to {summary.last_step} ({summary.count})"


def _are_equal(then: RunInfo, now: RunInfo, name: str) -> bool:
    import numpy as np  # only for comparing

    before, after = then.series(name), now.series(name)
    return bool(
        np.array_equal(before.step, after.step)
        and np.array_equal(before.value, after.value, equal_nan=before.value.dtype.kind == "f")
    )


def _against_spread(name: str, values: tuple[float, float], lasts: list[float], kind: str) -> MetricJudgement:
    count, mean, spread = len(lasts), fmean(lasts), stdev(lasts)
    factor = _T[count - 2] if count - 2 < len(_T) else _T_MANY
    width = factor * spread * math.sqrt(1 + 1 / count)
    test = f"99 % interval of {count} runs ({kind}): {mean - width:.6g} to {mean + width:.6g}"
    if abs(values[1] - mean) <= width:  # never true of NaN
        return MetricJudgement(name, "within noise", *values, test)
    off = f"{abs(values[1] - mean) / spread:.1f} standard deviations off" if spread else "all of these are the same"
    return MetricJudgement(name, "different", *values, test, off)


def _against_tolerance(name: str, before: MetricSummary, after: MetricSummary, tolerance: float) -> MetricJudgement:
    test = f"last, min and max within {tolerance:.3g} relative"
    worst, where = 0.0, ""
    for figure in ("last", "min", "max"):
        distance = _distance(getattr(before, figure), getattr(after, figure))
        if distance > worst:
            worst, where = distance, figure
    detail = f"{where} is off by {worst:.2%}" if math.isfinite(worst) else f"{where} is not a number in one of them"
    verdict = "within noise" if worst <= tolerance else "different"
    return MetricJudgement(name, verdict, before.last, after.last, test, detail if where else "")


def _distance(left: float | None, right: float | None) -> float:
    """Return how far two values are apart, relative to the larger; infinite where only one is a number."""
    if left is None or right is None:
        return 0.0 if left is right else math.inf
    if left == right or (math.isnan(left) and math.isnan(right)):
        return 0.0
    if not (math.isfinite(left) and math.isfinite(right)):
        return math.inf
    return abs(left - right) / max(abs(left), abs(right))


# --- earlier runs like it -------------------------------------------------------------------------------------------
def _peers(then: RunInfo, now: RunInfo, workspace: Workspace) -> tuple[_Peers, str]:
    """Return finished runs of the same project, commit and params, the original first; and what their spread is of."""
    wanted = flatten_params(then.params)
    unseeded = _without_seeds(wanted)
    own: tuple[str, Mapping[str, MetricSummary]] = (then.id, then.metrics)
    same: _Peers = [own]
    alike: _Peers = [own]
    quoted = then.project.replace("\\", "\\\\").replace("'", "\\'")
    for record in workspace.runs(f"project = '{quoted}' and status = 'finished'").records:
        if record.id in (then.id, now.id) or len(alike) > _MOST_PEERS:
            continue
        params = flatten_params(record.params)
        if not _is_same(_without_seeds(params), unseeded):
            continue
        if not _is_same_code(then, RunInfo(workspace.path / "runs" / record.folder)):
            continue
        alike.append((record.id, record.metrics))
        if _is_same(params, wanted):
            same.append(alike[-1])
    if len(same) > _LEAST_PEERS:
        return same, "repetitions"
    return (alike, "other seeds") if len(alike) > _LEAST_PEERS else ([own], "")


def _is_same_code(left: RunInfo, right: RunInfo) -> bool:
    commits = [((run.environment or {}).get("git") or {}).get("commit") for run in (left, right)]
    return bool(commits[0] == commits[1])


def _without_seeds(params: Mapping[str, JSON]) -> dict[str, JSON]:
    return {name: value for name, value in params.items() if not is_seed(name)}


def _is_same(left: Mapping[str, JSON], right: Mapping[str, JSON]) -> bool:
    return left.keys() == right.keys() and all(is_equal(value, right[name]) for name, value in left.items())
