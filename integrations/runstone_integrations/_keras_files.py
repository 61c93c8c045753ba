"""What a Keras training leaves as artifacts: its checkpoints, its model, the model's summary and config."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import runstone
from runstone_integrations._checkpoint_files import CheckpointFile, CheckpointFiles, Signature
from runstone_integrations._keras_model import summary_of


class Files:
    """The files of one callback's trainings.

    Args:
        checkpoints: As `TrackingCallback` takes them.

    Raises:
        InvalidValue: `checkpoints` is nothing that names files.
    """

    def __init__(self, checkpoints: Any) -> None:
        self._checkpoints = [CheckpointFiles(source) for source in _as_list(checkpoints)]
        self._logged: dict[str, Signature] = {}
        self._summary_hash: int | None = None

    def scan(self, *, epoch: int | None, step: int, logs: Mapping[str, Any]) -> None:
        """Note the checkpoints written since the last scan as those of `epoch`."""
        for files in self._checkpoints:
            files.scan(epoch=epoch, step=step, logs=logs)

    def log_checkpoints(self, run: runstone.Run) -> None:
        """Keep the best and the last checkpoint of each source."""
        for number, files in enumerate(self._checkpoints):
            folder = "checkpoints" if number == 0 else f"checkpoints-{number + 1}"
            for file in files.best_and_last():
                name = f"{folder}/{file.role}{''.join(_suffixes(file.path))}"
                if self._logged.get(name) != file.signature:
                    run.log_artifact(file.path, name=name, metadata=_metadata(file))
                    self._logged[name] = file.signature

    def log_model(self, run: runstone.Run, model: Any, *, step: int, epoch: int | None) -> None:
        """Keep the model as `model.keras`."""
        with tempfile.TemporaryDirectory(prefix="runstone-") as folder:
            path = Path(folder, "model.keras")
            model.save(path)
            run.log_artifact(path, metadata={"step": step, "epoch": epoch})

    def log_architecture(self, run: runstone.Run, model: Any) -> None:
        """Keep summary and config of the model, once for each that differs."""
        summary = summary_of(model)
        if summary is None or hash(summary) == self._summary_hash:
            return
        self._summary_hash = hash(summary)
        with tempfile.TemporaryDirectory(prefix="runstone-") as folder:
            path = Path(folder, "summary.txt")
            path.write_text(summary, encoding="utf-8")
            run.log_artifact(path, name="model/summary.txt")
            with contextlib.suppress(Exception):  # a subclassed model need not have a config
                path = Path(folder, "config.json")
                path.write_text(model.to_json(), encoding="utf-8")
                run.log_artifact(path, name="model/config.json")


def _as_list(sources: Any) -> list[Any]:
    if sources is None:
        return []
    return list(sources) if isinstance(sources, list | tuple | set | frozenset) else [sources]


def _suffixes(path: Path) -> list[str]:
    """Return the endings that say what a file is, such as `.weights.h5`; not those of `0.97-acc.keras`."""
    return path.suffixes[-2:] if path.name.endswith(".weights.h5") else path.suffixes[-1:]


def _metadata(file: CheckpointFile) -> dict[str, Any]:
    return {
        "role": file.role,
        "path": str(file.path),
        "epoch": file.epoch,
        "step": file.step,
        "monitor": file.monitor,
        "score": file.score,
    }
