"""Makes the run of a trial and starts its process: what a trial is told, and how it is called."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from runstone import LaunchedRun
from runstone_sweeps.coordinator.mlflow_client import serves
from runstone_sweeps.coordinator.work import RunningTrial, Work
from runstone_sweeps.executors.executor import TrialStart, TrialStarted
from runstone_sweeps.record import RunRecord, TrialRecord
from runstone_sweeps.space import nest
from runstone_sweeps.spec.command import build_command, uses_json_file
from runstone_sweeps.study import derive_seed


class Starter:
    """Starts runs of trials, and takes over those that an earlier session started."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._serves: dict[str, bool] = {}

    def start(self, trial: TrialRecord, record: RunRecord) -> None:
        """Start one run of a trial; there must be room."""
        work, spec = self._work, self._work.spec
        running = self._follow(trial, record)
        json_file = None
        if uses_json_file(spec.command):
            json_file = work.folder.path / f"params.{trial.number}.json"
            json_file.write_text(_json(nest(trial.params)), encoding="utf-8")
        command = build_command(
            trial.params,
            script=spec.script,
            command=spec.command,
            function=spec.function,
            metric=spec.metrics[0].name,
            environment=work.environment,
            json_file=json_file,
        )
        work.running[running.key] = running
        variables = self._variables(trial, record)
        work.executor.start(
            TrialStart(running.key, running.run.attempt, command, variables, spec.working_dir, running.console)
        )

    def adopt(self, trial: TrialRecord, record: RunRecord, living: TrialStarted) -> RunningTrial:
        """Return a run that an earlier session started and that still runs, to go on with it."""
        running = self._follow(trial, record, attempt=living.attempt)
        running.gpus = living.gpus
        running.last_heard_s = time.monotonic()
        running.started_s = running.last_heard_s - max(0.0, time.time() - (record.started_at or time.time()))
        self._work.running[running.key] = running
        return running

    def _follow(self, trial: TrialRecord, record: RunRecord, *, attempt: int | None = None) -> RunningTrial:
        work = self._work
        is_new = work.workspace.find_run_folder(record.run_id) is None
        run = self._made(trial, record) if is_new else work.workspace.launched_run(record.run_id, attempt=attempt)
        tail = work.workspace.follow(run.id)
        if not is_new:
            tail.poll()  # what an earlier attempt logged has been reported
        console = run.path / f"console.{run.attempt}.log"
        return RunningTrial(trial, record, run, tail, console, heard={} if is_new else None)

    def _made(self, trial: TrialRecord, record: RunRecord) -> LaunchedRun:
        work = self._work
        name = f"{work.record.name}-{trial.number}"
        tags = {"sweep": work.record.name, "trial": str(trial.number)}
        if len(trial.runs) > 1:
            name += f".{record.index}"
            tags["replicate"] = str(record.index)
        return work.workspace.create_run(
            project=work.project,
            name=name,
            params=nest(trial.params),
            tags=tags,
            group=work.record.sweep_id,
            run_id=record.run_id,
        )

    def _variables(self, trial: TrialRecord, record: RunRecord) -> dict[str, str]:
        work = self._work
        purpose: list[object] = ["trial", trial.number]
        if record.index:
            purpose += ["replicate", record.index]
        if record.tries["nan"]:  # the same seed would come to the same
            purpose += ["again", record.tries["nan"]]
        given = {**work.environment, **work.spec.env}
        return {
            **given,
            **self._for_mlflow(given, record.run_id),
            "RUNSTONE_WORKSPACE": str(work.workspace.path),
            "RUNSTONE_PROJECT": work.project,
            "RUNSTONE_GROUP": work.record.sweep_id,
            "RUNSTONE_RUN_ID": record.run_id,
            "RUNSTONE_TRIAL": _json(nest(trial.params)),
            "RUNSTONE_SEED": str(derive_seed(work.seed, *purpose)),
            "RUNSTONE_FACTS": str(work.folder.facts),
            "RUNSTONE_RETRY": str(record.tries.total()),
            "RUNSTONE_OOM_RETRY": str(record.tries["oom"]),
            "RUNSTONE_DISABLED": "0",  # a trial that records nothing has no result
        }

    def _for_mlflow(self, environment: Mapping[str, str], run_id: str) -> dict[str, str]:
        """Return what makes a trial that only knows MLflow log to its run, where it logs to this workspace's server."""
        uri = environment.get("MLFLOW_TRACKING_URI", "")
        if uri not in self._serves:
            self._serves[uri] = serves(environment, run_id)
        return {"MLFLOW_RUN_ID": run_id} if self._serves[uri] else {}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
