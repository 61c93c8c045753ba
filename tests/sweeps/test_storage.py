"""`storage:` in a config: Optuna's own tools find the same trials there."""

from __future__ import annotations

import optuna

from .conftest import Place


def test_a_sweep_with_a_storage_is_found_there_when_it_ends(place: Place) -> None:
    place.sweep("run", place.config("storage: sqlite:///study.db\n", trials=4))
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{place.path / 'study.db'}")
    found = {trial.number: trial.value for trial in study.trials}
    assert found == {trial.number: trial.value for trial in place.record.trials.values()}
    assert len(found) == 4


def test_a_storage_that_cannot_be_reached_is_said_and_stops_nothing(place: Place) -> None:
    printed = place.sweep("run", place.config("storage: sqlite:////nowhere/at/all.db\n", trials=2))
    assert len(place.record.ranked()) == 2
    assert "storage" in printed
