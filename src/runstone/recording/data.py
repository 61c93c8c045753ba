"""What goes into a run and comes out of it: artifacts, models, datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone.params import to_json
from runstone.recording.recorder import Recorder

if TYPE_CHECKING:
    from runstone.datasets import Datasets, DatasetVersion
    from runstone.models import LoadedModel, ModelVersion, Signature
    from runstone.values import Artifact

_SNAPSHOT_S = 5.0
"""How long registering a model waits for the snapshot of the environment."""


class DataRecorder(Recorder):
    """The part of a run that keeps artifacts, registers models and proves which data was used."""

    def log_artifact(
        self, path: str | Path, *, name: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Artifact | None:
        """Store a file or folder with the run, by content: the same bytes are stored once in a workspace.

        Args:
            path: The file or folder. Links to files are followed; links to folders are not.
            name: Name of the artifact; default: the file's own. A second artifact of a name takes its place.
            metadata: Any JSON.

        Returns:
            What was stored; `None` where it could not be, with `on_error="warn"`.

        Raises:
            InvalidName, InvalidValue, NotFound, OSError: only with `on_error="raise"`.
        """
        if self._workspace is None:
            return None
        if self._is_finished:  # before a large file is copied for nothing
            self._event("artifact")
            return None
        from runstone.artifacts import store_artifact  # hashing, only where used

        try:
            artifact = store_artifact(self.workspace.blobs, Path(path), name, to_json(dict(metadata or {}))[0])
        except Exception as error:
            self._trouble("artifact", error)
            return None
        files = [{"path": f.path, "hash": f.hash, "size": f.size_bytes} for f in artifact.files]
        fields = {"name": artifact.name, "folder": artifact.is_folder, "files": files, "metadata": artifact.metadata}
        return artifact if self._event("artifact", **fields) else None

    def remove_artifact(self, name: str) -> None:
        """Let go of an artifact: the run no longer has it. Its bytes stay in the workspace until they are collected.

        Args:
            name: Name of the artifact. Nothing happens where the run has none of this name.
        """
        self._event("artifact_removed", name=name)

    def log_model(
        self,
        model: Any,
        *,
        name: str,
        version: str | None = None,
        pre: str | None = None,
        reason: str | None = None,
        signature: Signature | None = None,
        example: Any = None,
        labels: Sequence[Any] | None = None,
        flavour: str | None = None,
        init: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        notes: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        profile: Any = None,
    ) -> ModelVersion | None:
        """Save a model and register it as a new version, which never changes.

        Args:
            model: A model of scikit-learn, torch, Keras or ONNX, or the path of a model's files.
            name: Of the model in the registry; made with its first version.
            version: A number such as `2.1.0`, or `major`, `minor`, `patch`; default: what the evidence speaks for:
                signature or labels broken: major; other data, params or structure: minor; the same recipe: patch.
            pre: Words of a pre-release, such as `rc.1`.
            reason: Why a lower number than the proposed one is right; recorded.
            signature: What it takes and gives; default: inferred from `example`.
            example: Some of its input, as a table, an array or a mapping of arrays; the first five rows are kept.
            labels: The classes that it tells apart, in order; default: as the model says.
            flavour: `sklearn`, `torch`, `torch.export`, `keras`, `onnx`, `files`, `pickle`; default: by what it is.
            init: Arguments that make an empty torch module of its class; default: what Lightning keeps, or none.
            tags, notes: Of the version.
            metadata: Any JSON.
            profile: What monitoring compares with later: a table, an array, a path, or a
                `runstone.monitoring.Reference` with labels; `False`: nothing. Default: the tables that the run used,
                those with the role `train` first.

        Returns:
            The version; `None` where it could not be made, with `on_error="warn"`.

        Raises:
            InvalidName, InvalidValue, NotFound, AlreadyExists, OSError: only with `on_error="raise"`.
        """
        if self._workspace is None:
            return None
        if self._is_finished:  # before a large model is written for nothing
            self._event("output")
            return None
        try:
            from runstone import models  # the registry, only where it is used
            from runstone.models.hooks import announcer

            if self._companions is not None:
                self._companions.join_snapshot(_SNAPSHOT_S)  # it says from which commit the model comes
            blobs, info = self._workspace.blobs, self.read()
            manifest = models.save_model(
                model,
                blobs,
                flavour=flavour,
                signature=signature,
                example=example,
                labels=labels,
                init=init,
                metadata=metadata,
                run=info,
            )
            entry = models.Registration(name, version, pre, reason, tags, notes)
            after = announcer(self._workspace.path)
            registry = models.Models(self._workspace.path / "models", run_id=self.id, after=after)
            made = models.register(registry, blobs, manifest, entry)
        except Exception as error:
            self._trouble("model", error)
            return None
        self._event("output", kind="model", name=name, version=str(made.version), hash=made.manifest)
        if profile is not False and (profile is not None or any(link.kind == "dataset" for link in info.inputs)):
            try:
                from runstone.monitoring.reference import profile_registered  # Arrow, only for models with data

                profile_registered(self._workspace, made, info, manifest, model=model, given=profile)
            except Exception as error:
                self._trouble("profile", error)
            made = registry.get(name).find(str(made.version))
        return made

    def use_model(self, ref: str, *, role: str | None = None, trusted: bool = False, into: Any = None) -> LoadedModel:
        """Load a version of a model and record that this run used it.

        Args:
            ref: Such as `credit-risk@production`, `credit-risk@2.1.0`; see `runstone.load_model`.
            role: What it is used as, such as `teacher`.
            trusted, into: As for `runstone.load_model`.

        Raises:
            ModelNotFound, UntrustedModel, InvalidValue: whatever `on_error` says: without it nothing can go on.
        """
        from runstone import models  # the registry, only where it is used

        loaded = models.load_version(self.workspace.models, self.workspace.blobs, ref, trusted=trusted, into=into)
        found = loaded.version
        self._event("input", kind="model", name=found.model, version=str(found.version), hash=found.manifest, role=role)
        return loaded

    def use_dataset(
        self,
        data: Any,
        *,
        name: str | None = None,
        role: str | None = None,
        version: str | int | None = None,
        store: bool = False,
        profile: bool | None = None,
    ) -> DatasetVersion | None:
        """Record that this run uses some data, and which version of it: by the hash of its content.

        Args:
            data: A file or folder; a table of pandas, polars or Arrow; an array or tensor, or several of them; a
                dataset of torch or Hugging Face; a URL that fsspec knows; or a version that is there: `cifar@3`.
            name: Of the dataset; default: the last part of the path or URL, else `role`.
            role: What it is used as, such as `train`.
            version: A number or an alias, where `data` is the name of a dataset.
            store: Whether its content is put into the workspace. Without it the data stays where it is, its hashes
                prove which it was, and a URL is not fetched but pinned.
            profile: Whether tables are read whole for the profile of their columns; default: where they have 64 MiB or
                less together.

        Returns:
            The version, with `path`, `hash`, `files`, `schema` and `profile`; `None` where it could not be made, with
            `on_error="warn"`.

        Raises:
            DatasetNotFound, InvalidName: there is no version of that name, whatever `on_error` says: without it nothing
                can go on.
            InvalidName, InvalidValue, NotFound, OSError: only with `on_error="raise"`.
        """
        from runstone.datasets import using  # hashing, only where used

        if using.is_reference(data, version):
            used = using.find_used(self.workspace.datasets, data, version)
        else:
            if self._workspace is None:
                return None
            try:
                datasets = self._datasets()
                used = using.add_used(datasets, data, name=name, role=role, store=store, profile=profile)
            except Exception as error:
                self._trouble("dataset", error)
                return None
        if used.revoked is not None:
            self._warn(f"revoked-{used}", f"dataset {used} was revoked: {used.revoked.reason}")
        self._data_event("input", used, role)
        return used

    def log_dataset(
        self,
        data: Any,
        *,
        name: str,
        role: str | None = None,
        store: bool = True,
        profile: bool | None = None,
        tags: Mapping[str, str] | None = None,
        notes: str | None = None,
    ) -> DatasetVersion | None:
        """Keep data that this run made as a version of a dataset.

        Args:
            data: As for `use_dataset`.
            name: Of the dataset; made with its first version.
            role: What it is, such as `predictions`.
            store: Whether its content is put into the workspace.
            profile: As for `use_dataset`.
            tags, notes: Of the version, where it is new.

        Returns:
            The version; `None` where it could not be made, with `on_error="warn"`.

        Raises:
            InvalidName, InvalidValue, NotFound, OSError: only with `on_error="raise"`.
        """
        if self._workspace is None:
            return None
        if self._is_finished:  # before a large file is copied for nothing
            self._event("output")
            return None
        try:
            made = self._datasets().add(data, name=name, store=store, profile=profile, tags=tags, notes=notes)
        except Exception as error:
            self._trouble("dataset", error)
            return None
        self._data_event("output", made, role)
        return made

    def _datasets(self) -> Datasets:
        from runstone.datasets import Datasets  # only where used

        return Datasets(self.workspace.path, run_id=self.id)

    def _data_event(self, event: str, version: DatasetVersion, role: str | None) -> None:
        fields = {"name": version.name, "version": str(version.version), "hash": version.hash, "role": role}
        self._event(event, kind="dataset", **fields, source=version.read_from)
