"""Writes the stores in `golden/` with the real tools, and beside each what the tool itself says is in it.

Each tool needs an environment of its own: `python -m venv V && V/bin/pip install wandb pillow numpy pandas`, then
`V/bin/python make_golden.py wandb` (likewise `mlflow`; `trackio pandas pillow`; `aim`; `dvclive scikit-learn pillow`;
`clearml pillow pandas`). For `neptune`, a checkout of neptune-exporter's `src` on PYTHONPATH and pyarrow.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The script runs as a copy outside of its repository: tools write down where a program lies, and what is not committed.
HOME = Path(os.environ.get("GOLDEN_HOME") or Path(__file__).parent)
GOLDEN = HOME / "golden"
LOSS = [1.0, 0.5, 0.3333333333333333, 0.25, 0.2]
LONG = "y" * 5000
PARAMS = {"lr": 0.1, "layers": [64, 32], "model": {"act": "relu", "width": 64}, "long": LONG, "odd näme": True}
ODD = [float("nan"), float("inf"), float("-inf")]


def picture() -> Any:
    """Return a black square."""
    import numpy as np

    return np.zeros((4, 4, 3), np.uint8)


def wandb() -> dict[str, Any]:
    import wandb

    settings = wandb.Settings(x_stats_sampling_interval=1, console="redirect", x_executable="python")
    run = wandb.init(
        project="digits",
        name="first näme",
        mode="offline",
        config=PARAMS,
        tags=["baseline", "a b"],
        notes="some *notes*",
        group="g1",
        job_type="train",
        settings=settings,
    )
    run.define_metric("val/*", step_metric="epoch", summary="max")
    for step, loss in enumerate(LOSS):
        run.log(
            {"loss": loss, "epoch": step // 2, "big": 2**60 + step, "ok": step % 2 == 0, "nested": {"a": {"b": step}}}
        )
    for value in ODD:
        run.log({"odd @=[δ]": value})
    run.log({"text": "hello wörld"})
    run.log({"img": wandb.Image(picture(), caption="black")})
    run.log({"hist": wandb.Histogram([1, 2, 3, 3, 3], num_bins=4)})
    run.log({"tab": wandb.Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]])})
    run.log({"html": wandb.Html("<b>x</b>")})
    run.summary["best"] = 0.5
    run.summary["loss"] = 0.1
    print("hello from the run", flush=True)
    time.sleep(2.5)
    Path("data.txt").write_text("some data")
    artifact = wandb.Artifact("ds", "dataset", metadata={"n": 3})
    artifact.add_file("data.txt", "sub/data.txt")
    run.log_artifact(artifact)
    Path(run.dir, "saved.txt").write_text("saved")
    run.alert("title", "alert text")
    run.finish(exit_code=3)
    # a second one that is killed: no exit, no summary
    program = (
        "import os, wandb\nsettings = wandb.Settings(x_executable='python')\n"
        "run = wandb.init(project='digits', name='killed', mode='offline', id='killed01', settings=settings)\n"
        # wandb writes 32 KiB at a time: a shorter run that is killed leaves nothing
        "for step in range(400): run.log({'loss': step})\nimport time; time.sleep(3)\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    return {"runs": 2, "id": run.id, "killed_logged": 400}


def _mlflow(uri: str) -> dict[str, Any]:
    import mlflow
    import numpy as np
    from mlflow.entities import ViewType

    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    experiment = mlflow.create_experiment("digits, odd: näme")
    with mlflow.start_run(experiment_id=experiment, run_name="outer") as outer:
        mlflow.log_params({"lr": 0.1, "a/b": "x", "long": LONG, "model.width": 64, "none": None, "flag": True})
        for step, loss in enumerate(LOSS):
            mlflow.log_metric("loss", loss, step=step)
        for value in ODD:
            mlflow.log_metric("n/an", value, step=1)
        mlflow.log_metric("back", 1.0, step=5)
        mlflow.log_metric("back", 2.0, step=2)
        mlflow.log_text("hello", "notes/a.txt")
        mlflow.log_text("top", "top.txt")
        mlflow.set_tags({"mlflow.note.content": "# notes", "team": "vision"})
        data = mlflow.data.from_numpy(np.arange(6.0).reshape(3, 2), name="nums")
        mlflow.log_input(data, context="train")
        with mlflow.start_run(experiment_id=experiment, run_name="inner", nested=True):
            mlflow.log_metric("m", 2.0)
    try:
        with mlflow.start_run(experiment_id=experiment, run_name="bad"):
            raise RuntimeError("on purpose")
    except RuntimeError:
        pass
    with mlflow.start_run(experiment_id=experiment, run_name="gone") as gone:
        mlflow.log_metric("m", 1.0)
    client.delete_run(gone.info.run_id)
    client.create_registered_model("odd model", tags={"team": "x"}, description="what it is")
    source = f"runs:/{outer.info.run_id}/notes"
    client.create_model_version("odd model", source, outer.info.run_id, tags={"q": "1"}, description="v one")
    client.create_model_version("odd model", source, outer.info.run_id)
    client.create_model_version("odd model", source, outer.info.run_id)
    client.delete_model_version("odd model", "3")
    client.set_registered_model_alias("odd model", "champion", "2")
    client.transition_model_version_stage("odd model", "1", "Production")
    runs = {}
    for run in client.search_runs([experiment], run_view_type=ViewType.ALL):
        info, history = run.info, {}
        for name in run.data.metrics:
            points = client.get_metric_history(info.run_id, name)
            history[name] = [[point.step, point.timestamp, point.value] for point in points]
        runs[info.run_id] = {
            "name": info.run_name,
            "status": info.status,
            "start": info.start_time,
            "end": info.end_time,
            "stage": info.lifecycle_stage,
            "params": run.data.params,
            "tags": run.data.tags,
            "metrics": history,
            "artifacts": _artifacts(client, info.run_id, None),
            "inputs": [[one.dataset.name, one.dataset.digest] for one in run.inputs.dataset_inputs],
        }
    versions = {one.version: one.current_stage for one in client.search_model_versions("name = 'odd model'")}
    return {"runs": runs, "versions": versions, "aliases": {"champion": "2"}}


def _artifacts(client: Any, run_id: str, folder: str | None) -> list[str]:
    found = []
    for one in client.list_artifacts(run_id, folder):
        found += _artifacts(client, run_id, one.path) if one.is_dir else [one.path]
    return found


def mlflow_db() -> dict[str, Any]:
    return _mlflow("sqlite:///mlflow.db")


def mlflow_folder() -> dict[str, Any]:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    return _mlflow("./mlruns")


def trackio() -> dict[str, Any]:
    os.environ["TRACKIO_DIR"] = str(Path("trackio").absolute())
    import pandas as pd
    import trackio

    run = trackio.init(project="digits", name="first näme", config=PARAMS, group="g1")
    for step, loss in enumerate(LOSS):
        trackio.log({"loss": loss, "train/acc": step})
    for value in ODD:
        trackio.log({"odd @=[δ]": value})
    trackio.log({"text": "hello", "nested": {"a": 1}}, step=100)
    trackio.log({"img": trackio.Image(picture(), caption="black")})
    trackio.log({"tab": trackio.Table(dataframe=pd.DataFrame({"a": [1, 2]}))})
    trackio.log({"hist": trackio.Histogram([1, 2, 3], num_bins=4)})
    trackio.alert("title", text="hi", level=trackio.AlertLevel.WARN)
    trackio.finish()
    run = trackio.init(project="digits", name="second")
    trackio.log({"loss": 2.0})
    artifact = trackio.Artifact("ds", type="dataset")
    Path("d.txt").write_text("some data")
    artifact.add_file("d.txt")
    run.log_artifact(artifact)
    trackio.finish()
    from trackio import fragments

    record = fragments.metric_record(
        {"project": "waiting", "run": "third", "run_id": "abc", "metrics": {"loss": float("nan")}, "step": 3,
         "timestamp": "2026-11-23T16:05:48.121210+00:00", "config": {"lr": 1}, "log_id": "one"}
    )  # fmt: skip
    fragments.FragmentWriter("w").write_local([record, record])
    return {"runs": 3}


def aim() -> dict[str, Any]:
    from aim import Distribution, Image, Run, Text

    run = Run(repo=".", experiment="digits", capture_terminal_logs=True)
    run.name, run.description = "first näme", "some notes"
    run.add_tag("baseline")
    run["hparams"] = PARAMS
    for step, loss in enumerate(LOSS):
        run.track(loss, name="loss", step=step, epoch=step // 2, context={"subset": "train"})
        run.track(loss / 2, name="loss", step=step, context={"subset": "val", "fold": 1})
    for step, value in enumerate(ODD):
        run.track(value, name="odd @=[δ]", step=step)
    run.track(Text("hello"), name="text", step=0)
    run.track(Image(picture(), caption="black"), name="img", step=0)
    run.track(Distribution([1, 2, 3, 3]), name="dist", step=0)
    print("a printed line", flush=True)
    run.close()
    return {"hash": run.hash}


def dvclive() -> dict[str, Any]:
    from dvclive import Live

    with Live("dvclive", save_dvc_exp=False, dvcyaml=None) as live:
        live.log_params(PARAMS)
        for step, loss in enumerate(LOSS):
            live.log_metric("train/loss", loss, timestamp=True)
            if step < len(ODD):
                live.log_metric("odd @=[δ]", ODD[step])
            live.next_step()
        live.log_image("pic.png", picture())
        live.log_sklearn_plot("confusion_matrix", [0, 1, 1], [0, 1, 0])
    return {}


def clearml() -> dict[str, Any]:
    os.environ["CLEARML_CACHE_DIR"] = str(Path("cache").absolute())
    os.environ["HOME"] = str(Path.cwd())
    from clearml import Logger, Task

    Task.set_offline(True)
    task = Task.init(
        "digits", "first näme", auto_connect_frameworks=False, auto_connect_arg_parser=False, tags=["base"]
    )
    task.connect(dict(PARAMS), name="General")
    task.connect_configuration({"a": {"b": 1}}, name="conf")
    task.set_comment("some notes")
    Logger.set_reporting_nan_value(None)
    logger = task.get_logger()
    for step, loss in enumerate(LOSS):
        logger.report_scalar("loss", "train", loss, step)
    logger.report_single_value("final", 0.5)
    logger.report_histogram("h", "s", [1, 2, 3], iteration=0)
    logger.report_image("img", "black", iteration=0, image=picture())
    print("a printed line", flush=True)
    Path("f.txt").write_text("some data")
    task.upload_artifact("file", "f.txt")
    task.upload_artifact("data", {"x": 1})
    time.sleep(3)
    task.close()
    (archive,) = Path("cache/offline").glob("*.zip")
    archive.rename("session.zip")
    return {"id": task.id}


def neptune() -> dict[str, Any]:
    import datetime
    from decimal import Decimal

    import pyarrow as pa
    from neptune_exporter.model import SCHEMA
    from neptune_exporter.storage.parquet_writer import ParquetWriter

    start = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    writer = ParquetWriter(Path("exports/data"))

    def rows(run: str) -> list[dict[str, Any]]:
        def row(path: str, kind: str, **values: Any) -> dict[str, Any]:
            return {"project_id": "org/digits", "run_id": run, "attribute_path": path, "attribute_type": kind, **values}

        found = [
            row("sys/name", "string", string_value="first näme"),
            row("sys/custom_run_id", "string", string_value=run),
            row("sys/creation_time", "datetime", datetime_value=start),
            row("sys/tags", "string_set", string_set_value=["baseline", "a b"]),
            row("sys/failed", "bool", bool_value=False),
            row("params/lr", "float", float_value=0.1),
            row("params/width", "int", int_value=64),
            row("params/long", "string", string_value=LONG),
        ]
        if run == "child":
            found.append(row("sys/forking/parent", "string", string_value="first"))
        for number, value in enumerate([*LOSS, *ODD]):
            step, at = Decimal(number) / 2, start + datetime.timedelta(seconds=number)
            found.append(row("metrics/train/loss", "float_series", step=step, timestamp=at, float_value=value))
        at = start + datetime.timedelta(seconds=1)
        found.append(row("monitoring/1/stdout", "string_series", step=Decimal(0), timestamp=at, string_value="a line"))
        found.append(row("samples/text", "string_series", step=Decimal(1), timestamp=at, string_value="hello"))
        told = {"type": "COUNTING", "edges": [0.0, 1.0, 2.0], "values": [3.0, 4.0]}
        found.append(row("hist", "histogram_series", step=Decimal(1), timestamp=at, histogram_value=told))
        found.append(row("files/notes", "file", file_value={"path": f"{run}/files/notes.txt"}))
        return found

    for run in ("first", "child"):
        with writer.run_writer("org/digits", run) as one:
            one.save(pa.RecordBatch.from_pylist(rows(run), schema=SCHEMA))
    (project,) = Path("exports/data").iterdir()
    for run in ("first", "child"):
        file = Path("exports/files", project.name, run, "files", "notes.txt")
        file.parent.mkdir(parents=True)
        file.write_text("some data")
    return {"runs": 2}


MAKERS: dict[str, list[Callable[[], dict[str, Any]]]] = {
    "wandb": [wandb],
    "mlflow": [mlflow_db, mlflow_folder],
    "trackio": [trackio],
    "aim": [aim],
    "dvclive": [dvclive],
    "clearml": [clearml],
    "neptune": [neptune],
}
_NOT_KEPT = ("logs", "LOG", "LOCK", "__pycache__", "tmp")


def main(tool: str) -> None:
    """Write the stores of one tool."""
    for maker in MAKERS[tool]:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            told = maker()
            name = maker.__name__
            with tarfile.open(GOLDEN / f"{name}.tar.xz", "w:xz") as archive:
                for path in sorted(Path().rglob("*")):
                    is_kept = path.is_file() and not path.is_symlink() and not set(path.parts) & {*_NOT_KEPT}
                    if is_kept and (tool != "clearml" or path.name == "session.zip"):
                        archive.add(path, recursive=False)
            (GOLDEN / f"{name}.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
            if tool == "aim":  # what our reader prints of it, for tests without Aim
                shutil.rmtree(".aim/meta/index", ignore_errors=True)  # as our reader does: it lags behind
                script = HOME.parents[1] / "src/runstone/importers/aim_script.py"
                printed = subprocess.run([sys.executable, "-I", script, folder], capture_output=True, check=True)
                (GOLDEN / "aim.jsonl").write_bytes(printed.stdout)
            os.chdir("/")


if __name__ == "__main__":
    if "GOLDEN_HOME" in os.environ:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as elsewhere:
            copy = shutil.copy(__file__, elsewhere)
            environment = {**os.environ, "GOLDEN_HOME": str(HOME.absolute())}
            subprocess.run([sys.executable, copy, sys.argv[1]], env=environment, cwd=elsewhere, check=True)
