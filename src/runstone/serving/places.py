"""Where the served model comes from, as a value that another process can be given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runstone.models import Model
from runstone.models.refs import ModelRef
from runstone.names import folder_name
from runstone.serving.sources import FolderSource, RegistrySource, Source
from runstone.workspace import Workspace, open_workspace


@dataclass(frozen=True, slots=True)
class Place:
    """A reference into the registry of a workspace, or the folder of an exported model.

    Attributes:
        path: Folder of the workspace, or of the exported model.
        ref: Which version; `None`: `path` is an exported model.
        is_trusted: Whether what its author wrote may be executed.
    """

    path: Path
    ref: str | None = None
    is_trusted: bool = False

    def source(self, most_rows: int) -> Source:
        """Return what loads it."""
        if self.ref is None:
            return FolderSource(self.path, is_trusted=self.is_trusted, most_rows=most_rows)
        return RegistrySource(open_workspace(self.path), self.ref, is_trusted=self.is_trusted, most_rows=most_rows)

    def registered(self) -> Model | None:
        """Return the model in the registry; `None` for an exported one."""
        return None if self.ref is None else open_workspace(self.path).models.get(ModelRef.parse(self.ref).name)


def log_folder(workspace: Workspace, name: str) -> Path:
    """Return where predictions of a model are kept in a workspace."""
    return workspace.path / "predictions" / folder_name(name)
