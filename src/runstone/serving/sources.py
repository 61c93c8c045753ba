"""Where the served version comes from: a reference into a registry, or a folder that was exported."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from runstone.blobs import Blobs
from runstone.errors import FormatError, InvalidValue, NotFound
from runstone.models import Manifest, load_version, read_example
from runstone.models.flavours import Origin, flavour_named
from runstone.models.refs import ModelRef
from runstone.models.signature import Signature
from runstone.serving.bare import bare_of, table_of
from runstone.serving.rows import Columns, RowReader
from runstone.workspace import Workspace

EXPORTED = "model.json"
_EXAMPLE_ROWS = 2


@dataclass(frozen=True)
class Served:
    """A version, ready to answer.

    Attributes:
        name, version, hash: Which one; the hash is that of its manifest.
        manifest: What it consists of.
        model: As the flavour loaded it; with what keeps its files alive.
        reader: Checks requests.
        example: A body of a request that it takes; `None` where none was registered.
        loaded_at: Seconds of the epoch.
    """

    name: str
    version: str
    hash: str
    manifest: Manifest
    model: Any
    reader: RowReader
    example: Any
    loaded_at: float = field(default_factory=time.time)

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""
        return signature_of(self.manifest, str(self))

    def predict(self, columns: Columns) -> Any:
        """Return what the model says to columns that were checked."""
        flavour = flavour_named(self.manifest.flavour)
        table = table_of(columns) if self._bare is not None else None
        if table is not None:
            return flavour.predict(self._bare, table)
        return flavour.predict(self._native, self.reader.assembled(columns))

    @property
    def _native(self) -> Any:
        return self.model.native if hasattr(self.model, "native") else self.model

    @functools.cached_property
    def _bare(self) -> Any:
        """The model as it takes arrays; `None` where it takes tables only."""
        is_known = self.manifest.flavour == "sklearn" and hasattr(self._native, "predict")
        return bare_of(self._native, self.reader, self.example) if is_known else None

    def __str__(self) -> str:
        """Write it as a reference."""
        return f"{self.name}@{self.version}"


class Source(Protocol):
    """Gives the version that is to be served now."""

    def version(self) -> str:
        """Return its number; cheap."""

    def load(self) -> Served:
        """Load it.

        Raises:
            RunstoneError: it cannot be.
        """


class RegistrySource:
    """A reference such as `credit-risk@production`.

    Args:
        workspace: Where the registry lies.
        ref: What is served; another version as soon as it means another.
        is_trusted: Whether what the model's author wrote may be executed.
        most_rows: Of a request.
    """

    def __init__(self, workspace: Workspace, ref: str, *, is_trusted: bool, most_rows: int) -> None:
        self._models = workspace.models
        self._blobs = workspace.blobs
        self._ref = ModelRef.parse(ref)
        self._is_trusted = is_trusted
        self._most_rows = most_rows

    def version(self) -> str:
        """Return its number."""
        return str(self._models.find(self._ref).version)

    def load(self) -> Served:
        """Load the version that the reference means now."""
        found = load_version(self._models, self._blobs, self._ref, trusted=self._is_trusted)
        example = example_of(found.manifest, self._blobs)
        version, manifest = found.version, found.manifest
        reader = RowReader(signature_of(manifest, str(version)).inputs, widths_of(example), self._most_rows)
        body = example_body(example)
        return Served(version.model, str(version.version), version.manifest, manifest, found, reader, body)


class FolderSource:
    """A folder that `runstone models export` wrote; it needs no workspace.

    Args:
        folder: The folder.
        is_trusted: As above.
        most_rows: Of a request.
    """

    def __init__(self, folder: Path, *, is_trusted: bool, most_rows: int) -> None:
        self._folder = folder
        self._is_trusted = is_trusted
        self._most_rows = most_rows
        try:
            self._told = json.loads((folder / EXPORTED).read_text())
            self._manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes())
        except FileNotFoundError as error:
            raise NotFound(f"{folder} is no exported model: it has no {Path(error.filename).name}") from None
        except ValueError as error:
            raise FormatError(f"{folder / EXPORTED} does not parse: {error}") from None

    def version(self) -> str:
        """Return its number."""
        return str(self._told["version"])

    def load(self) -> Served:
        """Load it."""
        told, manifest = self._told, self._manifest
        ref = f"{told['model']}@{told['version']}"
        run = (manifest.run or {}).get("id")
        native = flavour_named(manifest.flavour).load(
            self._folder / "model",
            manifest.loading,
            is_trusted=self._is_trusted,
            origin=Origin(ref, run, told["author"], told["hash"]),
        )
        widths = {name: np.dtype(word) for name, word in told["widths"].items()}
        reader = RowReader(signature_of(manifest, ref).inputs, widths, self._most_rows)
        return Served(told["model"], told["version"], told["hash"], manifest, native, reader, told["example"])


def signature_of(manifest: Manifest, ref: str) -> Signature:
    """Return the signature, without which nothing can be checked.

    Raises:
        InvalidValue: there is none.
    """
    if manifest.signature is None:
        raise InvalidValue(f"{ref} has no signature, by which requests are checked; log it with example=…")
    return manifest.signature


def example_of(manifest: Manifest, blobs: Blobs) -> Any:
    """Return the example that a version was registered with, where it can be read."""
    try:
        return read_example(manifest, blobs)
    except (NotFound, ImportError):  # it is a help, and not needed
        return None


def widths_of(example: Any) -> dict[str, np.dtype[Any]]:
    """Return the types of numbers that the model was tried with: a network of float32 does not take float64."""
    if example is None:
        return {}
    if hasattr(example, "columns"):
        found = {str(name): example[name].dtype for name in example.columns}
    elif isinstance(example, Mapping):
        found = {str(name): value.dtype for name, value in example.items()}
    else:
        found = {"": example.dtype}
    return {name: dtype for name, dtype in found.items() if isinstance(dtype, np.dtype)}


def example_body(example: Any) -> Any:
    """Return the first rows of an example as the JSON of a request."""
    if example is None:
        return None
    if hasattr(example, "columns"):
        head = example.head(_EXAMPLE_ROWS)
        return {"inputs": [json.loads(text) for text in head.to_json(orient="records", lines=True).splitlines()]}
    if isinstance(example, Mapping):
        return {"inputs": {name: value[:_EXAMPLE_ROWS].tolist() for name, value in example.items()}}
    return {"inputs": example[:_EXAMPLE_ROWS].tolist()}
