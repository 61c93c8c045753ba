"""`runstone autolog`: the switch, and what Lightning finds through real entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import runstone
from runstone.cli.main import run as command
from runstone_integrations.autolog import lightning_callbacks

GROUPS = ("lightning.pytorch.callbacks_factory", "pytorch_lightning.callbacks_factory")


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the switch of this user lies; it is off."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("RUNSTONE_AUTOLOG", raising=False)
    return tmp_path / "config" / "runstone" / "autolog"


def test_the_switch_is_off_until_it_is_turned_on(switch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not runstone.is_autolog_on()
    assert lightning_callbacks() == []
    for word, is_on in (("on", True), ("on", True), ("off", False), ("off", False)):
        assert command(["autolog", word]) == 0
        assert runstone.is_autolog_on() is is_on
        assert switch.exists() is is_on
        assert command(["autolog", "status"]) == 0
        assert f"autolog is {word} ({switch})" in capsys.readouterr().out


def test_the_environment_decides_over_the_switch(
    switch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for told, is_on in (("on", True), ("1", True), ("off", False), ("0", False)):
        monkeypatch.setenv("RUNSTONE_AUTOLOG", told)
        assert command(["autolog", "off" if is_on else "on"]) == 0
        assert f"turns it {'on' if is_on else 'off'} in this shell" in capsys.readouterr().err
        assert runstone.is_autolog_on() is is_on
    monkeypatch.setenv("RUNSTONE_AUTOLOG", "maybe")
    assert command(["autolog", "status"]) == 2
    assert "must be 'on' or 'off'" in capsys.readouterr().err


def test_the_factory_never_raises(
    switch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNSTONE_AUTOLOG", "maybe")
    assert lightning_callbacks() == []
    assert "autolog is not possible" in capsys.readouterr().err


def test_nothing_is_loaded_while_it_is_off() -> None:
    code = (
        "import sys, runstone_integrations.autolog as a; before = 'runstone' in sys.modules;"
        "print(before, a.lightning_callbacks(), 'runstone_integrations.lightning' in sys.modules)"
    )
    environment = {**os.environ, "RUNSTONE_AUTOLOG": "off"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert result.stdout == "False [] False\n"


SCRIPT = """
import logging, sys, warnings
warnings.filterwarnings("ignore")
import torch
if "twin" in sys.argv:
    import pytorch_lightning as pl
else:
    import lightning.pytorch as pl

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)
    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(8, 4), batch_size=4)

callbacks = [pl.callbacks.ModelCheckpoint("saved", filename=sys.argv[1])]
if "explicit" in sys.argv:
    from runstone_integrations.lightning import TrackingCallback
    callbacks.append(TrackingCallback(project="mine"))
one = pl.Trainer(callbacks=callbacks, max_epochs=2 if "resume" in sys.argv else 1, logger=False, accelerator="cpu",
                 log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False)
print([type(each).__name__ for each in one.callbacks])
one.fit(Model(), ckpt_path="saved/first.ckpt" if "resume" in sys.argv else None)
"""


def _train(place: Path, *words: str, told: str) -> list[runstone.RunInfo]:
    """Train in a process that finds the factory as an installed package offers it; return all runs, oldest first."""
    found = place / "site" / "runstone-0.dist-info"
    if not found.exists():
        found.mkdir(parents=True)
        (found / "METADATA").write_text("Metadata-Version: 2.1\nName: runstone\nVersion: 0\n")
        line = "runstone = runstone_integrations.autolog:lightning_callbacks\n"
        (found / "entry_points.txt").write_text("\n".join(f"[{group}]\n{line}" for group in GROUPS))
    (place / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTONE_")}
    environment |= {"PYTHONPATH": str(place / "site"), "RUNSTONE_AUTOLOG": told, "RUNSTONE_SYSTEM_METRICS": "0"}
    result = subprocess.run(
        [sys.executable, "script.py", *words],
        cwd=place,
        env=environment | {"RUNSTONE_WORKSPACE": str(place / "ws"), "RUNSTONE_ON_ERROR": "raise"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [runstone.RunInfo(folder) for folder in sorted((place / "ws" / "runs").glob("*/*"))]


@pytest.mark.heavy
@pytest.mark.timeout(240)
@pytest.mark.parametrize("package", ["lightning", "twin"])
def test_a_script_that_knows_nothing_of_runstone_is_recorded_only_while_it_is_on(package: str, tmp_path: Path) -> None:
    pytest.importorskip("lightning" if package == "lightning" else "pytorch_lightning")
    assert _train(tmp_path, "first", package, told="off") == []
    (info,) = _train(tmp_path, "first", package, told="on")
    assert info.status == "finished"
    assert info.series("loss").step.tolist() == [0, 1]
    assert [artifact.name for artifact in info.artifacts] == ["checkpoints/last"]


@pytest.mark.heavy
@pytest.mark.timeout(240)
def test_B6_beside_an_explicit_callback_there_is_one_run_which_either_resumes(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    (first,) = _train(tmp_path, "first", "explicit", told="on")
    assert (first.project, first.status) == ("mine", "finished")
    assert first.series("loss").step.tolist() == [0, 1]
    (resumed,) = _train(tmp_path, "second", "resume", told="on")
    assert resumed.id == first.id
    assert resumed.series("loss").step.tolist() == [0, 1, 2, 3]
    assert len(resumed.attempts) == 2
