"""The copy of a sweep in an Optuna storage on PostgreSQL: a private server on a unix socket, ended with the test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from runstone_sweeps.mirror import follow
from runstone_sweeps.store import SweepFolder
from runstone_sweeps.study.storing import stored_name
from tests.postgres import Postgres, running

from . import made
from .conftest import Place
from .test_mirror import expected, quiet, told_of

pytestmark = pytest.mark.filterwarnings("ignore:.*is experimental:optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def server() -> Iterator[Postgres]:
    yield from running()


def storage_in(server: Postgres) -> str:
    return server.url.replace("postgresql:", "postgresql+psycopg:", 1)


@contextlib.contextmanager
def study_in(url: str, folder: SweepFolder) -> Iterator[optuna.Study]:
    storage = optuna.storages.RDBStorage(url)
    try:
        yield optuna.load_study(study_name=stored_name(folder.read()), storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def has_study(url: str) -> bool:
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        (name,) = connection.execute("select to_regclass('studies')").fetchone() or (None,)
        return name is not None and connection.execute("select 1 from studies").fetchone() is not None


def test_a_sweep_is_copied_to_postgresql_while_the_server_dies_and_comes_back(place: Place, server: Postgres) -> None:
    # From the third trial on they wait until the server is gone.
    place.script(
        "train.py",
        "import os, pathlib, time, runstone\nrun = runstone.start_run(environment=False)\n"
        "while int(run.name.rpartition('-')[2]) > 1 and not pathlib.Path('gone').exists(): time.sleep(0.02)\n"
        "for step in range(30): run.log({'loss': runstone.trial_params()['x'] ** 2 + 1 / (step + 1)}, step=step)\n",
    )
    process = place.start("run", place.config(f"pruner: none\nstorage: {storage_in(server)}\n", trials=16, parallel=2))
    place.until(lambda: len(place.events_of("told")) == 2, process)
    place.until(lambda: has_study(storage_in(server)), process)
    server.stop()
    (place.path / "gone").touch()
    place.until(lambda: len(place.events_of("told")) >= 5, process)  # the sweep does not wait for it
    server.start()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    log = place.folder.path / "mirror.log"
    place.until(lambda: "it is there again, and nothing is missing" in log.read_text())
    with study_in(storage_in(server), place.folder) as study:
        place.until(lambda: all(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)))
        trials = study.trials
    found = {trial.number: trial.value for trial in trials}
    assert found == {trial.number: trial.value for trial in place.record.trials.values()}
    assert len(found) == 16
    assert all(len(trial.intermediate_values) == 30 for trial in trials)
    assert "secret" not in log.read_text()


def test_all_that_optunas_tools_read_is_the_same_as_in_memory(tmp_path: Path, server: Postgres) -> None:
    folder = made.write(tmp_path / "s1", made.searched(30, running=2))
    assert follow(SweepFolder(folder), storage_in(server), say=quiet)
    with study_in(storage_in(server), SweepFolder(folder)) as study:
        assert told_of(study) == expected(folder)
