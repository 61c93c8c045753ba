"""What every flavour does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from runstone.errors import RunstoneError


class UntrustedModel(RunstoneError, PermissionError):
    """A model whose loading would execute what its author wrote, and nobody said that it may."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a version comes from, for messages: its reference, run, author and hash."""

    ref: str
    run: str | None
    author: str
    hash: str

    def untrusted(self, why: str) -> UntrustedModel:
        """Return the error for a model that must be trusted first."""
        run = f"run {self.run}" if self.run else "no run"
        return UntrustedModel(
            f"{self.ref} {why}. It comes from {run}, was registered by {self.author} and has the hash "
            f"{self.hash[:16]}…; if you trust them, load it with trusted=True (--trust on the command line)"
        )


@dataclass(frozen=True, slots=True)
class Saved:
    """What saving a model gave.

    Attributes:
        loading: What loading needs to know beside the files, as JSON.
        labels: The classes that it tells apart, in order, if it says so.
        architecture: Hash of its structure without its weights, if known.
    """

    loading: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[Any, ...] | None = None
    architecture: str | None = None


class Flavour(Protocol):
    """One way to keep a model."""

    name: str

    def fits(self, model: Any) -> bool:
        """Tell whether it saves this model."""

    def save(self, model: Any, folder: Path, *, init: Mapping[str, Any] | None) -> Saved:
        """Write the model's files into an empty folder.

        Args:
            model: The model, or the path of its files.
            folder: Where they go.
            init: Arguments with which its class makes an empty one, where the flavour needs them.

        Raises:
            InvalidValue: this model cannot be saved so.
        """

    def load(
        self, folder: Path, loading: Mapping[str, Any], *, is_trusted: bool, origin: Origin, into: Any = None
    ) -> Any:
        """Return the model from its files.

        Args:
            folder: Where they lie; read-only.
            loading: What `save` gave.
            is_trusted: Whether what the author wrote may be executed.
            origin: Where it comes from, for messages.
            into: An empty model of the same class that takes the weights.

        Raises:
            UntrustedModel: that takes trust, and none was given.
        """

    def predict(self, model: Any, data: Any) -> Any:
        """Return what the model says to data that fits its signature."""


def digest(*parts: object) -> str:
    """Return one hash of several texts."""
    from blake3 import blake3  # only where a model is saved

    return blake3("\0".join(map(str, parts)).encode()).hexdigest()


def class_path(model: Any) -> str:
    """Return `module:qualified.name` of a model's class."""
    return f"{type(model).__module__}:{type(model).__qualname__}"
