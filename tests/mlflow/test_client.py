"""The real client of MLflow, in a Python of its own, against a server in a process of its own."""

from __future__ import annotations

from pathlib import Path

from runstone.server.mlflow.values import HIDDEN
from runstone.status import Status
from tests.mlflow.conftest import Real, Served


def test_a_run_that_the_client_logs_is_a_run_here(real: Real) -> None:
    found = real.do("""
mlflow.set_experiment("digits")
with mlflow.start_run(run_name="one") as run:
    mlflow.log_params({"lr": 0.1, "word": "mlp"})
    for step in range(20):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metrics({"a": 1.0, "b": 2.0}, step=2)
    mlflow.log_text("hello", "notes/a b.txt")
    with mlflow.start_run(nested=True) as inner:
        mlflow.log_metric("m", 1)
frame = mlflow.search_runs(filter_string="metrics.loss < 0.06 and params.lr = '0.1'")
print(json.dumps({
    "run": run.info.run_id, "inner": inner.info.run_id, "found": list(frame.run_id),
    "history": [one.value for one in client.get_metric_history(run.info.run_id, "loss")],
    "files": [one.path for one in client.list_artifacts(run.info.run_id, "notes")],
    "text": mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/a b.txt"),
}))
""")
    assert found["found"] == [found["run"]]
    assert found["history"] == [1 / (step + 1) for step in range(20)]
    assert found["files"] == ["notes/a b.txt"]
    assert found["text"] == "hello"
    own = real.workspace.run(found["run"])
    assert (own.status, own.project, own.name, len(own.attempts)) == (Status.FINISHED, "digits", "one", 1)
    assert own.params == {"lr": 0.1, "word": "mlp"}
    assert own.series("loss").step.tolist() == list(range(20))
    assert not any(key.startswith(HIDDEN) and "unordered" in key for key in own.tags)
    assert real.workspace.run(found["inner"]).parent == found["run"]


def test_a_model_is_logged_registered_aliased_promoted_and_loaded(real: Real) -> None:
    found = real.do("""
class Same(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input
with mlflow.start_run() as run:
    mlflow.pyfunc.log_model(name="model", python_model=Same(), registered_model_name="net")
client.set_registered_model_alias("net", "champion", 1)
mlflow.pyfunc.load_model("models:/net@champion")
mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
second = mlflow.register_model(f"runs:/{run.info.run_id}/model", "net")
client.transition_model_version_stage("net", "1", "Production")
print(json.dumps({
    "version": second.version, "stage": client.get_model_version("net", "1").current_stage,
    "models": [one.name for one in client.search_registered_models()],
    "versions": sorted(int(one.version) for one in client.search_model_versions("name = 'net'")),
}))
""")
    assert found == {"version": "2", "stage": "Production", "models": ["net"], "versions": [1, 2]}
    assert real.workspace.models.find("net@champion").stage == "production"


def test_what_was_logged_survives_that_the_server_is_killed(real: Real, tmp_path: Path) -> None:
    served = Served(real.workspace, tmp_path / "log")
    with served as url:
        first = Real(real.python, url, real.token, real.workspace).do("""
run = client.create_run("0")
client.log_metric(run.info.run_id, "m", 1.0, step=0)
client.log_param(run.info.run_id, "p", 5)
print(json.dumps({"run": run.info.run_id}))
""")
        served.kill()
    assert real.workspace.run(first["run"]).status is Status.RUNNING
    real.do(f"""
client.log_metric("{first["run"]}", "m", 2.0, step=1)
client.set_terminated("{first["run"]}", "FAILED")
print("{{}}")
""")
    own = real.workspace.run(first["run"])
    assert (own.status, len(own.attempts), own.params) == (Status.FAILED, 1, {"p": 5})
    assert own.series("m").value.tolist() == [1.0, 2.0]
