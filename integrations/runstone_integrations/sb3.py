"""Records the training of Stable-Baselines3, and of libraries built on it such as sb3-contrib."""

# mypy: allow-subclassing-any
from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Unpack

import stable_baselines3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter

from runstone_integrations._boosting import log_model_file
from runstone_integrations._session import RunOptions, Session, Tracking, recording
from runstone_integrations._shared import parameter_count, type_name

__all__ = ["TrackingCallback"]


class TrackingCallback(BaseCallback, Tracking):
    """Callback that records `model.learn(...)` as a run.

    ```python
    model.learn(100_000, callback=TrackingCallback(project="cartpole"))
    ```

    Metrics are what goes to the model's logger, under its names (`rollout/ep_rew_mean`, `train/loss`, `eval/…`), when
    it goes there (`log_interval`); the step is `num_timesteps`. `learn(..., reset_num_timesteps=False)` goes on in the
    same run.

    Stable-Baselines3 tells nobody of an exception: one that you catch yourself needs `with TrackingCallback(...) as
    callback:` around it to end the run.

    Args:
        log_model: Whether to keep the model as the artifact `model.zip`.
        **options: See `RunOptions`.
    """

    def __init__(self, *, log_model: bool = False, **options: Unpack[RunOptions]) -> None:
        super().__init__()
        self._session = Session(options)
        self._log_model = log_model
        self._writer: _Writer | None = None

    def _on_training_start(self) -> None:
        self._start()

    def _on_step(self) -> bool:
        return not self._session.should_stop

    def _on_training_end(self) -> None:
        self._end()

    @recording
    def _start(self) -> None:
        first = self.model.num_timesteps
        if not self._session.start(first_step=first + 1 if first else 0, is_continuing=first > 0):
            return
        self._detach()
        self._writer = _Writer(self)
        self.logger.output_formats.append(self._writer)
        self._session.describe("sb3", self._facts(first))

    def _facts(self, first: int) -> dict[str, Any]:
        model = self.model
        names = [name for name in inspect.signature(type(model).__init__).parameters if name not in _NO_PARAMS]
        env = model.get_env()
        return {
            "version": stable_baselines3.__version__,
            "algorithm": type_name(model),
            "params": {name: getattr(model, name) for name in names if hasattr(model, name)},
            "policy": {"class": type_name(model.policy), "parameters": parameter_count(model.policy.parameters())},
            "env": {
                "id": None if env is None else getattr(env.envs[0].spec, "id", None) if hasattr(env, "envs") else None,
                "count": model.n_envs,
                "observation_space": str(model.observation_space),
                "action_space": str(model.action_space),
            },
            "first_step": first,
            "total_timesteps": model._total_timesteps,
        }

    @recording
    def _end(self) -> None:
        if not self._session.is_active:
            return
        self._detach()
        done, total = self.model.num_timesteps, self.model._total_timesteps
        ended_by = "request" if self._session.should_stop else "timesteps" if done >= total else "callback"
        self._session.describe("sb3", {"ended_by": ended_by, "last_step": done})
        if self._log_model:
            with self._session.guarded():
                log_model_file(self._session, "model.zip", self.model.save)
        self._session.close()

    def _detach(self) -> None:
        """Leave the logger as it was; the writer of a training that broke off may still be there."""
        formats = self.logger.output_formats
        formats[:] = [each for each in formats if not (isinstance(each, _Writer) and each.callback is self)]

    @recording
    def _write(self, values: Mapping[str, Any], step: int) -> None:
        if self._session.is_active:
            self._session.log(values, step)


class _Writer(KVWriter):
    """Output of the model's logger that goes to the run."""

    def __init__(self, callback: TrackingCallback) -> None:
        self.callback = callback

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Record the numbers among the values."""
        numbers = {name: value for name, value in key_values.items() if _is_number(value)}
        self.callback._write(numbers, step)

    def close(self) -> None:
        """Hold nothing to close."""


_NO_PARAMS = frozenset({"self", "policy", "env", "tensorboard_log", "verbose", "_init_setup_model"})


def _is_number(value: Any) -> bool:
    """Return whether it is one number; figures, videos, texts and histograms are for other outputs."""
    return isinstance(value, int | float) or getattr(value, "shape", None) == ()
