"""Artifacts through the server: each file becomes an artifact of its run, its content stored once."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from starlette.responses import Response

from runstone.blobs import Blobs
from runstone.runlog.reader import JournalState, read_journal
from runstone.server.errors import ApiError
from runstone.server.files import check_path, sent
from runstone.server.mlflow.errors import invalid, missing
from runstone.server.mlflow.logged import LoggedModel
from runstone.server.mlflow.service import Call, Mlflow, check_role
from runstone.server.roles import Role
from runstone.values import Artifact, FileEntry

MODEL_KEY = "mlflow_model_id"
"""Key in an artifact's metadata: it holds the files of a logged model, which a run's listing leaves out."""
_OF_MODEL = re.compile(r"(m-[0-9a-f]{32})/(.+)", re.DOTALL)
_IN_RUN = re.compile(r"(\d+)/([a-z0-9][a-z0-9_-]{0,63})/artifacts(?:/(.*))?", re.DOTALL)
_IN_MODEL = re.compile(r"(\d+)/models/(m-[0-9a-f]{32})/artifacts(?:/(.*))?", re.DOTALL)
_IN_REGISTRY = re.compile(r"registry/([^/]+)/(\d+)(?:/(.*))?", re.DOTALL)
_TEXT = frozenset(
    ".txt .log .err .cfg .conf .ini .properties .toml .yaml .yml .xml .json .js .py .csv .tsv .md .rst .ipynb".split()
)
_TEXT_NAMES = frozenset({"MLmodel", "mlproject"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where files lie: those of a run, or of a logged model, whose files are a run's too.

    Attributes:
        mlflow: What it is in.
        folder: Of the run.
        model_id: Of the model; empty for the run's own.
    """

    mlflow: Mlflow
    folder: Path
    model_id: str = ""

    @classmethod
    def of_model(cls, mlflow: Mlflow, model: LoggedModel) -> Place:
        """Return the place of a model's files.

        Raises:
            MlflowError: the run that keeps them is gone.
        """
        folder = mlflow.workspace.find_run_folder(model.run_id)
        if folder is None:
            raise missing(f"Run with id={model.run_id} not found")
        return cls(mlflow, folder, model.id)

    def files(self) -> dict[str, FileEntry]:
        """Return the files by path; of a run without those of its models."""
        return self.mlflow.files_of(self.folder, self.model_id, self._picked)

    def _picked(self, journal: JournalState) -> dict[str, FileEntry]:
        return {path: entry for artifact in journal.artifacts.values() for path, entry in self._files_of(artifact)}

    def _files_of(self, artifact: Artifact) -> Iterable[tuple[str, FileEntry]]:
        whole = artifact.metadata.get(MODEL_KEY)
        single = _OF_MODEL.fullmatch(artifact.name) if not artifact.is_folder else None
        if whole or single is not None:
            if single is not None:
                return [(single[2], entry) for entry in artifact.files] if self.model_id == single[1] else []
            return [(entry.path, entry) for entry in artifact.files] if self.model_id == whole else []
        if self.model_id:
            return []
        if not artifact.is_folder:
            return [(artifact.name, entry) for entry in artifact.files]
        return [(f"{artifact.name}/{entry.path}", entry) for entry in artifact.files]

    def add(self, path: str, entry: FileEntry) -> None:
        """Say that a file lies here now."""
        name = f"{self.model_id}/{path}" if self.model_id else path
        with self.mlflow.writers.writing(self.folder) as writer:
            writer.tell(
                "artifact",
                name=name,
                folder=False,
                files=[_told(PurePosixPath(path).name, entry)],
                metadata={MODEL_KEY: self.model_id} if self.model_id else {},
            )

    def remove(self, path: str) -> None:
        """Take a file, or a folder with all that is in it, away."""
        with self.mlflow.writers.writing(self.folder) as writer:
            for artifact in list(read_journal(self.folder).artifacts.values()):
                there = list(self._files_of(artifact))
                kept = [(name, entry) for name, entry in there if name != path and not name.startswith(f"{path}/")]
                if len(kept) < len(there):
                    writer.tell("artifact_removed", name=artifact.name)
                    for name, entry in kept:
                        self.add(name, entry)

    def gather(self, name: str) -> None:
        """Make one artifact, a folder, of the files of a model that is whole now."""
        with self.mlflow.writers.writing(self.folder) as writer:
            standing = read_journal(self.folder).artifacts
            single = [one for one in standing.values() if not one.is_folder and list(self._files_of(one))]
            if not single or not self.model_id:
                return
            files = self.files()
            other = standing.get(name)
            is_free = other is None or other.metadata.get(MODEL_KEY) == self.model_id
            writer.tell(
                "artifact",
                name=name if is_free and name else self.model_id,
                folder=True,
                files=[_told(path, entry) for path, entry in sorted(files.items())],
                metadata={MODEL_KEY: self.model_id},
            )
            for one in single:
                writer.tell("artifact_removed", name=one.name)


def _told(path: str, entry: FileEntry) -> dict[str, Any]:
    return {"path": path, "hash": entry.hash, "size": entry.size_bytes}


# --- paths ------------------------------------------------------------------------------------------------------------


def checked(path: str) -> str:
    """Return a path that leads nowhere else.

    Raises:
        MlflowError: it does, or could.
    """
    path = path.removesuffix("/") if path != "/" else path
    unfolded = path
    for _layer in range(3):
        unfolded = unquote(unfolded)
    if "%2f" in path.lower() or ".." in unfolded.replace("\\", "/").split("/") or unfolded.startswith("/"):
        raise invalid("Invalid path")
    try:
        return check_path(path)
    except ApiError:
        raise invalid("Invalid path") from None


def find_place(call: Call, path: str, role: Role) -> tuple[Place | None, str]:
    """Return the place that a path of the proxy leads to and the rest of it; `None`: it is no run's, nor a model's.

    Raises:
        MlflowError: somebody may not do this there.
    """
    mlflow = call.mlflow
    in_model = _IN_MODEL.fullmatch(path)
    model = mlflow.models.find(in_model[2]) if in_model is not None else None
    if in_model is not None and model is not None:
        mlflow.reach(call.principal, model.run_id, role)
        return Place.of_model(mlflow, model), in_model[3] or ""
    in_run = _IN_RUN.fullmatch(path)
    if in_run is not None and mlflow.workspace.find_run_folder(in_run[2]) is not None:
        return Place(mlflow, mlflow.reach(call.principal, in_run[2], role)), in_run[3] or ""
    check_role(call.principal, role)  # it is nobody's project
    return None, path


def _of_nobody(call: Call, path: str) -> tuple[dict[str, FileEntry], str]:
    """Return the files of the registered version that a path leads to, else the loose ones; and its rest."""
    found = _IN_REGISTRY.fullmatch(path)
    model = call.mlflow.registry.find(found[1]) if found is not None else None
    if found is not None and model is not None:
        return call.mlflow.registry.files(model.version(found[2])), found[3] or ""
    folder = call.mlflow.loose.find()
    return (Place(call.mlflow, folder).files() if folder is not None else {}), path


def folder_listing(files: Mapping[str, FileEntry], path: str, *, is_relative: bool) -> list[dict[str, Any]]:
    """Return what lies in a folder, sorted.

    Args:
        files: All files by path.
        path: Of the folder; empty for the root.
        is_relative: Whether paths are told from the folder, else from the root.

    Raises:
        MlflowError: the path leads elsewhere.
    """
    before = f"{checked(path)}/" if path else ""
    found: dict[str, dict[str, Any]] = {}
    for name, entry in files.items():
        if not name.startswith(before):
            continue
        first, _slash, below = name[len(before) :].partition("/")
        shown = first if is_relative else before + first
        if below:
            found[first] = {"path": shown, "is_dir": True}
        else:
            found.setdefault(first, {"path": shown, "is_dir": False, "file_size": entry.size_bytes})
    return [found[first] for first in sorted(found)]


# --- routes -----------------------------------------------------------------------------------------------------------


def list_run(call: Call) -> dict[str, Any]:
    """GET artifacts/list of a run."""
    folder = call.run()
    one = call.mlflow.experiments.of_project(read_journal(folder).project)
    found = folder_listing(Place(call.mlflow, folder).files(), call.fields.text("path"), is_relative=False)
    return {"root_uri": call.mlflow.root(one, folder.name), **({"files": found} if found else {})}


def list_proxied(call: Call) -> dict[str, Any]:
    """GET mlflow-artifacts/artifacts."""
    path = call.fields.text("path")
    path = checked(path) if path else ""
    place, rest = find_place(call, path, Role.VIEWER)
    files, below = (place.files(), rest) if place is not None else _of_nobody(call, path)
    found = folder_listing(files, below, is_relative=True)
    return {"files": found} if found else {}


def download(call: Call) -> Response:
    """GET mlflow-artifacts/artifacts/PATH."""
    path = checked(call.path["path"])
    place, rest = find_place(call, path, Role.VIEWER)
    if place is not None:
        return sent_file(call.mlflow, place, rest)
    return sent_of(call.mlflow, *_of_nobody(call, path))


def delete(call: Call) -> dict[str, Any]:
    """DELETE mlflow-artifacts/artifacts/PATH."""
    path = checked(call.path["path"])
    place, rest = find_place(call, path, Role.MAINTAINER)
    if place is not None and rest:
        place.remove(rest)
    elif place is None:
        folder = call.mlflow.loose.find()
        if folder is not None:
            Place(call.mlflow, folder).remove(path)
            call.mlflow.loose.forget()
    return {}


def download_of_run(call: Call) -> Response:
    """GET get-artifact."""
    return sent_file(call.mlflow, Place(call.mlflow, call.run()), call.fields.required("path"))


def sent_file(mlflow: Mlflow, place: Place, path: str) -> Response:
    """Return a file as an answer.

    Raises:
        MlflowError: there is none, or it is a folder.
    """
    return sent_of(mlflow, place.files(), checked(path))


def sent_of(mlflow: Mlflow, files: Mapping[str, FileEntry], path: str) -> Response:
    """Return one of some files as an answer; raises as `sent_file` does."""
    entry = files.get(path)
    if entry is None:
        if any(name.startswith(f"{path}/") for name in files):
            raise invalid(f"'{path:.200}' is a folder, not a file")
        raise missing(f"No such artifact: '{path:.200}'")
    return sent_content(mlflow, entry, path)


def sent_content(mlflow: Mlflow, entry: FileEntry, path: str) -> Response:
    """Return a content as an answer, to be saved under the last part of its path.

    Raises:
        MlflowError: the content is not here.
    """
    try:
        return _with_headers(sent(mlflow.state.contents, entry.hash, path), path)
    except ApiError as error:
        raise missing(error.message) from None


def _with_headers(answer: Response, path: str) -> Response:
    name = PurePosixPath(path).name
    is_text = PurePosixPath(name).suffix.lower() in _TEXT or name in _TEXT_NAMES
    answer.headers["Content-Type"] = "text/plain; charset=utf-8" if is_text else "application/octet-stream"
    plain = re.fullmatch(r"[A-Za-z0-9._-]+", name)
    shown = f"filename={name}" if plain else f"filename*=UTF-8''{quote(name.encode(), safe='')}"
    answer.headers["Content-Disposition"] = f"attachment; {shown}"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


# --- uploads ----------------------------------------------------------------------------------------------------------


class Upload:
    """A file on its way in: bytes go to the disk as they come, and into the store when they are all here.

    Args:
        mlflow: Where it goes.
    """

    def __init__(self, mlflow: Mlflow) -> None:
        folder = mlflow.folder / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=folder)
        self.path = Path(name)
        self.file = os.fdopen(fd, "wb")

    def put(self, call: Call, path: str, place: Place | None) -> None:
        """Store what came.

        Raises:
            OSError: the disk refuses.
        """
        self.file.close()
        blobs: Blobs = call.mlflow.workspace.blobs
        entry = blobs.put(self.path, PurePosixPath(path).name)
        if place is None:
            place = Place(call.mlflow, call.mlflow.loose.make())
            call.mlflow.loose.take(path, place.files)
        place.add(path, entry)

    def close(self) -> None:
        """Leave nothing behind."""
        self.file.close()
        self.path.unlink(missing_ok=True)


def upload_target(call: Call) -> tuple[str, Place | None]:
    """Return where an upload goes.

    Raises:
        MlflowError: its path cannot be, or somebody may not do this there.
    """
    if "path" in call.path:
        place, rest = find_place(call, checked(call.path["path"]), Role.CONTRIBUTOR)
        if place is not None and not rest:
            raise invalid("Invalid path")
        return rest, place
    for name in ("run_uuid", "path"):
        if not call.fields.text(name):
            raise invalid(f"Request must specify {name}.")
    folder = call.mlflow.reach(call.principal, call.fields.text("run_uuid"), Role.CONTRIBUTOR)
    return checked(call.fields.text("path")), Place(call.mlflow, folder)
