"""Reading versions again: their history, their manifests, their content or the data where it lies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from runstone.blobs import Blobs
from runstone.datasets.manifest import shown_path
from runstone.datasets.registry import Dataset
from runstone.datasets.scan import hash_file
from runstone.datasets.version import DatasetVersion
from runstone.errors import FormatError, InvalidValue, NotFound


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it was recorded: of what, which file, and what is wrong."""

    of: str
    file: str
    what: str


def verify(dataset: Dataset, blobs: Blobs, *, selector: str | None = None) -> Iterator[Problem]:
    """Yield what is not as it was recorded; nothing where all holds.

    Args:
        dataset: The dataset.
        blobs: The store of its workspace.
        selector: Check the content of this version only.

    Raises:
        DatasetNotFound: there is no such version.
    """
    damages = dataset.verify()
    yield from (Problem("history", str(damage.path), damage.what) for damage in damages)
    if damages:
        return
    checked: dict[str, str | None] = {}
    for version in [dataset.find(selector)] if selector else dataset.versions():
        yield from _verify_version(version, blobs, checked)


def _verify_version(version: DatasetVersion, blobs: Blobs, checked: dict[str, str | None]) -> Iterator[Problem]:
    try:
        files = list(version.manifest.contents)
        json.dumps(version.tables)
    except (NotFound, FormatError, OSError, ValueError) as error:
        yield Problem(str(version), "manifest", str(error))
        return
    for file in files:
        content = str(file.hash)
        path = shown_path(file.path)
        if version.is_stored:
            if content not in checked:
                checked[content] = _trouble(blobs, content)
            trouble = checked[content]
            if trouble is not None:
                yield Problem(str(version), path, trouble)
            continue
        try:
            if hash_file(version.place_of(file))[0] != content:
                yield Problem(str(version), path, "it was changed where it lies, and was not stored")
        except (NotFound, InvalidValue, OSError) as error:
            yield Problem(str(version), path, str(error))


def _trouble(blobs: Blobs, content: str) -> str | None:
    try:
        blobs.verify(content)
    except (NotFound, FormatError, OSError) as error:
        return str(error)
    return None
