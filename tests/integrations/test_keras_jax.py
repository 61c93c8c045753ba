"""`TrackingCallback` with the real Keras on JAX, in processes of their own: Keras has one backend a process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import runstone

pytestmark = pytest.mark.heavy

for package in ("keras", "jax"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}", allow_module_level=True)

SCRIPT = """
import sys
import keras
import numpy as np
from runstone_integrations.keras import TrackingCallback

assert keras.backend.backend() == "jax"
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
y = x.sum(axis=1, keepdims=True)
model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(1)])
rate = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=5, decay_rate=0.5)
model.compile(optimizer=keras.optimizers.SGD(rate), loss="mse", steps_per_execution=int(sys.argv[1]))
callback = TrackingCallback(log_every_n_batches=1, log_model=True)
callbacks = keras.callbacks.CallbackList([callback], model=model)
print(callbacks._async_train)
options = {"batch_size": 8, "verbose": 0, "callbacks": [callback]}
losses = model.fit(x, y, epochs=2, validation_data=(x, y), **options).history["loss"]
losses += model.fit(x, y, epochs=4, initial_epoch=2, **options).history["loss"]
model.evaluate(x, y, verbose=0, callbacks=[callback])
print(losses == callback.run.read().series("loss").value.tolist())
print("tensorflow" in sys.modules, "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("together", "batches"),
    [(1, list(range(20))), (2, [1, 3, 4, 6, 8, 9, 11, 13, 14, 16, 18, 19]), (5, [4, 9, 14, 19])],
)
def test_fits_validation_rates_and_models_are_recorded_on_jax(together: int, batches: list[int], home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(together)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "False", "False"]
    (info,) = runstone.open_workspace(home).runs()
    assert info.status == "finished"
    assert info.series("loss").step.tolist() == [4, 9, 14, 19]
    assert info.series("val_loss").step.tolist() == [4, 9]
    assert info.series("evaluate/loss").step.tolist() == [19]
    assert sorted(info.series("batch/loss").step.tolist()) == batches
    assert info.series("learning_rate").value.tolist() == pytest.approx([0.05, 0.025, 0.0125, 0.00625])
    assert info.params["keras"]["backend"] == "jax"
    assert "model.keras" in {artifact.name for artifact in info.artifacts}
