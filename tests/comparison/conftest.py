"""A workspace with runs of known worth."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import runstone

WORTH = {"mlp": 0.90, "cnn": 0.94, "vit": 0.95}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models with eight seeds each; the seed moves all of them alike, and accuracy is best before the end."""
    home = tmp_path_factory.mktemp("comparison") / ".runstone"
    chance = random.Random(1)
    for seed in range(8):
        shift = chance.gauss(0, 0.02)
        for model, worth in WORTH.items():
            params = {"model": model, "seed": seed, "opt": {"lr": 0.1}}
            if model == "mlp":
                params["width"] = 64
            with runstone.start_run(
                project="p",
                name=f"{model}-{seed}",
                params=params,
                tags={"team": "a"} if seed else {},
                workspace=home,
                environment=False,
                on_error="raise",
            ) as run:
                for step in range(10):
                    value = worth + shift + chance.gauss(0, 0.002) - 0.01 * abs(step - 7)
                    run.log({"val/acc": value, "val/loss": 1 - value, "train/loss": 1 / (step + 1)}, step=step)
    return home


@pytest.fixture
def workspace(made: Path) -> runstone.Workspace:
    return runstone.open_workspace(made)
