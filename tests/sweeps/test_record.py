"""What events come down to."""

from __future__ import annotations

from typing import Any

from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.record.journal import Event


def events_of(*told: tuple[str, dict[str, Any]]) -> list[Event]:
    return [{"event": kind, "seq": seq, "at": float(seq), **fields} for seq, (kind, fields) in enumerate(told)]


def asked(number: int) -> tuple[str, dict[str, Any]]:
    return "asked", {"number": number, "run_id": f"r{number}", "params": {"x": number}}


def told(number: int, state: str, value: Any = None, reason: str | None = None) -> tuple[str, dict[str, Any]]:
    return "told", {"number": number, "state": state, "value": value, "reason": reason}


CREATED = ("created", {"sweep_id": "s", "name": "n", "goal": "maximize"})


def test_trials_are_ranked_by_goal_and_equal_ones_by_number() -> None:
    ends = [told(0, "complete", 1.0), told(1, "complete", 3.0), told(2, "pruned", 9.0), told(3, "complete", 3.0)]
    record = SweepRecord.from_events(events_of(CREATED, *map(asked, range(4)), *ends))
    assert [trial.number for trial in record.ranked()] == [1, 3, 0]
    assert record.best is record.trials[1]
    record.goals = ("minimize",)
    record._ranking = None
    assert [trial.number for trial in record.ranked()] == [0, 1, 3]


def test_a_sweep_is_finished_when_its_budget_is_told_and_not_before() -> None:
    budget = ("budget", {"trials": 2, "parallel": 1, "timeout_s": None})
    record = SweepRecord.from_events(events_of(CREATED, budget, asked(0), asked(1), told(0, "failed")))
    assert not record.is_finished
    record.apply({"event": "told", "seq": 9, "number": 1, "state": "complete", "value": 1.0})
    assert record.is_finished
    record.apply({"event": "budget", "seq": 10, "trials": 3, "parallel": 1, "timeout_s": None})
    assert not record.is_finished


def test_only_the_time_of_sessions_counts_as_work() -> None:
    record = SweepRecord()
    for seq, (kind, at) in enumerate(
        [("created", 0.0), ("opened", 10.0), ("closed", 15.0), ("opened", 100.0), ("x", 103.0), ("closed", 104.0)]
    ):
        record.apply({"event": kind, "seq": seq, "at": at, "sweep_id": "s", "reason": "finished"})
    assert record.active_s == 9.0


def test_values_that_json_lacks_are_read_as_numbers() -> None:
    record = SweepRecord.from_events(
        events_of(
            CREATED,
            asked(0),
            ("started", {"number": 0}),
            ("reported", {"number": 0, "points": [[0, "nan"], [1, "inf"], [1, 5.0]]}),
            told(0, "complete", "-inf"),
        )
    )
    trial = record.trials[0]
    assert str(trial.reports) == "{0: nan, 1: inf}"
    assert (trial.state, trial.value) == (TrialState.COMPLETE, float("-inf"))


def test_unknown_events_and_fields_are_ignored_and_unknown_trials_counted() -> None:
    record = SweepRecord.from_events(
        events_of(CREATED, ("brand_new", {"x": 1}), asked(0), ("told", {"number": 7, "state": "failed"}))
    )
    assert list(record.trials) == [0]
    assert record.unknown == 1
