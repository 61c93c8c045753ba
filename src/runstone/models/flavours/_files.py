"""Plain files: kept as they are, and given back as a folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runstone.errors import InvalidValue, NotFound
from runstone.models.flavours._base import Origin, Saved


class _Files:
    name = "files"

    def fits(self, model: Any) -> bool:
        return isinstance(model, str | Path)

    def save(self, model: Any, folder: Path, *, init: Mapping[str, Any] | None) -> Saved:
        # never called: the files of a path are stored from where they lie
        raise InvalidValue("files are stored from where they lie")

    def load(
        self, folder: Path, loading: Mapping[str, Any], *, is_trusted: bool, origin: Origin, into: Any = None
    ) -> Any:
        return folder / loading["file"] if "file" in loading else folder

    def predict(self, model: Any, data: Any) -> Any:
        raise InvalidValue(f"{model} is kept as plain files, which predict nothing; load them with what wrote them")


def copy_in(source: Path, target: Path) -> None:
    """Copy a model's file.

    Raises:
        NotFound: there is none.
    """
    if not source.is_file():
        raise NotFound(f"there is no file {source}")
    shutil.copyfile(source, target)


FLAVOUR = _Files()
