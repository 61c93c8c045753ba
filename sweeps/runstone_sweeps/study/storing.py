"""Copies a sweep into an Optuna storage, so that Optuna's own tools open it. Only writes; the sweep never reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from runstone import InvalidConfig
from runstone_sweeps.record import SweepRecord
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.study.convert import Freezer
from runstone_sweeps.study.memory import quiet_optuna

_DIRECTIONS = {"minimize": StudyDirection.MINIMIZE, "maximize": StudyDirection.MAXIMIZE}
# How long SQLite waits for another process that writes, in seconds.
_SQLITE_PATIENCE_S = 20.0
_SECOND = 1.0
# Trials in one transaction: a disk takes as long for one as for many.
_AT_ONCE = 50
_NAME_LENGTH = 480


@dataclass(slots=True)
class _Stored:
    """What the storage has of a trial."""

    trial_id: int
    state: OptunaState
    values: list[float] | None
    completed: datetime | None
    steps: set[int]


def stored_name(record: SweepRecord) -> str:
    """Return what the study of a sweep is called in a storage: its name and the end of its id."""
    return f"{record.name[:_NAME_LENGTH]}-{record.sweep_id[-8:]}"


class StoredStudy:
    """The copy of one sweep in one storage. Only one process may have it open; after an error, open it anew.

    A trial is written in one transaction, and what is there already is left alone: the process may be killed at any
    point and started again.

    Args:
        url: Of a database that Optuna can use, such as `sqlite:////data/study.db`.
        spec: What the sweep searches.
        record: The sweep.

    Raises:
        InvalidConfig: there is no driver for such a database.
        Exception: whatever the database raises.
    """

    def __init__(self, url: str, spec: SweepSpec, record: SweepRecord) -> None:
        self._spec = spec
        options: dict[str, Any] = {}
        if url.startswith("sqlite"):
            options["connect_args"] = {"timeout": _SQLITE_PATIENCE_S}
        with quiet_optuna():
            try:
                self._storage = RDBStorage(url, engine_kwargs=options)
            except ImportError as error:
                raise InvalidConfig(f"storage: {url.partition(':')[0]} needs a driver: {error}") from None
            self._open(record)

    def write(self, record: SweepRecord, numbers: Iterable[int] | None = None) -> None:
        """Bring the copy to where the record is.

        Args:
            record: The sweep.
            numbers: The trials that may have changed; default all.

        Raises:
            Exception: whatever the database raises; open it anew then.
        """
        freezer = Freezer(self._spec)
        numbers = sorted(set(record.trials if numbers is None else numbers))
        with quiet_optuna():
            if any(self._has_diverged(record, number) for number in numbers):
                # Optuna lets no trial go back that has ended; the copy is ours to make again.
                self._storage.delete_study(self._study_id)
                self._open(record)
                numbers = sorted(record.trials)
            highest = max(numbers, default=-1)
            known = len(self._trials)
            for begin in range(known, highest + 1, _AT_ONCE):
                missing = range(begin, min(begin + _AT_ONCE, highest + 1))
                self._create([freezer.freeze(number, record.trials.get(number)) for number in missing])
            open_ = [n for n in numbers if n < known and not self._trials[n].state.is_finished()]
            for begin in range(0, len(open_), _AT_ONCE):
                with _create_scoped_session(self._storage.scoped_session) as session:
                    for number in open_[begin : begin + _AT_ONCE]:
                        self._update(session, self._trials[number], freezer.freeze(number, record.trials.get(number)))

    def close(self) -> None:
        """Close the connections."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _open(self, record: SweepRecord) -> None:
        name = stored_name(record)
        storage = self._storage
        found = [study for study in storage.get_all_studies() if study.study_name == name]
        if found:
            self._study_id = found[0]._study_id
        else:
            directions = [_DIRECTIONS[metric.goal] for metric in self._spec.metrics]
            self._study_id = storage.create_new_study(directions, name)
        attrs = storage.get_study_user_attrs(self._study_id)
        if attrs.get("sweep_id") != record.sweep_id:
            optuna.load_study(study_name=name, storage=storage).set_metric_names([m.name for m in self._spec.metrics])
            storage.set_study_user_attr(self._study_id, "sweep_id", record.sweep_id)
        self._distributions: dict[str, BaseDistribution] = {}
        self._trials: list[_Stored] = []
        for trial in storage.get_all_trials(self._study_id, deepcopy=False):
            for key, distribution in trial.distributions.items():
                self._distributions.setdefault(key, distribution)
            steps = set() if trial.state.is_finished() else set(trial.intermediate_values)
            self._trials.append(_Stored(trial._trial_id, trial.state, trial.values, trial.datetime_complete, steps))

    def _has_diverged(self, record: SweepRecord, number: int) -> bool:
        """Tell whether the copy of a trial says what the record no longer does, and cannot be taken back."""
        if number >= len(self._trials):
            return False
        stored, trial = self._trials[number], record.trials.get(number)
        if trial is None:
            return False
        frozen = Freezer(self._spec).freeze(number, trial)
        if not stored.state.is_finished():
            # A new attempt made reports void, and has not made them again.
            return frozen.state.is_finished() and not stored.steps <= frozen.intermediate_values.keys()
        if stored.state is not frozen.state or (stored.values or None) != (frozen.values or None):
            return True
        if stored.completed is None or frozen.datetime_complete is None:
            return False
        # Not every database keeps fractions of a second.
        return abs((stored.completed - frozen.datetime_complete).total_seconds()) > _SECOND

    def _create(self, trials: Sequence[FrozenTrial]) -> None:
        """Write new trials, the next ones by number, in one transaction; Optuna's public method takes one for each."""
        storage = self._storage
        with _create_scoped_session(storage.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(self._study_id, session, for_update=True)
            for frozen in trials:
                self._fit(frozen)
                made: Any = storage._get_prepared_new_trial(self._study_id, frozen, session)
                steps = set() if frozen.state.is_finished() else set(frozen.intermediate_values)
                self._trials.append(
                    _Stored(made.trial_id, frozen.state, frozen.values, frozen.datetime_complete, steps)
                )

    def _update(self, session: Any, stored: _Stored, frozen: FrozenTrial) -> None:
        """Bring an unfinished trial to where the record is.

        Optuna's public methods commit each value by itself, and set the time of the end to now.
        """
        new = {step: value for step, value in frozen.intermediate_values.items() if step not in stored.steps}
        is_finished = frozen.state.is_finished()
        if not new and not is_finished:
            return
        storage, id_ = self._storage, stored.trial_id
        model = models.TrialModel.find_or_raise_by_id(id_, session)
        # A new attempt may have logged another value for a step that is there.
        for step, value in (frozen.intermediate_values if is_finished else new).items():
            storage._set_trial_intermediate_value_without_commit(session, id_, step, value)
        for key, said in frozen.user_attrs.items() if is_finished else ():
            storage._set_trial_attr_without_commit(session, models.TrialUserAttributeModel, id_, key, said)
        for key, said in frozen.system_attrs.items() if is_finished else ():
            storage._set_trial_attr_without_commit(session, models.TrialSystemAttributeModel, id_, key, said)
        for place, value in enumerate(frozen.values or ()):
            storage._set_trial_value_without_commit(session, model, place, value)
        model.datetime_start = frozen.datetime_start
        model.datetime_complete = frozen.datetime_complete
        model.state = frozen.state
        stored.steps = set() if is_finished else stored.steps | new.keys()
        stored.state, stored.values, stored.completed = frozen.state, frozen.values, frozen.datetime_complete

    def _fit(self, frozen: FrozenTrial) -> None:
        """Move params that the study cannot take, since their kind was edited, to the trial's attributes."""
        for name in list(frozen.params):
            try:
                check_distribution_compatibility(
                    self._distributions.setdefault(name, frozen.distributions[name]), frozen.distributions[name]
                )
            except ValueError:
                others = frozen.user_attrs.setdefault("parameters", {})
                others[name] = frozen.params.pop(name)
                del frozen.distributions[name]
