"""What a Keras model says of itself: layers, optimizer, loss, rate, summary. Any part may be missing."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from runstone_integrations._keras_values import is_on_gpu
from runstone_integrations._shared import clean_params


def learning_rate(model: Any) -> Any:
    """Return the rate now in force, that of a schedule included; `None` where the model has no such thing.

    A number; on a CUDA device a tensor, for the run to fetch: to ask it here would wait for the device.
    """
    optimizer = getattr(model, "optimizer", None)
    rate = getattr(optimizer, "learning_rate", None)
    if rate is None:
        return None
    if is_on_jax(model):
        model.jax_state_sync()  # within a fit on JAX the optimizer's variables live elsewhere
    value = getattr(rate, "value", rate)  # of a variable
    if is_on_gpu(value):
        return value
    try:
        return float(rate)
    except (TypeError, ValueError, RuntimeError):
        return None


def is_on_jax(model: Any) -> bool:
    """Return whether Keras trains the model on JAX."""
    return hasattr(model, "jax_state_sync")


def iterations(model: Any) -> int | None:
    """Return how many steps the optimizer has made, over all fits and restores."""
    count = getattr(getattr(model, "optimizer", None), "iterations", None)
    if count is None:
        return None
    try:
        return int(count)
    except (TypeError, ValueError, RuntimeError):
        return None


def describe_model(model: Any) -> dict[str, Any]:
    """Return what is to be trained, and with what, as params."""
    if model is None:
        return {}
    described: dict[str, Any] = {"model": _describe_layers(model)}
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        described["optimizer"] = _describe_optimizer(optimizer)
    for what in ("loss", "steps_per_execution"):
        value = getattr(model, what, None)
        if value is not None:
            described[what] = _plain(value)
    keras = sys.modules.get("keras")  # only what the user has imported
    if keras is not None and _is_keras(model):
        described["version"] = getattr(keras, "__version__", None)
        with contextlib.suppress(AttributeError):
            described["backend"] = keras.backend.backend()
    return described


def summary_of(model: Any) -> str | None:
    """Return Keras's own table of the layers; `None` for what has none, or is not built yet."""
    if not hasattr(model, "summary") or not getattr(model, "built", False):
        return None
    lines: list[str] = []
    model.summary(print_fn=lambda text, *_, **__: lines.append(str(text)), expand_nested=True)
    return "\n".join(lines)


def _is_keras(model: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "keras" for kind in type(model).__mro__)


def _describe_layers(model: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"class": type(model).__name__}
    name = getattr(model, "name", None)
    if isinstance(name, str):
        described["name"] = name
    layers = getattr(model, "layers", None)
    if isinstance(layers, list | tuple):
        described["layers"] = len(layers)
    policy = getattr(getattr(model, "dtype_policy", None), "name", None)
    if policy is not None:
        described["dtype_policy"] = policy
    with contextlib.suppress(Exception):  # an unbuilt model has no weights to count yet
        if hasattr(model, "count_params"):
            described["params_total"] = int(model.count_params())
            described["params_trainable"] = sum(math.prod(weight.shape) for weight in model.trainable_weights)
        elif hasattr(model, "parameters"):  # a torch module in a hand-written loop
            sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
            described["params_total"] = sum(size for size, _ in sizes)
            described["params_trainable"] = sum(size for size, is_trained in sizes if is_trained)
    return described


def _describe_optimizer(optimizer: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"class": type(optimizer).__name__}
    with contextlib.suppress(Exception):  # a hand-made optimizer need not have a config
        described.update(clean_params(optimizer.get_config()))
    described.pop("name", None)
    rate = described.get("learning_rate")
    # Keras keeps it as float32; 0.001 must not be shown as 0.0010000000474974513.
    if isinstance(rate, float) and math.isfinite(rate) and float(np.float32(rate)) == rate:
        described["learning_rate"] = float(str(np.float32(rate)))
    return described


def _plain(value: Any) -> Any:
    """Return JSON for what `compile` takes: names stay, losses and functions become theirs."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return getattr(value, "__name__", None) or type(value).__name__
