"""What is known of a training before and after it, as params: module, trainer, optimizers, why it ended."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from runstone_integrations._lightning_rows import number
from runstone_integrations._shared import clean_params, parameter_count, type_name

# Strategies that leave no rank with whole parameters and gradients.
_SHARDING = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")
_MOST_LAYERS = 100


def is_sharded(trainer: Any) -> bool:
    """Return whether each rank holds only a part of the parameters, so that one rank alone can tell nothing of them."""
    return any(kind.__name__ in _SHARDING for kind in type(trainer.strategy).__mro__)


def facts_at_start(trainer: Any, module: Any) -> dict[str, Any]:
    """Return hyperparameters by name, and under `lightning` what module, datamodule and trainer are."""
    params: dict[str, Any] = {}
    for owner in (module, trainer.datamodule):
        if owner is not None and getattr(owner, "_log_hyperparams", False):
            params.update(_hyperparameters(owner))
    params["lightning"] = {
        "version": getattr(sys.modules.get(type(trainer).__module__.partition(".")[0]), "__version__", None),
        "module": {"class": type_name(module), **_parameter_facts(module), "layers": _layers(module)},
        "datamodule": None if trainer.datamodule is None else {"class": type_name(trainer.datamodule)},
        "trainer": _trainer_facts(trainer),
    }
    for callback in trainer.callbacks:
        if _is_a(callback, "SaveConfigCallback"):  # LightningCLI's own, which holds what the command line said
            params["cli"] = callback.config
        trial: Any = getattr(callback, "_trial", None)
        if _is_a(trial, "Trial") and hasattr(trial, "study"):  # of a pruning callback that the user has given
            study = getattr(trial.study, "study_name", None)
            params["optuna"] = {"study": study, "trial": trial.number, "params": trial.params}
    return params


def facts_of_optimizers(trainer: Any) -> dict[str, Any]:
    """Return optimizers and schedulers as they are now."""
    return {
        "optimizers": [_optimizer_facts(optimizer) for optimizer in trainer.optimizers],
        "schedulers": [
            {"class": type_name(config.scheduler), "interval": config.interval, "frequency": config.frequency}
            for config in trainer.lr_scheduler_configs
        ],
    }


def why_training_ended(trainer: Any, stop_reason: str | None, step: int) -> dict[str, Any]:
    """Return what ended a fit that ended normally, with the state of the callback that did, if one did.

    Args:
        trainer: In `on_fit_end`.
        stop_reason: `"stop"` or `"prune"` where the run was asked to stop.
        step: Last step; -1 where there was none.
    """
    facts = ending_facts(_cause(trainer, stop_reason), trainer, step)
    for callback in trainer.callbacks:
        if stop_reason is None and has_stopped(callback):
            facts |= {"by": f"EarlyStopping({callback.monitor})", **_early_stopping_facts(callback)}
    return facts


def ending_facts(by: str, trainer: Any, step: int) -> dict[str, Any]:
    """Return what is known of every end of a fit."""
    return {"by": by, "step": step if step >= 0 else None, "epoch": trainer.current_epoch}


def has_stopped(callback: Any) -> bool:
    """Return whether a callback is an `EarlyStopping` that has ended the training."""
    if not _is_a(callback, "EarlyStopping"):
        return False
    reason = getattr(callback, "stopping_reason", None)  # Lightning 2.6; before it, only the epoch is told
    return bool(callback.stopped_epoch if reason is None else reason.value)


def facts_of_callbacks(trainer: Any) -> dict[str, Any]:
    """Return the state of each `EarlyStopping` and `ModelCheckpoint` at the end of a fit."""
    stopping = [callback for callback in trainer.callbacks if _is_a(callback, "EarlyStopping")]
    saving = [callback for callback in trainer.checkpoint_callbacks if hasattr(callback, "best_model_path")]
    facts: dict[str, Any] = {}
    if stopping:
        facts["early_stopping"] = [_early_stopping_facts(callback) for callback in stopping]
    if saving:
        facts["model_checkpoint"] = [_model_checkpoint_facts(callback) for callback in saving]
    return facts


def _cause(trainer: Any, stop_reason: str | None) -> str:
    if stop_reason is not None:
        return f"runstone: {stop_reason}"
    if trainer.max_steps not in (None, -1) and trainer.global_step >= trainer.max_steps:
        return "max_steps"
    if trainer.should_stop:
        timers = (callback for callback in trainer.callbacks if _is_a(callback, "Timer"))
        left_s = [timer.time_remaining() for timer in timers]
        is_over = any(left is not None and left <= 0 for left in left_s)
        return "max_time" if is_over else "trainer.should_stop"
    return "max_epochs"


def _early_stopping_facts(callback: Any) -> dict[str, Any]:
    return {
        "monitor": callback.monitor,
        "mode": callback.mode,
        "patience": callback.patience,
        "min_delta": abs(callback.min_delta),
        "wait_count": callback.wait_count,
        "best_score": number(callback.best_score, is_waiting=True),
        "stopped_epoch": callback.stopped_epoch if has_stopped(callback) else None,
        "reason": getattr(callback, "stopping_reason_message", None),
    }


def _model_checkpoint_facts(callback: Any) -> dict[str, Any]:
    facts = {name: getattr(callback, name, None) for name in _CHECKPOINT_FACTS}
    scores = {path: number(score, is_waiting=True) for path, score in getattr(callback, "best_k_models", {}).items()}
    return {**facts, "best_model_score": number(callback.best_model_score, is_waiting=True), "best_k_models": scores}


_CHECKPOINT_FACTS = (
    *("monitor", "mode", "save_top_k", "save_last", "save_weights_only", "save_on_exception", "dirpath"),
    *("best_model_path", "last_model_path"),
)


def _is_a(value: Any, name: str) -> bool:
    """Return whether a value's class has this name: the same class of Lightning exists under two packages."""
    return any(kind.__name__ == name for kind in type(value).__mro__)


def _hyperparameters(owner: Any) -> dict[str, Any]:
    """Return what `save_hyperparameters` kept at first. The public property would copy it, weights and all."""
    found = getattr(owner, "_hparams_initial", None)
    found = owner.hparams_initial if found is None else found
    # A configuration of OmegaConf is read entry by entry: one that is missing must not cost the others.
    items = found if isinstance(found, dict) else clean_params(found)
    return {name: value for name, value in items.items() if name != "_class_path"}


def _parameter_facts(module: Any) -> dict[str, Any]:
    return {
        "parameters": parameter_count(module.parameters()),
        "trainable_parameters": parameter_count(each for each in module.parameters() if each.requires_grad),
    }


def _layers(module: Any) -> dict[str, Any]:
    """Return class and parameter count of the layers that the module holds itself."""

    def found() -> Iterator[tuple[str, dict[str, Any]]]:
        for index, (name, layer) in enumerate(module.named_children()):
            if index == _MOST_LAYERS:
                return
            yield name, {"class": type_name(layer), "parameters": parameter_count(layer.parameters())}

    return dict(found())


def _trainer_facts(trainer: Any) -> dict[str, Any]:
    facts = {name: getattr(trainer, name, None) for name in _TRAINER_FACTS}
    return {
        **facts,
        "accelerator": type_name(trainer.accelerator),
        "strategy": type_name(trainer.strategy),
    }


_TRAINER_FACTS = (
    "max_epochs",
    "min_epochs",
    "max_steps",
    "min_steps",
    "precision",
    "num_devices",
    "num_nodes",
    "world_size",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "log_every_n_steps",
    "val_check_interval",
    "check_val_every_n_epoch",
    "limit_train_batches",
    "limit_val_batches",
    "overfit_batches",
)


def _optimizer_facts(optimizer: Any) -> dict[str, Any]:
    optimizer = getattr(optimizer, "optimizer", optimizer)
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    return {"class": type_name(optimizer), "groups": groups}
