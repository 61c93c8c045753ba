"""Where Optuna keeps the trials of one study here: in memory, without copies, and knowing what was noted last."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState


class Memory(InMemoryStorage):
    """The trials of one study.

    Optuna's own storage copies each trial that is put in, all through, and does not tell what a sampler or a
    pruner noted; with ten thousand trials both would cost more than the search.
    """

    def __init__(self) -> None:
        super().__init__()
        self._noted: dict[int, dict[str, Any]] = {}
        self._study_noted: dict[str, Any] = {}

    def add(self, trial: FrozenTrial) -> None:
        """Put a trial in at the end; its number and id become its position. It now belongs to the storage."""
        trials = self._studies[0].trials
        trial.number = trial._trial_id = len(trials)
        self._max_trial_id = trial.number
        self._trial_id_to_study_id_and_number[trial.number] = (0, trial.number)
        trials.append(trial)
        self._update_cache(trial.number, 0)

    def put(self, number: int, **fields: Any) -> None:
        """Replace fields of a trial; whoever holds the trial as it was keeps that."""
        trial = copy.copy(self.get_trial(number))
        for name, value in fields.items():
            setattr(trial, name, value)
        self._set_trial(number, trial)
        self._update_cache(number, 0)

    @property
    def trials(self) -> list[FrozenTrial]:
        """Every trial by its number, not copied: to be read only."""
        return self._studies[0].trials

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note something with a trial."""
        if ":relative_params:" in key:
            # Tells workers elsewhere what a trial is going to have; here it has it at once.
            return
        super().set_trial_system_attr(trial_id, key, value)
        self._noted.setdefault(trial_id, {})[key] = value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note something with the study."""
        super().set_study_system_attr(study_id, key, value)
        self._study_noted[key] = value

    def take_noted(self, number: int) -> dict[str, Any]:
        """Return what was noted with a trial since this was last asked."""
        return self._noted.pop(number, {})

    def take_study_noted(self) -> dict[str, Any]:
        """Return what was noted with the study since this was last asked."""
        noted, self._study_noted = self._study_noted, {}
        return noted


def new_trial(
    state: TrialState,
    *,
    params: Mapping[str, Any] | None = None,
    distributions: Mapping[str, BaseDistribution] | None = None,
    values: Sequence[float] | None = None,
    reports: Mapping[int, float] | None = None,
    attrs: Mapping[str, Any] | None = None,
    number: int = -1,
) -> FrozenTrial:
    """Return a trial as Optuna keeps it. Not checked: what is in it comes from us."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        values=None if values is None else list(values),
        params=dict(params or {}),
        distributions=dict(distributions or {}),
        intermediate_values=dict(reports or {}),
        system_attrs=dict(attrs or {}),
        user_attrs={},
        datetime_start=_EPOCH,
        datetime_complete=_EPOCH if state.is_finished() else None,
    )


# Samplers and pruners do not look at times; `convert` gives the true ones.
_EPOCH = datetime(1970, 1, 1)  # naive, as all of Optuna's


def naive_utc(at: float) -> datetime:
    """Return a time as Optuna stores it."""
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from logging and from warning of what is experimental; what a user must know is in our docs."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
