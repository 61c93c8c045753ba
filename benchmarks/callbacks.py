"""What callbacks cost a training: the time inside their hooks, beside that of Lightning's own loggers, in one run.

Whole trainings differ by more than a hook costs, from one to the next, on any machine that does something else too. So
the hooks are timed, and set against the step that they come with.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import versions

_STEP_S = 0.005
"""How long the training step takes that overhead is told in percent of."""


class Clock:
    """Adds up the time inside functions, by step: what they call of each other counts once."""

    def __init__(self) -> None:
        self.steps_s: list[float] = []
        self._total_s = 0.0
        self._depth = 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, watched."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self._total_s += time.perf_counter() - start

        return watched

    def watch(self, subject: Any, names: list[str]) -> None:
        """Watch methods of an object."""
        for name in names:
            setattr(subject, name, self.timed(getattr(subject, name)))

    def end_step(self) -> None:
        """Put what came since the last step under this one."""
        self.steps_s.append(self._total_s)
        self._total_s = 0.0

    @property
    def step_s(self) -> float:
        """Seconds a step in the median of the steps, those of the start left out."""
        return statistics.median(self.steps_s[len(self.steps_s) // 4 :])


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger(f"{name}.utilities.rank_zero").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ["RUNSTONE_WORKSPACE"] = str(Path(folder) / ".runstone")
        try:
            for name, part in (("lightning", lightning), ("keras", keras), ("sklearn", grid_search)):
                if importlib.util.find_spec(name) is None:
                    print(f"\n{name}: skipped, it is not installed")
                else:
                    part(Path(folder), quick=quick)
        finally:
            del os.environ["RUNSTONE_WORKSPACE"]


# --- Lightning -------------------------------------------------------------------------------------------------------


def lightning(folder: Path, *, quick: bool) -> None:
    """A step that does nothing but log three metrics, each step recorded."""
    subjects = {"empty hooks (floor)": _empty_callback, "TrackingCallback": _our_callback, "CSVLogger": _csv_logger}
    if importlib.util.find_spec("tensorboardX") or importlib.util.find_spec("tensorboard"):
        subjects["TensorBoardLogger"] = _tensorboard_logger
    if importlib.util.find_spec("wandb"):
        subjects["WandbLogger (offline)"] = _wandb_logger
    if importlib.util.find_spec("mlflow"):
        subjects["MLFlowLogger"] = _mlflow_logger
    rounds, best = (1 if quick else 5), dict.fromkeys(subjects, float("inf"))
    for number in range(rounds):
        for name, make in subjects.items():
            seconds = _fit(make, folder / f"{name}-{number}", steps=40 if quick else 600)
            best[name] = min(best[name], seconds)
    print(
        f"\nLightning, 3 metrics logged each step ({versions('lightning', 'torch', 'wandb', 'mlflow', 'tensorboardX')})"
    )
    ours = best["TrackingCallback"]
    for name, seconds in best.items():
        ratio = "" if name in ("TrackingCallback", "empty hooks (floor)") else f"   {seconds / ours:6.1f} × ours"
        print(f"  {name:<22}  {seconds * 1e6:8.1f} µs a step   {seconds / _STEP_S:6.2%} of a step of 5 ms{ratio}")


def _fit(make: Callable[[Path], Any], folder: Path, *, steps: int) -> float:
    import lightning.pytorch as pl
    import torch

    clock = Clock()

    class Batches:
        def __len__(self) -> int:
            return steps

        def __iter__(self) -> Iterator[Any]:
            return iter([torch.zeros(1, 4)] * steps)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            clock.end_step()
            loss = self.layer(batch).sum()
            self.log("train/loss", loss)
            self.log("train/accuracy", 0.5)
            self.log("train/norm", 1.5)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.01)

    folder.mkdir(parents=True)
    subject = make(folder)
    is_logger = hasattr(subject, "log_metrics")
    trainer = pl.Trainer(
        max_steps=steps,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        accelerator="cpu",
        logger=subject if is_logger else False,
        callbacks=[] if is_logger else [subject],
    )
    if is_logger:  # what turns metrics into numbers, and what the logger does with them
        clock.watch(trainer._logger_connector, ["log_metrics"])
        clock.watch(subject, ["save", "log_metrics"])
    else:
        clock.watch(subject, [name for name in dir(subject) if name.startswith("on_")])
    trainer.fit(Module(), Batches())
    return clock.step_s


def _empty_callback(_folder: Path) -> Any:
    import lightning.pytorch as pl

    return pl.Callback()  # all its hooks: what watching them costs


def _our_callback(_folder: Path) -> Any:
    from runstone_integrations.lightning import TrackingCallback

    return TrackingCallback()


def _csv_logger(folder: Path) -> Any:
    from lightning.pytorch.loggers import CSVLogger

    return CSVLogger(folder)


def _tensorboard_logger(folder: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder)


def _wandb_logger(folder: Path) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(save_dir=folder, offline=True)


def _mlflow_logger(folder: Path) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    return MLFlowLogger(tracking_uri=f"sqlite:///{folder}/mlflow.db")


# --- Keras -----------------------------------------------------------------------------------------------------------


def keras(_folder: Path, *, quick: bool) -> None:
    """The calls that Keras makes, each batch recorded."""
    from runstone_integrations.keras import TrackingCallback

    batches = 200 if quick else 5000
    best = float("inf")
    for _ in range(1 if quick else 5):
        callback = TrackingCallback(log_every_n_batches=1)
        callback.set_params({"verbose": 0, "epochs": 1, "steps": batches})
        callback.on_train_begin({})
        callback.on_epoch_begin(0, {})
        start = time.perf_counter()
        for index in range(batches):
            callback.on_train_batch_begin(index, {})
            callback.on_train_batch_end(index, {"loss": 0.5, "accuracy": 0.25})
        best = min(best, (time.perf_counter() - start) / batches)
        callback.on_epoch_end(0, {"loss": 0.5})
        callback.on_train_end({})
    print(f"\nKeras, each batch recorded ({versions('keras')})")
    print(f"  TrackingCallback  {best * 1e6:8.2f} µs a batch")


# --- scikit-learn ----------------------------------------------------------------------------------------------------


def grid_search(folder: Path, *, quick: bool) -> None:
    """A search of 100 fits of 20 ms, with and without, in turn."""
    import numpy as np
    from sklearn.model_selection import GridSearchCV

    from benchmarks._slow_classifier import SlowClassifier
    from runstone_integrations.sklearn import track

    data, target = np.zeros((200, 4)), np.arange(200) % 2
    candidates = {"depth": list(range(1, 4 if quick else 21))}
    slow = SlowClassifier(fit_s=0.002 if quick else 0.02)

    def plain() -> float:
        start = time.perf_counter()
        GridSearchCV(slow, candidates, cv=5).fit(data, target)
        return time.perf_counter() - start

    def tracked() -> float:
        start = time.perf_counter()
        with track(workspace=folder / ".runstone") as run:
            run.fit(GridSearchCV(slow, candidates, cv=5), data, target)
        return time.perf_counter() - start

    # Elsewhere, because the snapshot of the environment takes the longer the more this repository differs from git.
    with contextlib.chdir(folder):
        first, *pairs = [(plain(), tracked()) for _ in range(2 if quick else 11)]
    best_plain, best_tracked = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    median = statistics.median(pair[1] / pair[0] for pair in pairs)
    print(f"\nscikit-learn, GridSearchCV of 100 fits of 20 ms, in turn ({versions('scikit-learn')})")
    print(f"  plain    {best_plain:7.3f} s")
    print(f"  tracked  {best_tracked:7.3f} s   {best_tracked / best_plain - 1:+.2%} at best of {len(pairs)} each")
    print(f"           {'':7}     {median - 1:+.2%} in the median of the pairs")
    print(f"           {'':7}     {first[1] / first[0] - 1:+.2%} in the first pair of the process")


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
