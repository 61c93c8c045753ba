"""`RunstoneLogger` in real scripts of Lightning Fabric, with one process and with two."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("torch")

import torch
from lightning.fabric import Fabric

import runstone
from runstone_integrations.fabric import RunstoneLogger

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
]


def _fabric(*loggers: Any) -> Any:
    return Fabric(accelerator="cpu", devices=1, loggers=list(loggers))


@pytest.fixture
def logger(tmp_path: Path) -> RunstoneLogger:
    return RunstoneLogger(project="digits", tags={"kind": "test"}, workspace=tmp_path / "ws", on_error="raise")


def _info(place: Path) -> runstone.RunInfo:
    (folder,) = (place / "ws" / "runs").glob("*/*")
    return runstone.RunInfo(folder)


def test_what_fabric_logs_lies_at_its_steps(logger: RunstoneLogger, tmp_path: Path) -> None:
    fabric = _fabric(logger)
    model = torch.nn.Linear(4, 1)
    module, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), 0.1))
    logger.log_hyperparams({"lr": 0.1, "layers": [4, 1], "activation": torch.nn.ReLU})
    logger.log_hyperparams(Namespace(depth=2))
    losses = []
    for step in range(0, 50, 10):
        loss = module(torch.ones(2, 4)).pow(2).mean()
        fabric.backward(loss)
        optimizer.step()
        losses.append(loss.item())
        fabric.log("loss", loss, step=step)
        fabric.log_dict({"train": {"norm": 2.0}, "epoch": 0}, step=step)
    assert logger.version == logger.run.id
    assert fabric.logger.name == logger.run.name
    logger.finalize("success")
    info = _info(tmp_path)
    assert (info.project, info.tags["kind"], info.status) == ("digits", "test", "finished")
    assert info.series("loss").step.tolist() == list(range(0, 50, 10))
    assert info.series("loss").value.tolist() == losses
    assert info.metrics["train/norm"].count == 5
    assert info.params == {
        "lr": 0.1,
        "layers": [4, 1],
        "activation": "torch.nn.modules.activation.ReLU",
        "depth": 2,
    }


def test_steps_are_counted_where_none_are_given_and_go_on_after_finalize(
    logger: RunstoneLogger, tmp_path: Path
) -> None:
    fabric = _fabric(logger)
    fabric.log("loss", 1.0)
    fabric.log("loss", 2.0)
    logger.finalize("aborted")
    assert _info(tmp_path).status == "stopped"
    fabric.log("loss", 3.0)
    logger.finalize("success")
    assert _info(tmp_path).series("loss").step.tolist() == [0, 1, 2]
    assert len(_info(tmp_path).attempts) == 1


def test_a_run_that_is_open_is_taken_and_left_open(logger: RunstoneLogger, tmp_path: Path) -> None:
    with runstone.start_run(workspace=tmp_path / "ws", environment=False) as run:
        _fabric(logger).log("loss", 1.0, step=7)
        logger.finalize("success")
        assert logger.run is run
        assert not run.is_finished
    assert _info(tmp_path).series("loss").step.tolist() == [7]


def test_a_run_goes_on_by_its_id_as_a_new_attempt(logger: RunstoneLogger, tmp_path: Path) -> None:
    for step in range(4):
        logger.log_metrics({"loss": 1.0}, step)
    logger.finalize("failed")
    again = RunstoneLogger(run_id=logger.version, workspace=tmp_path / "ws", on_error="raise")
    for step in range(2, 5):
        again.log_metrics({"loss": 2.0}, step)
    again.finalize("success")
    info = _info(tmp_path)
    assert info.series("loss").value.tolist() == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert [str(attempt.status) for attempt in info.attempts] == ["failed", "finished"]


def test_layers_are_a_table(logger: RunstoneLogger, tmp_path: Path) -> None:
    logger.log_graph(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()))
    logger.finalize("success")
    assert "torch.nn.modules.linear.Linear" in _info(tmp_path).series("model/layers").value[0]


def test_what_cannot_be_recorded_warns_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    logger = RunstoneLogger(workspace=tmp_path / "file" / "ws", on_error="warn")
    fabric = _fabric(logger)
    with pytest.warns(runstone.TrackingWarning) as caught:
        list(map(fabric.log, ["loss"] * 3, [1.0] * 3))
    assert len(caught) == 1


def test_what_the_logger_itself_cannot_record_warns_once_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = RunstoneLogger(workspace=tmp_path / "ws", on_error="warn")
    with warnings.catch_warnings():  # errors of warnings are none of the training's
        warnings.simplefilter("error")
        for _ in range(3):
            logger.log_hyperparams(5)
    told = capsys.readouterr().err
    assert told.count("training goes on, but log_hyperparams could not be recorded: TypeError") == 1
    logger.finalize("success")


def test_D4_a_copy_in_another_process_writes_to_the_same_run(logger: RunstoneLogger, tmp_path: Path) -> None:
    logger.log_metrics({"loss": 1.0}, 0)
    data = pickle.dumps(logger)
    assert len(data) < 2048
    pickle.loads(data).log_metrics({"other": 2.0}, 0)
    logger.finalize("success")
    assert set(_info(tmp_path).metrics) == {"loss", "other"}


SCRIPT = """
import sys, torch
from lightning.fabric import Fabric
from runstone_integrations.fabric import RunstoneLogger

def main(fabric):
    fabric.loggers[0].log_hyperparams({"lr": 0.1})
    for step in range(5):
        value = fabric.all_reduce(torch.tensor(float(fabric.global_rank)), reduce_op="sum")
        fabric.log("ranks", value, step=step)
    if "fail" in sys.argv:
        raise LookupError("on purpose")

if __name__ == "__main__":
    logger = RunstoneLogger(workspace="ws", on_error="raise")
    fabric = Fabric(accelerator="cpu", devices=int(sys.argv[1]), strategy=sys.argv[2], loggers=logger)
    fabric.launch(main)
"""


@pytest.mark.parametrize(
    ("devices", "strategy", "word", "status"),
    [(2, "ddp", "", "finished"), (2, "ddp_spawn", "", "finished"), (1, "auto", "fail", "failed")],
)
def test_D1_C2_ranks_make_one_run_that_ends_as_the_script_does(
    devices: int, strategy: str, word: str, status: str, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTONE_")}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "script.py", str(devices), strategy, word],
        cwd=tmp_path,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode != 0) is (word == "fail"), result.stderr
    info = _info(tmp_path)
    assert info.status == status
    assert info.series("ranks").value.tolist() == [float(devices - 1)] * 5
    assert info.params == {"lr": 0.1}
    assert (info.failure is not None and info.failure.type == "LookupError") is (word == "fail")
