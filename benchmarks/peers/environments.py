"""The environment of each peer: a virtual one for it alone, and the settings that keep it off the network."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Peer:
    """What to install for one peer, what its documentation says turns the network off, the rows that it gives."""

    packages: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)
    trackers: tuple[str, ...] = ()


PEERS = {
    "trackio": Peer(("trackio==0.43.0",), {"TRACKIO_DIR": "trackio", "HF_HUB_OFFLINE": "1"}),
    "wandb": Peer(("wandb==0.31.0",), {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}),
    # tensorboard reads what tensorboardX writes.
    "tensorboardX": Peer(("tensorboardX==2.6.5", "tensorboard==2.21.0")),
    "aim": Peer(("aim==3.29.1",)),
    "mlflow": Peer(("mlflow==3.17.2",), {"MLFLOW_DISABLE_TELEMETRY": "true"}, ("mlflow", "mlflow, async")),
}


def python_of(peer: str, venvs: Path | None) -> Path | None:
    """Return the interpreter of a peer's environment, or `None` if there is none.

    Args:
        peer: Its name in `PEERS`.
        venvs: A folder with an environment named as each peer; `None` for those that `install` made.
    """
    python = _folder(peer, venvs) / "bin" / "python"
    return python if python.exists() else None


def install(peer: str, venvs: Path | None) -> None:
    """Make a peer's environment, or bring it to the versions named here."""
    folder = _folder(peer, venvs)
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *PEERS[peer].packages], check=True)


def process_environment(peer: str | None, home: Path) -> dict[str, str]:
    """Return what a measured process finds in its environment: nothing of the user's settings of any tracker."""
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"HOME": str(home), "PYTHONPATH": str(home)}
    if peer is not None:
        environment |= PEERS[peer].settings
    return environment


def _folder(peer: str, venvs: Path | None) -> Path:
    return HERE / f".venv-{peer}" if venvs is None else venvs / peer
