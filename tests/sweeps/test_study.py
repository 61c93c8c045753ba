"""The search: every sampler and pruner of Optuna, and that one built again goes on as if nothing had happened."""

from __future__ import annotations

import inspect
import json
import math
import random
from typing import Any

import optuna
import pytest

from runstone import InvalidConfig
from runstone_sweeps.algorithms import PRUNERS, SAMPLERS, Algorithm
from runstone_sweeps.journal import Event
from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.space import Choice, Constant, Real, Space, Whole
from runstone_sweeps.spec import Metric
from runstone_sweeps.study import Search, check_algorithms

SPACE = Space(
    (
        Real("lr", 1e-4, 1e-1, log=True),
        Whole("net.width", 1, 9, step=2),
        Choice("kind", ("a", None, [1, 2])),
        Constant("epochs", 3),
    )
)
NUMERIC = Space((Real("x", -1.0, 1.0), Real("y", 0.0, 1.0)))
FINITE = Space((Whole("n", 1, 4), Choice("kind", ("a", "b", [1])), Real("d", 0.0, 0.2, step=0.1)))
METRIC = Metric("loss", "minimize")
MEDIAN = Algorithm("median", PRUNERS["median"].defaults)


class Sweep:
    """A sweep without processes: what the coordinator does with a search and a record."""

    def __init__(self, space: Space, sampler: Algorithm, pruner: Algorithm = MEDIAN, seed: int = 3) -> None:
        self.space, self.sampler, self.pruner, self.seed = space, sampler, pruner, seed
        self.events: list[Event] = []
        self.record = SweepRecord()
        self.search = self.build()

    def build(self, record: SweepRecord | None = None) -> Search:
        return Search(self.space, METRIC, self.sampler, self.pruner, seed=self.seed, record=record or self.record)

    def emit(self, kind: str, **fields: Any) -> None:
        # through JSON, as on disk
        event = json.loads(
            json.dumps({"event": kind, "seq": len(self.events), "at": float(len(self.events)), **fields})
        )
        self.events.append(event)
        self.record.apply(event)

    def ask(self) -> int:
        number = len(self.record.trials)
        asked = self.search.ask(number)
        self.emit(
            "asked",
            number=number,
            run_id=f"r{number}",
            params=asked.params,
            attrs=asked.attrs,
            study_attrs=asked.study_attrs,
        )
        self.emit("started", number=number)
        return number

    def report(self, number: int, step: int, value: float) -> int | None:
        self.emit("reported", number=number, points=[[step, value]])
        decided = self.search.report(self.record.trials[number], self.record)
        if decided is not None:
            self.emit("prune", number=number, step=decided, attrs=self.search.new_attrs(number))
        return decided

    def tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        attrs, study_attrs = self.search.tell(number, state, value)
        self.emit("told", number=number, state=str(state), value=value, attrs=attrs, study_attrs=study_attrs)

    def replayed(self) -> SweepRecord:
        return SweepRecord.from_events(self.events)


def run(sweep: Sweep, count: int, seed: int = 0) -> None:
    """Try `count` points, two in flight, with reports, prunings and failures."""
    chance = random.Random(seed)
    in_flight: list[int] = []
    for _ in range(count):
        in_flight.append(sweep.ask())
        if len(in_flight) < 2:
            continue
        number = in_flight.pop(chance.randrange(2))
        value = float(number % 5) + chance.random()
        is_pruned = any(sweep.report(number, step, value + 1 / (step + 1)) is not None for step in range(4))
        if is_pruned:
            sweep.tell(number, TrialState.PRUNED, sweep.record.trials[number].last_report[1])
        elif chance.random() < 0.2:
            sweep.tell(number, TrialState.FAILED)
        else:
            sweep.tell(number, TrialState.COMPLETE, value)


def summary(search: Search) -> list[tuple[Any, ...]]:
    return [
        (t.number, t.state, t.values, t.params, t.intermediate_values, t.system_attrs)
        for t in search.study.get_trials()
    ]


@pytest.mark.parametrize(
    ("name", "options", "space"),
    [
        ("tpe", {}, SPACE),
        ("tpe", {"n_startup_trials": 3, "multivariate": False}, SPACE),
        ("tpe", {"group": True, "multivariate": True}, SPACE),
        ("random", {}, SPACE),
        ("qmc", {"scramble": True}, SPACE),
        ("cmaes", {}, NUMERIC),
        ("nsga2", {"population_size": 4}, SPACE),
        ("nsga3", {"population_size": 4}, SPACE),
        ("grid", {}, FINITE),
        ("brute_force", {}, FINITE),
        ("partial_fixed", {"fixed_params": {"net.width": 5}, "base_sampler": Algorithm("tpe")}, SPACE),
    ],
)
def test_a_search_built_again_has_the_same_trials_and_proposes_the_same_points(
    name: str, options: dict[str, Any], space: Space
) -> None:
    sweep = Sweep(space, Algorithm(name, options))
    run(sweep, 24)
    replayed = sweep.replayed()
    again = sweep.build(replayed)
    assert summary(again) == summary(sweep.search)
    number = len(sweep.record.trials)
    assert again.ask(number) == sweep.search.ask(number)
    assert again.ask(number + 1) == sweep.search.ask(number + 1)


@pytest.mark.heavy
def test_the_gaussian_process_sampler_goes_on_as_if_nothing_had_happened() -> None:
    pytest.importorskip("torch")
    sweep = Sweep(NUMERIC, Algorithm("gp", {"n_startup_trials": 3}))
    run(sweep, 6)
    number = len(sweep.record.trials)
    assert sweep.build(sweep.replayed()).ask(number) == sweep.search.ask(number)


def test_equal_seeds_propose_equal_points_and_other_seeds_others() -> None:
    points = []
    for seed in (1, 1, 2):
        sweep = Sweep(SPACE, Algorithm("random"), seed=seed)
        points.append([sweep.search.ask(number).params for number in range(5)])
    assert points[0] == points[1] != points[2]
    assert len({point["lr"] for point in points[0]}) == 5


def test_points_hold_every_parameter_with_its_own_type() -> None:
    params = Sweep(SPACE, Algorithm("random")).search.ask(0).params
    assert list(params) == ["lr", "net.width", "kind", "epochs"]
    assert type(params["lr"]) is float
    assert type(params["net.width"]) is int
    assert params["epochs"] == 3


@pytest.mark.parametrize("sampler", ["grid", "brute_force"])
def test_an_exhaustive_sampler_tries_each_point_once_and_ends_without_an_error(sampler: str) -> None:
    sweep = Sweep(FINITE, Algorithm(sampler))
    assert FINITE.size == 36
    for _ in range(36):
        sweep.tell(sweep.ask(), TrialState.COMPLETE, 1.0)
    assert len({json.dumps(trial.params) for trial in sweep.record.trials.values()}) == 36


@pytest.mark.parametrize("pruner", sorted(PRUNERS))
def test_every_pruner_judges_a_hopeless_trial_and_says_so_as_plain_bool(pruner: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "percentile": {"percentile": 25.0, "n_startup_trials": 2},
        "threshold": {"upper": 5.0},
        "patient": {"wrapped_pruner": MEDIAN, "patience": 1},
        "hyperband": {"min_resource": 1, "max_resource": 4, "reduction_factor": 2},
        "successive_halving": {"min_resource": 1, "reduction_factor": 2},
    }
    sweep = Sweep(
        SPACE, Algorithm("random"), Algorithm(pruner, {**PRUNERS[pruner].defaults, **options.get(pruner, {})})
    )
    for _ in range(8):
        number = sweep.ask()
        for step in range(6):
            sweep.report(number, step, 1.0)
        sweep.tell(number, TrialState.COMPLETE, 1.0)
    number = sweep.ask()
    decided = [sweep.report(number, step, 10.0 + step) for step in range(6)]
    assert (decided == [None] * 6) == (pruner == "none")


def test_a_pruner_asks_for_every_report_however_many_come_at_once() -> None:
    one, many = (Sweep(SPACE, Algorithm("random"), Algorithm("median", {"interval_steps": 3})) for _ in range(2))
    for sweep in (one, many):
        for _ in range(5):
            number = sweep.ask()
            for step in range(6):
                sweep.report(number, step, 1.0)
            sweep.tell(number, TrialState.COMPLETE, 1.0)
    first = next(d for step in range(6) if (d := one.report(one.ask() if not step else 5, step, 9.0)) is not None)
    number = many.ask()
    many.emit("reported", number=number, points=[[step, 9.0] for step in range(6)])
    assert many.search.report(many.record.trials[number], many.record) == first


def test_a_new_attempt_makes_what_the_one_before_reported_from_there_on_void() -> None:
    sweep = Sweep(SPACE, Algorithm("random"))
    number = sweep.ask()
    for step in range(5):
        sweep.report(number, step, 1.0)
    sweep.emit("requeued", number=number)
    sweep.search.rebuild(sweep.record)
    sweep.emit("started", number=number)
    sweep.report(number, 3, 7.0)
    sweep.report(number, 4, 8.0)
    assert sweep.record.trials[number].reports == {0: 1.0, 1: 1.0, 2: 1.0, 3: 7.0, 4: 8.0}
    assert sweep.search.study.trials[number].intermediate_values == sweep.record.trials[number].reports


def test_values_that_are_not_finite_are_reported_and_never_stop_the_search() -> None:
    sweep = Sweep(SPACE, Algorithm("tpe"))
    for value in (math.nan, math.inf, -math.inf, 1.0):
        number = sweep.ask()
        sweep.report(number, 0, value)
        if math.isnan(value):
            sweep.tell(number, TrialState.FAILED)
        else:
            sweep.tell(number, TrialState.COMPLETE, value)
    sweep.build(sweep.replayed()).ask(4)


def test_a_lost_event_leaves_the_numbers_of_the_other_trials() -> None:
    sweep = Sweep(SPACE, Algorithm("random"))
    run(sweep, 6)
    sweep.events = [e for e in sweep.events if not (e["event"] == "asked" and e["number"] == 2)]
    replayed = sweep.replayed()
    assert replayed.unknown > 0
    assert sweep.build(replayed).ask(6).params


def test_what_optuna_refuses_is_told_as_a_mistake_of_the_config() -> None:
    with pytest.raises(InvalidConfig, match=r"pruner percentile: Percentile must be between 0 and 100"):
        check_algorithms(SPACE, Algorithm("tpe"), Algorithm("percentile", {"percentile": 300.0}))


def test_importances_are_shares_and_need_two_different_results() -> None:
    sweep = Sweep(NUMERIC, Algorithm("random"))
    assert sweep.search.importances() == {}
    for _ in range(20):
        number = sweep.ask()
        sweep.tell(number, TrialState.COMPLETE, sweep.record.trials[number].params["x"] ** 2)
    found = sweep.search.importances()
    assert found["x"] > found["y"]
    assert sum(found.values()) == pytest.approx(1.0)


# Options that we set ourselves, that only Python can give, that are deprecated, or that only silence warnings.
NOT_OFFERED = {
    "seed", "search_space", "constraints_func", "gamma", "weights", "consider_prior", "prior_weight",
    "consider_magic_clip", "consider_endpoints", "warn_independent_sampling", "warn_asynchronous_seeding",
    "independent_sampler", "source_trials", "x0", "sigma0", "restart_strategy", "inc_popsize", "mutation",
    "elite_population_selection_strategy", "child_generation_strategy", "after_trial_strategy", "reference_points",
}  # fmt: skip


def test_every_sampler_and_pruner_of_optuna_is_offered_with_all_its_options() -> None:
    for module, table, base in (
        (optuna.samplers, SAMPLERS, optuna.samplers.BaseSampler),
        (optuna.pruners, PRUNERS, optuna.pruners.BasePruner),
    ):
        classes = {
            name
            for name in module.__all__
            if inspect.isclass(kind := getattr(module, name)) and issubclass(kind, base) and not name.startswith("Base")
        }
        assert {known.optuna_class for known in table.values()} == classes
        for known in table.values():
            signature = inspect.signature(getattr(module, known.optuna_class).__init__)
            offered = set(signature.parameters) - {"self", "args", "kwargs"} - NOT_OFFERED
            assert set(known.options) == offered, known.optuna_class
