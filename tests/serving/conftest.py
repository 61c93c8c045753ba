"""Models of scikit-learn in a registry, served by the application itself or by a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone.serving import Bounds, LogConfig, Place, ServingConfig

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("skops")
for _needed in ("fastapi", "orjson", "httptools", "uvloop"):
    pytest.importorskip(_needed)

BASE = "http://127.0.0.1:8060"


def people(count: int = 40, seed: int = 0) -> Any:
    """Return a table of people with a column of each kind."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "income": random.normal(40.0, 10.0, count),
            "age": random.integers(18, 80, count),
            "city": random.choice(["Bonn", "Kiel", "Ulm"], count),
            "member": random.integers(0, 2, count).astype(bool),
        }
    )


def trained(scale: float = 1.0) -> Any:
    """Return a pipeline that predicts `scale` times something of people."""
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    data = people()
    encoded = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    return make_pipeline(encoded, LinearRegression()).fit(data, scale * (data["income"] + data["age"]))


def register(home: Path, model: Any, example: Any, name: str = "credit") -> None:
    """Register a version."""
    with runstone.start_run(project="p", workspace=home, environment=False) as run:
        run.log_model(model, name=name, example=example)


@pytest.fixture(scope="module")
def credit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with `credit@1.0.0`, in production; tests of a file leave it as it is."""
    home = tmp_path_factory.mktemp("serving") / ".runstone"
    register(home, trained(), people(5))
    runstone.open_workspace(home).models.get("credit").set_stage("1.0.0", "production")
    return home


@pytest.fixture
def opened() -> Iterator[Callable[..., Any]]:
    """Makes clients of the application over a model."""
    from fastapi.testclient import TestClient

    from runstone.serving import create_app

    clients = []

    def make(home: Path, ref: str = "credit@1.0.0", *, log: LogConfig | None = None, **options: Any) -> Any:
        bounds = Bounds(**options.pop("bounds", {}))
        config = ServingConfig(**{"reload_s": 0.0, **options}, bounds=bounds, log=log or LogConfig())
        client = TestClient(create_app(Place(home, ref), config), base_url=BASE)
        client.__enter__()
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)
