"""What a sampler sees of a sweep: earlier sweeps' trials first, no more than keeps it fast, and of one branch where
it draws what only that branch has."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.pruners import NopPruner
from optuna.study import StudyDirection
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import FrozenTrial, TrialState

from runstone_sweeps.study.memory import Memory

# A sampler whose work grows with the trials sees these many: the best, and the newest of the others.
MOST_SHOWN = 1_000
BEST_SHOWN = 250
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Shown(optuna.Study):
    """A study that shows a sampler some of its trials, chosen before each point."""

    def __init__(self, study: optuna.Study, memory: Memory, prior: Sequence[FrozenTrial]) -> None:
        """Show nothing yet.

        Args:
            study: The study of the sweep.
            memory: Its trials.
            prior: Trials of earlier sweeps, with numbers from `-len(prior)` to -1.
        """
        super().__init__(study.study_name, memory, pruner=NopPruner())
        self._memory = memory
        self._prior = list(prior)
        self._in_flight: set[int] = set()
        self._finished: list[int] = []
        self._ranking: list[tuple[float, int]] = []
        self._chosen: list[FrozenTrial] | None = []
        self._is_capped = False
        self._keep: Callable[[FrozenTrial], bool] | None = None
        self._here: Callable[[FrozenTrial], bool] | None = None
        for trial in self._prior:
            self.note(trial)

    def note(self, trial: FrozenTrial) -> None:
        """Take note of how a trial stands now; what this costs does not grow with the trials."""
        if trial.state is TrialState.RUNNING:
            self._in_flight.add(trial.number)
            return
        self._in_flight.discard(trial.number)
        if trial.state not in _FINISHED:
            return
        bisect.insort(self._finished, trial.number)
        if trial.state is TrialState.COMPLETE and len(self.directions) == 1 and is_feasible(trial):
            sign = -1.0 if self.direction == StudyDirection.MAXIMIZE else 1.0
            bisect.insort(self._ranking, (sign * trial.values[0], trial.number))

    def choose(self, *, is_capped: bool, keep: Callable[[FrozenTrial], bool] | None = None) -> None:
        """Choose what is shown until this is called again.

        Args:
            is_capped: Whether the number of trials is kept bounded.
            keep: Whether to show a trial of this sweep.
        """
        self._is_capped, self._keep, self._here = is_capped, keep, None
        self._chosen = None  # found when a sampler looks; many do not

    def only(self, here: Callable[[FrozenTrial], bool] | None) -> None:
        """Show only those of the chosen trials for which `here` holds; all for `None`."""
        self._here = here

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        """Return the trials that are shown."""
        return self._get_trials(deepcopy, states)

    def _get_trials(self, deepcopy: bool = True, states: Any = None, use_cache: bool = False) -> list[FrozenTrial]:
        here = self._here
        if self._chosen is None:
            self._chosen = self._choose()
        return [t for t in self._chosen if (states is None or t.state in states) and (here is None or here(t))]

    def stop(self) -> None:
        """Do nothing: a sampler that has tried all points says so, but the coordinator knows the budget."""

    def _choose(self) -> list[FrozenTrial]:
        if not self._is_capped or len(self._finished) <= MOST_SHOWN:
            trials = [trial for trial in self._memory.trials if trial.state is not TrialState.WAITING]
            return self._prior + (trials if self._keep is None else list(filter(self._keep, trials)))
        finished, keep = self._finished, self._keep
        if keep is not None:
            finished = [number for number in finished if number < 0 or keep(self._trial(number))]
        kept = set(self._best(finished))
        for number in reversed(finished):
            if len(kept) >= MOST_SHOWN:
                break
            kept.add(number)
        in_flight = (number for number in self._in_flight if keep is None or keep(self._trial(number)))
        return [self._trial(number) for number in sorted(kept.union(in_flight))]

    def _best(self, finished: list[int]) -> list[int]:
        """Return the numbers of the best feasible trials."""
        if len(self.directions) == 1:
            if self._keep is None:
                return [number for _, number in self._ranking[:BEST_SHOWN]]
            among = set(finished)
            return [number for _, number in self._ranking if number in among][:BEST_SHOWN]
        trials = [self._trial(number) for number in finished]
        trials = [trial for trial in trials if trial.state is TrialState.COMPLETE and is_feasible(trial)]
        if len(trials) <= BEST_SHOWN:
            return [trial.number for trial in trials]
        signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in self.directions]
        losses = np.array([trial.values for trial in trials]) * signs
        order = np.argsort(_fast_non_domination_rank(losses, n_below=BEST_SHOWN), kind="stable")
        return [trials[place].number for place in order[:BEST_SHOWN]]

    def _trial(self, number: int) -> FrozenTrial:
        return self._prior[number] if number < 0 else self._memory.trials[number]


def is_feasible(trial: FrozenTrial) -> bool:
    """Tell whether a trial keeps every constraint."""
    return all(violation <= 0 for violation in trial.constraints.values())
