"""Tools that log to MLflow, as they come from PyPI and unchanged, against a server in a process of its own."""

from __future__ import annotations

import math
import subprocess
from typing import Any

import pytest

from runstone.runinfo import RunInfo
from runstone.status import Status
from tests.mlflow.conftest import Real

_QUIET = "import logging, warnings\nwarnings.simplefilter('ignore')\nlogging.disable(logging.CRITICAL)\n"


def done_with(real: Real, *modules: str, script: str) -> dict[str, Any]:
    """Run a script that uses a tool, and return what it prints last; skip where the tool is not there."""
    wanted = [f"__import__('importlib.util').util.find_spec({module!r}) is not None" for module in modules]
    look = f"import sys; sys.exit(0 if {' and '.join(wanted)} else 3)"
    if subprocess.run([real.python, "-c", look], check=False, capture_output=True).returncode:
        pytest.skip(f"{' and '.join(modules)}: not in the environment of MLflow's client")
    return real.do(_QUIET + script, CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def only_run(real: Real, project: str) -> RunInfo:
    """Return the run of a project."""
    (found,) = real.workspace.runs(f"project = '{project}'")
    return real.workspace.run(found.id)


def test_scikit_learn_autologs_its_params_its_scores_and_its_model(real: Real) -> None:
    found = done_with(
        real,
        "sklearn",
        script="""
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
mlflow.set_experiment("sklearn")
mlflow.sklearn.autolog()
x, y = load_iris(return_X_y=True)
with mlflow.start_run() as run:
    model = LogisticRegression(C=0.5, max_iter=200).fit(x, y)
    score = model.score(x, y)
again = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
print(json.dumps({"score": score, "same": bool((again.predict(x) == model.predict(x)).all())}))
""",
    )
    own = only_run(real, "sklearn")
    assert found["same"]
    assert own.status is Status.FINISHED
    assert (own.params["C"], own.params["max_iter"]) == (0.5, 200)
    assert own.metrics["training_score"].last == pytest.approx(found["score"])
    assert own.tags["estimator_name"] == "LogisticRegression"
    (model,) = (one for one in own.artifacts if one.is_folder)
    assert "MLmodel" in {one.path for one in model.files}


def test_optuna_s_callback_makes_a_run_of_each_trial(real: Real) -> None:
    done_with(
        real,
        "optuna",
        "optuna_integration",
        script="""
import os
import optuna
from optuna_integration.mlflow import MLflowCallback
tells = MLflowCallback(tracking_uri=os.environ["MLFLOW_TRACKING_URI"], metric_name="loss")
study = optuna.create_study(study_name="optuna", sampler=optuna.samplers.RandomSampler(seed=0))
@tells.track_in_mlflow()
def objective(trial):
    x = trial.suggest_float("x", -1.0, 1.0)
    mlflow.log_metric("inner", x)
    return x * x
study.optimize(objective, n_trials=3, callbacks=[tells])
print("{}")
""",
    )
    runs = [real.workspace.run(one.id) for one in real.workspace.runs("project = 'optuna'")]
    assert len(runs) == 3
    for one in runs:
        assert one.status is Status.FINISHED
        x = one.params["x"]
        assert isinstance(x, float)
        assert one.metrics["loss"].last == pytest.approx(x * x)
        assert one.metrics["inner"].last == pytest.approx(x)


@pytest.mark.heavy
def test_lightning_s_logger_logs_a_training(real: Real) -> None:
    found = done_with(
        real,
        "pytorch_lightning",
        script="""
import os, tempfile
import torch
import pytorch_lightning as pl
from pytorch_lightning.loggers import MLFlowLogger
class Line(pl.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, _number):
        loss = self.layer(batch).pow(2).mean()
        self.log("train_loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(8, 2), batch_size=2)
logger = MLFlowLogger("lightning", tracking_uri=os.environ["MLFLOW_TRACKING_URI"], log_model=True)
trainer = pl.Trainer(max_epochs=2, logger=logger, log_every_n_steps=1, enable_progress_bar=False,
    enable_model_summary=False, default_root_dir=tempfile.mkdtemp(), accelerator="cpu")
trainer.fit(Line(0.125))
print(json.dumps({"run": logger.run_id}))
""",
    )
    own = real.workspace.run(found["run"])
    assert (own.status, own.project) == (Status.FINISHED, "lightning")
    assert own.params["lr"] == 0.125
    series = own.series("train_loss")
    assert series.step.tolist() == list(range(8))
    assert all(math.isfinite(value) for value in series.value.tolist())
    assert any(entry.path.endswith(".ckpt") for one in own.artifacts for entry in one.files)


@pytest.mark.heavy
def test_transformers_reports_a_training(real: Real) -> None:
    done_with(
        real,
        "transformers",
        "accelerate",
        script="""
import os, tempfile
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
mlflow.set_experiment("transformers")
small = BertConfig(vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
rows = [{"input_ids": [1, 2, 3], "attention_mask": [1, 1, 1], "labels": number % 2} for number in range(8)]
arguments = TrainingArguments(output_dir=tempfile.mkdtemp(), report_to="mlflow", logging_steps=1, max_steps=4,
    per_device_train_batch_size=2, use_cpu=True, save_strategy="no", disable_tqdm=True)
Trainer(model=BertForSequenceClassification(small), args=arguments, train_dataset=rows).train()
mlflow.end_run()
print("{}")
""",
    )
    own = only_run(real, "transformers")
    assert own.status is Status.FINISHED
    assert own.params["max_steps"] == 4
    assert own.params["hidden_size"] == 8
    assert own.series("loss").step.tolist() == [1, 2, 3, 4]


def test_xgboost_autologs_a_training(real: Real) -> None:
    done_with(
        real,
        "xgboost",
        script="""
import numpy as np
import xgboost
mlflow.set_experiment("xgboost")
mlflow.xgboost.autolog()
data = np.random.default_rng(0).normal(size=(60, 3))
with mlflow.start_run():
    rows = xgboost.DMatrix(data, label=(data[:, 0] > 0).astype(int))
    xgboost.train({"objective": "binary:logistic", "max_depth": 2, "eta": 0.25}, rows, num_boost_round=5,
        evals=[(rows, "train")], verbose_eval=False)
print("{}")
""",
    )
    own = only_run(real, "xgboost")
    assert own.status is Status.FINISHED
    assert (own.params["max_depth"], own.params["eta"]) == (2, 0.25)
    assert own.series("train-logloss").step.tolist() == list(range(5))
    assert "feature_importance_weight.json" in {one.name for one in own.artifacts}
