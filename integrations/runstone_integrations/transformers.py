"""Records what a Transformers `Trainer` does, those of TRL included."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Unpack

import transformers
from transformers.trainer_callback import ExportableState, TrainerCallback

import runstone
from runstone_integrations._session import RunOptions, Session, Tracking, recording
from runstone_integrations._shared import clean_params, parameter_count, type_name

__all__ = ["TrackingCallback"]

Checkpoints = Literal["best+last", "all", "none"]


class TrackingCallback(TrainerCallback, ExportableState, Tracking):
    """Callback that records a training of `transformers.Trainer`, or of a trainer derived from it, as a run.

    ```python
    Trainer(model, args, train_dataset=data, callbacks=[TrackingCallback(project="digits")]).train()
    ```

    Metrics have the names of the `Trainer` and stand at `state.global_step`, the number of optimizer steps; what
    `report_to` names gets them too. An `evaluate` or `predict` of its own goes on in the run of the training.

    A training from a checkpoint goes on in the run that wrote it: the checkpoint's `trainer_state.json` says which.
    Each trial of `hyperparameter_search` is a run. In a distributed training the first process records, and a request
    to stop takes effect at the next logging step.

    The `Trainer` tells nobody of an exception: one that you catch yourself needs `with TrackingCallback(...) as
    callback:` around it to end the run.

    Args:
        checkpoints: Which checkpoint folders are copied into artifacts: `"best+last"`, when training ends; `"all"`,
            each when it was saved; `"none"`. Their paths are among the params in any case.
        **options: See `RunOptions`.

    Raises:
        InvalidValue: `checkpoints` is none of the above.
    """

    def __init__(self, *, checkpoints: Checkpoints = "none", **options: Unpack[RunOptions]) -> None:
        if checkpoints not in ("best+last", "all", "none"):
            raise runstone.InvalidValue(f"checkpoints is {checkpoints!r}; it must be 'best+last', 'all' or 'none'")
        self._session = Session(options)
        self._checkpoints = checkpoints
        self._options = options
        self._is_training = False
        self._last_checkpoint: Path | None = None

    # --- state in checkpoints --------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: JSON only, with the id of the run."""
        kept = {name: value for name, value in self._options.items() if name not in ("run", "run_id", "workspace")}
        run = self._session.run
        return {
            "args": {"checkpoints": self._checkpoints, **clean_params(kept)},
            "attributes": {"_written_by": None if run is None else run.id},
        }

    def _take_state(self, state: Any) -> str | None:
        """Return the id of the run that wrote the checkpoint from which training goes on."""
        name = type(self).__name__
        kept = state.stateful_callbacks.get(name)
        # Missing where the checkpoint was written without this callback; then the next save would fail.
        state.stateful_callbacks.setdefault(name, self.state())
        if isinstance(kept, list):
            kept = kept[0] if kept else None
        written_by = kept.get("attributes", {}).get("_written_by") if isinstance(kept, Mapping) else None
        # In a trial the first run of the process is the trial's, wherever its weights come from.
        return written_by if isinstance(written_by, str) and not runstone.trial_params() else None

    # --- hooks -----------------------------------------------------------------------------------------------------

    @recording
    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Open the run, and record what is to be trained with which settings."""
        run_id = self._take_state(state)
        self._is_training = True
        self._last_checkpoint = None
        if not state.is_world_process_zero:
            return
        is_continuing = state.global_step > 0
        is_open = self._session.start(
            first_step=state.global_step + 1 if is_continuing else 0,
            is_continuing=is_continuing,
            is_trial=bool(state.is_hyper_param_search),
            run_id=run_id if is_continuing else None,
        )
        if is_open:
            self._session.describe("transformers", _facts(args, state, model))

    @recording
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Record what the trainer logs."""
        if state.is_world_process_zero and (self._session.is_active or self._go_on()):
            row = {name: value for name, value in (logs or {}).items() if value is not None}
            self._session.log(row, state.global_step)

    def _go_on(self) -> bool:
        return not self._is_training and self._session.go_on()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Stop the training if the run was asked to."""
        is_time_to_agree = args.world_size > 1 and state.global_step % max(1, int(state.logging_steps)) == 0
        return self._stop_if_asked(args, control, is_time_to_agree)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Stop the training if the run was asked to."""
        return self._stop_if_asked(args, control, args.world_size > 1)

    def _stop_if_asked(self, args: Any, control: Any, is_time_to_agree: bool) -> Any:
        if args.world_size > 1:
            is_asked = is_time_to_agree and _first_process_says(self._session.should_stop, args.device)
        else:
            is_asked = self._session.should_stop
        if is_asked:
            control.should_training_stop = True
        return control

    @recording
    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """End the run again that an evaluation outside a training has opened."""
        if self._session.is_active and not self._is_training:
            self._session.close()

    @recording
    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Record the metrics of a prediction."""
        self.on_log(args, state, control, metrics)
        self.on_evaluate(args, state, control)

    @recording
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record where the checkpoint lies, or keep it."""
        run = self._session.run
        if run is None or not self._session.is_active:
            return
        path = _checkpoint_folder(args, state)
        if path is None:
            return
        self._last_checkpoint = path
        facts = {"last": path, "best": state.best_model_checkpoint, "best_metric": state.best_metric}
        self._session.describe(
            "transformers", {"checkpoints": clean_params({**facts, "metric": args.metric_for_best_model})}
        )
        if self._checkpoints == "all":
            self._keep(path, f"checkpoints/{path.name}", state)

    @recording
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record how training ended, keep checkpoints, and end the run."""
        self._is_training = False
        run = self._session.run
        if run is None or not self._session.is_active:
            return
        is_complete = state.global_step >= state.max_steps
        # A pruned trial ends here too, before the exception that says so.
        is_pruned = state.is_hyper_param_search and not is_complete and not control.should_training_stop
        ended_by = "steps" if is_complete else "pruning" if is_pruned else "callback"
        if self._session.should_stop:
            ended_by = "request"
        self._session.describe(
            "transformers", {"ended_by": ended_by, "last_step": state.global_step, "epochs": state.epoch}
        )
        with self._session.guarded():
            if self._checkpoints != "none" and self._last_checkpoint is not None:
                self._keep(self._last_checkpoint, "checkpoints/last", state)
                if state.best_model_checkpoint:
                    self._keep(Path(state.best_model_checkpoint), "checkpoints/best", state)
        self._session.close("pruned" if ended_by == "pruning" else None)

    def _keep(self, path: Path, name: str, state: Any) -> None:
        if self._session.run is not None and path.is_dir():  # `save_total_limit` deletes some
            about = {"step": int(path.name.rpartition("-")[2]), "path": str(path), "best_metric": state.best_metric}
            self._session.run.log_artifact(path, name=name, metadata=about)


def _facts(args: Any, state: Any, model: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "version": transformers.__version__,
        "args": args.to_dict(),  # with tokens left out
        "max_steps": state.max_steps,
    }
    if state.is_hyper_param_search:
        facts["trial"] = {"name": state.trial_name, "params": state.trial_params}
    if model is not None:
        model = getattr(model, "module", model)  # what wraps it in a distributed training
        config: Any = getattr(model, "config", None)
        facts["model"] = {
            "class": type_name(model),
            "parameters": parameter_count(model.parameters()),
            "trainable_parameters": parameter_count(each for each in model.parameters() if each.requires_grad),
            "config": config.to_dict() if hasattr(config, "to_dict") else config,
        }
        adapters = getattr(model, "peft_config", None)
        if isinstance(adapters, Mapping):
            facts["adapters"] = {name: each.to_dict() for name, each in adapters.items()}
    return facts


def _checkpoint_folder(args: Any, state: Any) -> Path | None:
    """Return where the checkpoint of this step lies; trials have folders of their own."""
    name = f"checkpoint-{state.global_step}"
    found = [
        path for path in (Path(args.output_dir, name), *Path(args.output_dir).glob(f"run-*/{name}")) if path.exists()
    ]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _first_process_says(is_asked: bool, device: Any) -> bool:
    """Let all processes stop at the same step: the first alone knows that the run was asked to."""
    import torch  # the trainer has loaded it

    if not torch.distributed.is_initialized():
        return is_asked
    word = torch.tensor([int(is_asked)], device=device)
    torch.distributed.broadcast(word, src=0)
    return bool(word.item())
