"""What a sweep uses, what it may use, and how it comes along."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.record.usage import Usage, energy_of, is_energy

from .conftest import Place

OPEN = "import os, sys, time, runstone\nrun = runstone.start_run(environment=False)\n"


def told(*events: tuple[str, dict[str, Any]]) -> SweepRecord:
    return SweepRecord.from_events(
        {"event": kind, "seq": seq, "at": float(seq), **fields} for seq, (kind, fields) in enumerate(events)
    )


def test_usage_adds_up_costs_and_comes_back_from_an_event() -> None:
    one = Usage(gpu_s=3600, cpu_s=7200, wall_s=1800, energy_j=3.6e6, max_rss_bytes=5)
    both = one + Usage(gpu_s=1800, max_rss_bytes=9)
    assert (both.gpu_hours, both.kwh, both.max_rss_bytes) == (1.5, 1.0, 9)
    assert one.cost({"gpu_hour": 2.0, "cpu_hour": 0.5, "hour": 4.0, "kwh": 0.25}) == 2 + 1 + 2 + 0.25
    assert one.cost({}) == 0
    assert Usage.from_json({**one.to_json(), "of_a_later_version": 1}) == one
    assert Usage().to_json() == {}


def test_energy_is_that_of_the_meters_by_the_part_that_a_trial_has() -> None:
    meters = [("system/gpu.0/energy_j", 10.0), ("system/rank.1/gpu.1/energy_estimate_j", 6.0)]
    host = [("system/cpu/energy_j", 100.0), ("system/memory/energy_j", 20.0)]
    other = [("system/gpu.0/power_w", 5.0), ("energy_j", 7.0)]
    assert energy_of([*meters, *host, *other], gpu_share=0.5, host_share=0.25) == 8.0 + 30.0
    assert [name for name, _ in [*meters, *host, *other] if is_energy(name)] == [n for n, _ in [*meters, *host]]


def test_what_each_attempt_used_is_counted_whatever_became_of_it(place: Place) -> None:
    place.script(
        "train.py",
        OPEN + "n = int(run.name.rpartition('-')[2])\nrun.log({'loss': n}, step=0)\n"
        "end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
        "if n == 0 and run.attempt == 1: os.kill(os.getpid(), 9)\nif n == 1: raise ValueError\n"
        "while n == 2 and not run.should_stop: time.sleep(0.01)\n",
    )
    config = place.config(
        "retries: {crash: 1, backoff: 0}\npruner: {name: threshold, upper: 1.5}\nstart: cold\n", trials=4, parallel=1
    )
    place.run_here(config)
    record = place.record
    states = [trial.state for trial in record.trials.values()]
    assert states == [TrialState.COMPLETE, TrialState.FAILED, TrialState.PRUNED, TrialState.PRUNED]
    spans, begun = 0.0, {}
    for event in place.events:
        if event["event"] == "started":
            begun[event["number"]] = event["at"]
        elif event["event"] in ("requeued", "told"):
            spans += event["at"] - begun[event["number"]]
    assert 5 * 0.3 <= record.usage.wall_s <= spans + 0.2
    assert record.usage.wall_s == pytest.approx(sum(t.usage.wall_s for t in record.trials.values()))
    assert [bool(e.get("usage")) for e in place.events if e["event"] in ("requeued", "told")] == [True] * 5
    assert record.trials[0].usage.cpu_s > 0.55  # of two attempts
    assert record.usage.max_rss_bytes > 5 << 20


def test_a_spent_budget_stops_running_trials_and_a_larger_one_goes_on(place: Place) -> None:
    more = "  steps: {value: 400}\n  slow: {value: 0.02}\nbudget: {cost: 2.0, prices: {hour: 3600}}\n"
    config = place.config(more, trials=3)
    assert place.run_here(config) == "budget"
    record = place.record
    # two trials at once, a unit of money for each second of a trial
    assert 2.0 <= record.usage.wall_s < 15  # both to their ends: 16
    assert record.is_finished is False
    assert not place.living()
    assert place.resume_here() == "budget"  # nothing is left, whoever asks
    assert place.record.usage == record.usage
    name, used, limit = list(record.spending())[2]
    assert (name, limit) == ("cost", 2.0)
    assert used == pytest.approx(record.usage.wall_s)
    config.write_text(config.read_text().replace("cost: 2.0", "cost: 2000").replace("value: 400", "value: 400"))
    out = place.sweep("run", config, "--trials", "2")
    assert "going on with sweep" in out
    assert place.record.is_finished
    assert place.record.limits["cost"] == 2000


def test_the_use_of_a_trial_whose_coordinator_died_is_counted(place: Place) -> None:
    config = place.config("  steps: {value: 60}\n  slow: {value: 0.02}\n", trials=1)
    process = place.start("run", config)
    place.until(lambda: len(place.events_of("reported")) > 10, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    place.until(lambda: not place.living())
    started, killed_at = place.events_of("started")[0]["at"], time.time()
    place.resume_here()
    (requeued,) = place.events_of("requeued")
    assert 0.0 < requeued["usage"]["wall_s"] <= killed_at - started  # until its last sign of life
    assert place.record.usage.wall_s > requeued["usage"]["wall_s"] + 1.0


def test_gpu_hours_are_checked_while_trials_run(
    place: Place, fakenvml: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nvml.conf").write_text("count 2\ngpu0.mem_used 0\ngpu1.mem_used 0\n")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fakenvml))
    monkeypatch.setenv("FAKENVML", str(tmp_path / "nvml.conf"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    more = "  steps: {value: 999}\n  slow: {value: 0.02}\ngpus: 2\nbudget: {gpu_hours: 0.0004}\n"  # 1.44 s of a GPU
    out = place.sweep("run", place.config(more, trials=3), code=0)
    assert "the budget is spent" in out
    assert 1.44 <= place.record.usage.gpu_s < 30  # of a whole trial: 40
    assert "of 0.0004" in place.sweep("status", "toy")


def test_the_pace_and_the_gain_of_late_are_known() -> None:
    events: list[tuple[str, dict[str, Any]]] = [
        ("created", {"sweep_id": "s", "name": "n", "goal": "maximize"}),
        ("opened", {}),
        ("budget", {"trials": 50, "parallel": 1, "timeout_s": None}),
    ]
    assert told(*events).forecast().left_s is None
    for number in range(30):
        events.append(("asked", {"number": number, "run_id": "r", "params": {"x": number}}))
        events.append(("told", {"number": number, "state": "complete", "value": min(number, 20)}))
    record = told(*events)
    forecast = record.forecast()
    assert forecast.trials_per_hour == pytest.approx(1800, rel=0.01)
    assert forecast.left_s == pytest.approx(40, rel=0.01)
    # from the value 9, twenty trials ago, to 20, in 40 s
    assert forecast.gain_per_hour == pytest.approx((20 - 9) / 40 * 3600)
    record.timeout_s = record.active_s + 5
    assert record.forecast().left_s == pytest.approx(5)


def test_what_it_takes_until_the_first_trial_can_start_is_no_time_of_a_trial(place: Place) -> None:
    # The installed module takes longer than a trial may, and than the sweep may spend.
    site = place.path / "lib" / "site-packages"
    site.mkdir(parents=True)
    (site / "slow_module.py").write_text("import time\ntime.sleep(3)\n")
    place.script("train.py", "import slow_module\n" + OPEN + "run.log({'loss': 1.0})\n")
    more = f"env: {{PYTHONPATH: {site}}}\nbudget: {{cost: 2.5, prices: {{hour: 3600}}}}\n"
    limits = "trial_timeout: 2.5\nno_report_timeout: 2.5\n"
    assert place.run_here(place.config(more + limits, trials=2)) == "finished"
    assert {trial.state for trial in place.record.trials.values()} == {TrialState.COMPLETE}
    assert place.record.usage.wall_s < 2.5
