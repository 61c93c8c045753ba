"""Artifacts through the server: each file becomes an artifact of its run, its content stored once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from mimetypes import MimeTypes
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from starlette.responses import Response

from runstone.blobs.partial import Partial
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
_KINDS = MimeTypes()  # without the files of this machine, which may say otherwise than those of another
_PLAIN_KINDS = frozenset({"application/pdf", "application/x-tar", "application/zip"})


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
        """Take a file, or a folder with all that is in it, away; with an empty path, everything."""
        self.mlflow.taken.forget((self.folder, self.model_id))
        with self.mlflow.writers.writing(self.folder) as writer:
            for artifact in list(read_journal(self.folder).artifacts.values()):
                there = list(self._files_of(artifact))
                kept = [(name, entry) for name, entry in there if path and not f"{name}/".startswith(f"{path}/")]
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


def checked_folder(path: str) -> str:
    """Return a folder to list, in its plain form; empty for the root. Raises as `checked` does."""
    plain = "/".join(part for part in path.split("/") if part not in ("", ".")) if not path.startswith("/") else path
    return checked(plain) if plain else ""


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
    path = checked_folder(path)
    before = f"{path}/" if path else ""
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
    path = checked_folder(call.fields.text("path"))
    place, rest = find_place(call, path, Role.VIEWER)
    files, below = (place.files(), rest) if place is not None else _of_nobody(call, path)
    found = folder_listing(files, below, is_relative=True)
    return {"files": found} if found else {}


def find_file(call: Call, path: str) -> tuple[FileEntry, str]:
    """Return the file at a path of the proxy, and its name.

    Raises:
        MlflowError: there is none, or it is a folder, or somebody may not have it.
    """
    place, rest = find_place(call, path, Role.VIEWER)
    files, below = (place.files(), rest) if place is not None else _of_nobody(call, path)
    return _entry_of(files, below), PurePosixPath(below).name


def download(call: Call) -> Response:
    """GET mlflow-artifacts/artifacts/PATH."""
    entry, name = find_file(call, checked(call.path["path"]))
    return _told_of(entry, name) if call.request.method == "HEAD" else _sent_for(call, entry, name)


def delete(call: Call) -> dict[str, Any]:
    """DELETE mlflow-artifacts/artifacts/PATH."""
    path = checked(call.path["path"])
    place, rest = find_place(call, path, Role.MAINTAINER)
    if place is not None:
        place.remove(rest)
    elif (folder := call.mlflow.loose.find()) is not None:
        Place(call.mlflow, folder).remove(path)
    return {}


def download_of_run(call: Call) -> Response:
    """GET get-artifact."""
    path = checked(call.fields.required("path"))
    entry = _entry_of(Place(call.mlflow, call.run()).files(), path)
    return _told_of(entry, path) if call.request.method == "HEAD" else _sent_for(call, entry, path)


def _sent_for(call: Call, entry: FileEntry, path: str) -> Response:
    return sent_content(call.mlflow, entry, path, call.request.headers.get("range"))


def _told_of(entry: FileEntry, path: str) -> Response:
    """Return what is said of a file, without its content (HEAD)."""
    told = {"Content-Length": str(entry.size_bytes), "ETag": f'"{entry.hash[:32]}"', "Accept-Ranges": "bytes"}
    return with_headers(Response(headers=told), path)


def sent_file(mlflow: Mlflow, place: Place, path: str, range_header: str | None = None) -> Response:
    """Return a file, or the range of it that was asked for, as an answer.

    Raises:
        MlflowError: there is none, or it is a folder.
    """
    return sent_of(mlflow, place.files(), checked(path), range_header)


def sent_of(mlflow: Mlflow, files: Mapping[str, FileEntry], path: str, range_header: str | None = None) -> Response:
    """Return one of some files as an answer; raises as `sent_file` does."""
    return sent_content(mlflow, _entry_of(files, path), path, range_header)


def _entry_of(files: Mapping[str, FileEntry], path: str) -> FileEntry:
    entry = files.get(path)
    if entry is None:
        if not path or any(name.startswith(f"{path}/") for name in files):
            raise invalid(f"'{path:.200}' is a folder, not a file")
        raise missing(f"No such artifact: '{path:.200}'")
    return entry


def sent_content(mlflow: Mlflow, entry: FileEntry, path: str, range_header: str | None = None) -> Response:
    """Return a content as an answer, to be saved under the last part of its path.

    Raises:
        MlflowError: the content is not here.
        ApiError: it has no such range.
    """
    try:
        return with_headers(sent(mlflow.state.contents, entry.hash, path, range_header=range_header), path)
    except ApiError as error:
        if error.code != "not_found":
            raise
        raise missing(error.message) from None


def with_headers(answer: Response, path: str) -> Response:
    """Return an answer with the headers by which MLflow's clients know a file."""
    name = PurePosixPath(path).name
    answer.headers["Content-Type"] = kind_of(name)
    answer.headers["Content-Disposition"] = f"attachment; {_named(name)}"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


def kind_of(name: str) -> str:
    """Return the media type of a file by its name; what a browser could run is bytes."""
    if PurePosixPath(name).suffix.lower() in _TEXT or name in _TEXT_NAMES:
        return "text/plain"
    kind, packing = _KINDS.guess_type(name)
    is_shown = kind is not None and (kind.startswith(("image/", "audio/", "video/")) or kind in _PLAIN_KINDS)
    return kind if kind is not None and is_shown and packing is None else "application/octet-stream"


def _named(name: str) -> str:
    if re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
        return f"filename={name}"
    if name.isascii() and name.isprintable():
        return 'filename="' + re.sub(r'(["\\])', r"\\\1", name) + '"'
    return f"filename*=UTF-8''{quote(name.encode(), safe='')}"


# --- uploads ----------------------------------------------------------------------------------------------------------


class Upload:
    """A file on its way in: bytes go to the disk as they come, and into the store when they are all here.

    Args:
        mlflow: Where it goes.

    Raises:
        OSError: the disk refuses.
    """

    def __init__(self, mlflow: Mlflow) -> None:
        self._file = Partial(mlflow.uploads.folder())

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)

    def put(self, call: Call, path: str, place: Place | None) -> None:
        """Store what came.

        Raises:
            MlflowError: it cannot lie there.
            OSError: the disk refuses.
        """
        land(call.mlflow, Path(self._file.path), place, path)

    def close(self) -> None:
        """Leave nothing behind."""
        self._file.close()


def land(mlflow: Mlflow, source: Path, place: Place | None, path: str, *, is_synced: bool = False) -> None:
    """Store a file that has come.

    Args:
        mlflow: What it goes into.
        source: The file.
        place: Whose it is; `None`: nobody's.
        path: Of the file there.
        is_synced: Whether it must be on the disk then, since it is nowhere else.

    Raises:
        MlflowError: it cannot lie there.
        OSError: the disk refuses.
    """
    blobs = mlflow.workspace.blobs
    entry = blobs.put(source, PurePosixPath(path).name)
    if is_synced:
        blobs.sync()
    if place is None:
        place = Place(mlflow, mlflow.loose.make())
    mlflow.taken.take((place.folder, place.model_id), path, place.files)
    place.add(path, entry)


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
