"""A small world for tests of monitoring: a model of real data, registered by a run, and batches of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import runstone

NAME = "tumours"
LABEL = "target"
COLUMNS = ["mean radius", "mean texture", "mean smoothness", "worst area", "worst concavity"]


def patients(rows: int, seed: int) -> pd.DataFrame:
    """Return rows of the breast cancer set, drawn with replacement."""
    frame: pd.DataFrame = load_breast_cancer(as_frame=True).frame[[*COLUMNS, LABEL]]
    return frame.iloc[np.random.default_rng(seed).integers(0, len(frame), rows)].reset_index(drop=True)


def fitted(data: pd.DataFrame) -> object:
    """Return a classifier that was trained with all of it."""
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(data[COLUMNS], data[LABEL])


def register(home: Path, *, name: str = NAME, seed: int = 1, **options: object) -> str:
    """Train on data in files that the run uses, and register the model; return its version."""
    train, test = patients(1000, seed), patients(600, seed + 100)
    folder = home.parent / f"data-{seed}"
    folder.mkdir()
    train.to_parquet(folder / "train.parquet")
    test.to_csv(folder / "test.csv", index=False)
    with runstone.start_run(workspace=home, environment=False) as run:
        run.use_dataset(folder / "train.parquet", name="train", role="train")
        run.use_dataset(folder / "test.csv", name="test", role="test")
        model = fitted(train)
        made = run.log_model(model, name=name, example=train[COLUMNS].head(), **options)  # type: ignore[arg-type]
    assert made is not None
    return str(made.version)
