"""How good the points of a search are after so many trials, and what proposing them costs as a sweep grows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from runstone_sweeps.config import parse_spec
from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.study import Search

Objective = Callable[[Mapping[str, Any]], float]
# A trial of this length makes `auto` take what is best and not what is fastest.
TRIAL_S = 120.0


def branin(p: Mapping[str, Any]) -> float:
    """Return a function of two numbers with three optima of 0.398."""
    x, y = p["x"], p["y"]
    bowl = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return float(bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)


_A = ((10, 3, 17, 3.5, 1.7, 8), (0.05, 10, 17, 0.1, 8, 14), (3, 3.5, 1.7, 10, 17, 8), (17, 8, 0.05, 10, 0.1, 14))
_P = (
    (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886),
    (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991),
    (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650),
    (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381),
)


def hartmann6(p: Mapping[str, Any]) -> float:
    """Return a function of six numbers with an optimum of -3.322."""
    total = 0.0
    for alpha, a, centre in zip((1.0, 1.2, 3.0, 3.2), _A, _P, strict=True):
        squares = (w * (p[f"x{i}"] - c) ** 2 for i, (w, c) in enumerate(zip(a, centre, strict=True)))
        total -= alpha * math.exp(-sum(squares))
    return total


def hard_branch(p: Mapping[str, Any]) -> float:
    """Return a function of three branches: two are easy and end at 1, the hard one ends at 0.5 in a narrow valley."""
    if p["kind"] == "linear":
        return 1.0 + abs(p["slope"] - 0.3)
    if p["kind"] == "tree":
        return 1.05 + 0.02 * (p["depth"] - 6) ** 2
    far = (math.log10(p["lr"]) + 2.5) ** 2 + 4 * (p["dropout"] - 0.2) ** 2 + 0.1 * (p["layers"] - 3) ** 2
    return 0.5 + 2.0 * far


_UNIT = {"min": 0.0, "max": 1.0}
PROBLEMS: dict[str, tuple[dict[str, Any], Objective]] = {
    "branin": ({"x": {"min": -5.0, "max": 10.0}, "y": {"min": 0.0, "max": 15.0}}, branin),
    "hartmann6": ({f"x{i}": _UNIT for i in range(6)}, hartmann6),
    "hard branch": (
        {
            "kind": {"values": ["linear", "tree", "net"]},
            "slope": {**_UNIT, "when": {"kind": "linear"}},
            "depth": {"min": 1, "max": 12, "when": {"kind": "tree"}},
            "lr": {"min": 1e-5, "max": 1.0, "log": True, "when": {"kind": "net"}},
            "dropout": {"min": 0.0, "max": 0.9, "when": {"kind": "net"}},
            "layers": {"min": 1, "max": 8, "when": {"kind": "net"}},
        },
        hard_branch,
    ),
}


class _Sweep:
    """A sweep of which only the search is real; its trials take no time."""

    def __init__(self, parameters: dict[str, Any], sampler: Any, seed: int, trials: int) -> None:
        raw = {"metric": {"name": "loss", "goal": "minimize"}, "parameters": parameters, "sampler": sampler}
        self.spec: SweepSpec = parse_spec({**raw, "trials": trials}, folder=Path.cwd(), has_objective=True)
        self.record = SweepRecord()
        self._seed, self._at = seed, 0.0
        self._emit("created", sweep_id="s", metrics=[{"goal": "minimize"}])
        self.search = self.build()

    def build(self) -> Search:
        return Search(self.spec, seed=self._seed, record=self.record)

    def _emit(self, kind: str, **fields: Any) -> None:
        self.record.apply({"event": kind, "seq": self.record.next_seq, "at": self._at, **fields})

    def ask(self) -> int:
        number = self.record.next_number
        asked = self.search.ask(number)
        told = {"params": asked.params, "attrs": asked.attrs, "study_attrs": asked.study_attrs}
        self._emit("asked", number=number, run_id="r", **told)
        self._emit("started", number=number)
        return number

    def finish(self, number: int, objective: Objective) -> float:
        self._at += TRIAL_S
        value = objective(self.record.trials[number].params)
        attrs, study_attrs = self.search.tell(number, TrialState.COMPLETE, [value])
        self._emit("told", number=number, state="complete", value=value, attrs=attrs, study_attrs=study_attrs)
        return value


def quality(*, trials: int, seeds: int, samplers: tuple[str, ...] = ("auto", "tpe", "random")) -> None:
    """Print the best value after so many trials, one after the other; the median over seeds."""
    print("\nThe floor is random points: what a search finds that does not learn.")
    print(f"Best of {trials} trials, median of {seeds} seeds (best and worst seed; CPU s of a whole sweep)")
    for name, (parameters, objective) in PROBLEMS.items():
        for sampler in samplers:
            found, start = [], time.process_time()
            for seed in range(seeds):
                sweep = _Sweep(parameters, sampler, seed, trials)
                found.append(min(sweep.finish(sweep.ask(), objective) for _ in range(trials)))
            cpu_s = (time.process_time() - start) / seeds
            print(f"  {name:12} {sampler:7} {median(found):8.3f}  ({min(found):.3f} {max(found):.3f}; {cpu_s:.1f} s)")


def growth(sizes: tuple[int, ...]) -> None:
    """Print what a point costs, and building the search again, as a sweep grows."""
    parameters = {
        "lr": {"min": 1e-5, "max": 1e-1, "log": True},
        "momentum": {"min": 0.0, "max": 0.99},
        "layers": {"min": 1, "max": 8},
        "width": {"min": 16, "max": 512, "log": True},
        "optimizer": {"values": ["adam", "sgd", "lion"]},
    }
    print("\nCPU ms as a sweep grows: ask (tpe), the rest of a trial (ask + tell of random), building the search again")
    for size in sizes:
        sweep = _Sweep(parameters, "random", 1, 100_000)
        for _ in range(size):
            sweep.finish(sweep.ask(), lambda p: abs(math.log10(p["lr"]) + 3) + p["momentum"])
        rest = _cpu_ms(lambda sweep=sweep: sweep.finish(sweep.ask(), lambda p: p["momentum"]))  # type: ignore[misc]
        rebuilt = _cpu_ms(sweep.build, rounds=3)
        model = Search(_Sweep(parameters, "tpe", 1, 100_000).spec, seed=1, record=sweep.record)
        ask = _cpu_ms(lambda m=model: m.ask(len(m._memory.trials)))  # type: ignore[misc]
        print(f"  {size:6,} trials: ask {ask:6.1f}, rest {rest:5.2f}, build {rebuilt:7.0f}")


def _cpu_ms(call: Callable[[], object], *, rounds: int = 9) -> float:
    """Return the median CPU time of a call."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        taken.append((time.process_time() - start) * 1000)
    return median(taken)


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    growth((50,) if quick else (100, 1_000, 3_000, 10_000))
    if quick:
        quality(trials=14, seeds=1, samplers=("tpe",))
    else:
        quality(trials=60, seeds=5)
