"""A sweep without processes, for tests of the search: what the coordinator does with a search and a record."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runstone_sweeps.config import parse_spec
from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.record.journal import Event
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.study import Search

MIXED = {
    "lr": {"min": 1e-4, "max": 1e-1, "log": True},
    "net": {"parameters": {"width": {"min": 1, "max": 9, "step": 2}}},
    "kind": {"values": ["a", None, [1, 2]]},
    "epochs": {"value": 3},
}
NUMERIC = {"x": {"min": -1.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}}
FINITE = {
    "n": {"min": 1, "max": 4},
    "kind": {"values": ["a", "b", [1]]},
    "d": {"min": 0.0, "max": 0.2, "step": 0.1},
}
TREE = {
    "lr": {"min": 1e-4, "max": 1e-1, "log": True},
    "optimizer": {"values": ["sgd", "adam", "lion"]},
    "momentum": {"min": 0.0, "max": 0.99, "when": {"optimizer": "sgd"}},
    "beta": {"min": 0.8, "max": 0.999, "when": {"optimizer": ["adam", "lion"]}},
    "decay": {"values": ["none", "cosine"], "when": {"optimizer": "adam"}},
    "cycles": {"min": 1, "max": 5, "when": {"decay": "cosine"}},
}
FINITE_TREE = {
    "model": {"values": ["tree", "net"]},
    "depth": {"min": 1, "max": 3, "when": {"model": "tree"}},
    "width": {"values": [8, 16], "when": {"model": "net"}},
    "skip": {"values": [True, False], "when": {"width": 16}},
}
LOSS = {"name": "loss", "goal": "minimize"}


def make_spec(parameters: Mapping[str, Any], **keys: Any) -> SweepSpec:
    """Return a checked config of these parameters."""
    raw: dict[str, Any] = {"parameters": dict(parameters), "trials": 1000, **keys}
    if "metrics" not in raw:
        raw.setdefault("metric", LOSS)
    return parse_spec(raw, folder=Path.cwd(), has_objective=True)


class Sweep:
    """Asks, reports and tells, and keeps the events that a coordinator would write."""

    def __init__(self, spec: SweepSpec, *, seed: int = 3, prior: Sequence[Mapping[str, Any]] = ()) -> None:
        self.spec, self.seed = spec, seed
        self.events: list[Event] = []
        self.record = SweepRecord()
        self.at = 0.0
        self.emit("created", sweep_id="s", name="toy", seed=seed, metrics=[{"goal": m.goal} for m in spec.metrics])
        if prior:
            self.emit("prior", trials=list(prior))
        self.search = self.build()

    def build(self, record: SweepRecord | None = None, spec: SweepSpec | None = None) -> Search:
        """Return the search as a record tells it."""
        return Search(spec or self.spec, seed=self.seed, record=record or self.record)

    def emit(self, kind: str, **fields: Any) -> None:
        """Take in an event, through JSON as on disk."""
        self.at += 1.0
        event = json.loads(json.dumps({"event": kind, "seq": len(self.events), "at": self.at, **fields}))
        self.events.append(event)
        self.record.apply(event)

    def ask(self, **options: Any) -> int:
        """Ask for a point and start its trial."""
        number = self.record.next_number
        asked = self.search.ask(number, **options)
        kept = {"params": asked.params, "attrs": asked.attrs, "study_attrs": asked.study_attrs}
        self.emit("asked", number=number, run_id=f"r{number}", **kept)
        self.emit("started", number=number)
        return number

    def params(self, number: int) -> dict[str, Any]:
        """Return the parameters of a trial."""
        return self.record.trials[number].params

    def report(self, number: int, step: int, value: float) -> int | None:
        """Report a value; return the step at which the pruner is against the trial."""
        self.emit("reported", number=number, points=[[step, value]])
        decided = self.search.report(self.record.trials[number], self.record)
        if decided is not None:
            self.emit("prune", number=number, step=decided, attrs=self.search.new_attrs(number))
        return decided

    def tell(self, number: int, state: TrialState, *values: float, constraints: Sequence[float] = ()) -> None:
        """Tell how a trial ended."""
        told = list(values) or None
        attrs, study_attrs = self.search.tell(number, state, told, constraints)
        self.emit(
            "told",
            number=number,
            state=str(state),
            value=values[0] if values else None,
            values=told if state is TrialState.COMPLETE else None,
            constraints=list(constraints),
            attrs=attrs,
            study_attrs=study_attrs,
        )

    def complete(self, objective: Callable[[dict[str, Any]], float | tuple[float, ...]], **options: Any) -> int:
        """Try one point to its end."""
        number = self.ask(**options)
        found = objective(self.params(number))
        self.tell(number, TrialState.COMPLETE, *(found if isinstance(found, tuple) else (found,)))
        return number

    def replayed(self) -> SweepRecord:
        """Return what the events come down to."""
        return SweepRecord.from_events(self.events)


def run(sweep: Sweep, count: int, *, seed: int = 0) -> None:
    """Try `count` points, two in flight, with reports, prunings and failures."""
    chance = random.Random(seed)
    in_flight: list[int] = []
    for _ in range(count):
        in_flight.append(sweep.ask())
        if len(in_flight) < 2:
            continue
        number = in_flight.pop(chance.randrange(2))
        value = float(number % 5) + chance.random()
        values = [value, *(chance.random() for _ in sweep.spec.metrics[1:])]
        violations = [chance.random() - 0.7 for _ in sweep.spec.constraints]
        is_pruned = any(sweep.report(number, step, value + 1 / (step + 1)) is not None for step in range(4))
        if is_pruned:
            sweep.tell(number, TrialState.PRUNED)
        elif chance.random() < 0.2:
            sweep.tell(number, TrialState.FAILED)
        else:
            sweep.tell(number, TrialState.COMPLETE, *values, constraints=violations)


def seen_by(search: Search) -> list[tuple[Any, ...]]:
    """Return all that a search keeps of its trials."""
    kept = [
        (t.number, t.state, t.values, t.params, t.intermediate_values, t.system_attrs) for t in search._memory.trials
    ]
    judged = [(t.number, t.state, t.values, t.intermediate_values) for t in search._judge._memory.trials]
    return [*kept, *judged]
