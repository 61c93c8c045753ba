"""Loads a version of a model, and checks what it is asked against its signature."""

from __future__ import annotations

import io
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from runstone.blobs import Blobs
from runstone.errors import FormatError, InvalidValue
from runstone.models.flavours import Origin, flavour_named
from runstone.models.history import ModelVersion
from runstone.models.manifest import Manifest
from runstone.models.refs import ModelRef
from runstone.models.registry import Models
from runstone.models.saving import read_manifest
from runstone.workspace import Workspace, open_workspace


class LoadedModel:
    """A version of a model, ready to predict.

    Attributes:
        version: Which one it is, and what was said of it when it was loaded.
        manifest: What it consists of and came from.
        native: The framework's own model; for plain files the path of the file or folder.
    """

    def __init__(self, version: ModelVersion, manifest: Manifest, native: Any) -> None:
        self.version = version
        self.manifest = manifest
        self.native = native

    def __repr__(self) -> str:
        """Say which one it is."""
        return f"<LoadedModel {self.version} ({self.manifest.flavour})>"

    def predict(self, data: Any) -> Any:
        """Return what the model says to data.

        Args:
            data: What the signature describes. Columns may be in any order, and others are left out.

        Raises:
            SignatureMismatch: it does not fit; the message says everything that is wrong.
        """
        if self.manifest.signature is not None:
            data = self.manifest.signature.check(data, model=str(self.version))
        return flavour_named(self.manifest.flavour).predict(self.native, data)


def load_model(
    ref: str, *, workspace: str | Path | Workspace | None = None, trusted: bool = False, into: Any = None
) -> LoadedModel:
    """Load a version of a model from the registry.

    Args:
        ref: `name@version`, `name@alias`, `name@stage`, or `name` for the latest release; `1` and `1.2` mean the
            highest of these; `?as_of=2026-03-01` behind it: what stood when that day was over.
        workspace: Where the registry lies; default as for any run.
        trusted: Whether what its author wrote may be executed: pickles, and types of no known library.
        into: An empty model of its class that takes the weights, where the class cannot be imported.

    Raises:
        ModelNotFound: there is no such version.
        InvalidValue: it was withdrawn.
        UntrustedModel: loading it takes trust; the message names its run, author and hash.
        NotFound: its content is not in this workspace.
        FormatError: its content is damaged.
    """
    found = workspace if isinstance(workspace, Workspace) else open_workspace(workspace)
    return load_version(found.models, found.blobs, ref, trusted=trusted, into=into)


def load_version(
    models: Models, blobs: Blobs, ref: str | ModelRef, *, trusted: bool = False, into: Any = None
) -> LoadedModel:
    """Load the version that a reference means.

    Args:
        models: The registry.
        blobs: Where its content lies.
        ref: Such as `credit-risk@production`, `credit-risk@2.1.0`, `credit-risk@champion?as_of=2026-03-01`.
        trusted: Whether what its author wrote may be executed: pickles, and types of no known library.
        into: An empty model of its class that takes the weights, where the class cannot be imported.

    Raises:
        ModelNotFound: there is no such version.
        InvalidValue: it was withdrawn.
        UntrustedModel: loading it takes trust; the message names its run, author and hash.
        NotFound: its content is not in this workspace.
        FormatError: its content is damaged.
    """
    version = models.find(ref)
    if version.withdrawn is not None:
        raise InvalidValue(f"{version} was withdrawn: {version.withdrawn}")
    manifest = read_manifest(version, blobs)
    folder = Path(tempfile.mkdtemp(prefix="runstone-model-"))
    try:
        check_out(manifest, blobs, folder)
        native = flavour_named(manifest.flavour).load(
            folder, manifest.loading, is_trusted=trusted, origin=origin_of(version), into=into
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    loaded = LoadedModel(version, manifest, native)
    # files may be mapped by the model, or be the model: they go when it goes
    weakref.finalize(loaded, shutil.rmtree, folder, ignore_errors=True)
    return loaded


def check_out(manifest: Manifest, blobs: Blobs, folder: Path) -> None:
    """Write a version's files into a folder, each one checked.

    Raises:
        NotFound: its content is not in this workspace.
        FormatError: its content is damaged, or a path leads out of the folder.
    """
    root = folder.resolve()
    for entry in manifest.files:
        target = (root / entry.path).resolve()
        if not target.is_relative_to(root) or target == root:
            raise FormatError(f"the manifest names a file outside of its folder: {entry.path!r:.120}")
        target.parent.mkdir(parents=True, exist_ok=True)
        blobs.copy_to(entry.hash, target)


def read_example(manifest: Manifest, blobs: Blobs) -> Any:
    """Return the first rows of the example that a version was registered with, or `None` where there was none."""
    if manifest.example is None:
        return None
    data = io.BytesIO(blobs.read(manifest.example.hash))
    if manifest.example.path.endswith(".parquet"):
        import pandas as pd

        return pd.read_parquet(data)
    import numpy as np

    found = np.load(data, allow_pickle=False)
    return {name: found[name] for name in found.files} if hasattr(found, "files") else found


def origin_of(version: ModelVersion) -> Origin:
    """Return where a version comes from, for messages."""
    return Origin(str(version), version.run_id, version.author, version.manifest)
