"""Reports of a workspace: `reports/<folder>/report.md`, and beside it `report.json` with the real name."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from runstone.errors import AlreadyExists, FormatError, InvalidValue, NotFound
from runstone.names import check_name, folder_name

FORMAT = 1
TEXT = "report.md"
_FACTS = "report.json"
MOST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class StoredReport:
    """One report.

    Attributes:
        name: As it was given.
        path: Its text, a Markdown file that any editor may write.
        created_at, changed_at: Seconds since the Unix epoch, UTC.
    """

    name: str
    path: Path
    created_at: float
    changed_at: float

    def read(self) -> str:
        """Return its text.

        Raises:
            OSError: it cannot be read.
            InvalidValue: it is longer than 4 MiB.
        """
        return read_text(self.path)


class Reports:
    """The reports of a workspace. Holds nothing open.

    Args:
        workspace_path: Folder of the workspace.
    """

    def __init__(self, workspace_path: Path) -> None:
        self._root = workspace_path / "reports"

    def list(self) -> list[StoredReport]:
        """Return all reports by name; folders that are none are passed over."""
        found = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for folder in sorted(self._root.iterdir()):
                with contextlib.suppress(NotFound, FormatError):
                    found.append(_stored(folder))
        return sorted(found, key=lambda report: report.name)

    def get(self, name: str) -> StoredReport:
        """Return the report of this name.

        Raises:
            NotFound: there is none; the message names those that are there.
            FormatError: a newer version of Runstone made it.
        """
        try:
            return _stored(self._root / folder_name(check_name(name, "report")))
        except NotFound:
            names = ", ".join(repr(report.name) for report in self.list()[:8])
            raise NotFound(f"there is no report {name!r:.120}{f'; there is {names}' if names else ''}") from None

    def create(self, name: str, text: str) -> StoredReport:
        """Make a report.

        Raises:
            InvalidName: the name cannot be kept.
            AlreadyExists: there is a report of this name.
            InvalidValue: the text is longer than 4 MiB.
        """
        folder = self._root / folder_name(check_name(name, "report"))
        _check(text)
        folder.mkdir(parents=True, exist_ok=True)
        facts = json.dumps({"format": FORMAT, "name": name, "created_at": time.time()}) + "\n"
        try:
            with (folder / _FACTS).open("x", encoding="utf-8") as file:
                file.write(facts)
        except FileExistsError:
            raise AlreadyExists(f"there is a report {name!r:.120} already: {folder / TEXT}") from None
        _replace(folder / TEXT, text)
        return _stored(folder)

    def write(self, name: str, text: str) -> StoredReport:
        """Put another text in place of a report's.

        Raises:
            NotFound: there is no such report.
            InvalidValue: the text is longer than 4 MiB.
        """
        standing = self.get(name)
        _check(text)
        _replace(standing.path, text)
        return self.get(name)


def read_text(path: Path) -> str:
    """Return the text of a report's file.

    Raises:
        OSError: it cannot be read.
        InvalidValue: it is longer than 4 MiB.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise InvalidValue(f"{path} is longer than {MOST_BYTES >> 20} MiB: that is no report")
    return data.decode("utf-8", "replace")


def _stored(folder: Path) -> StoredReport:
    try:
        facts = json.loads((folder / _FACTS).read_bytes())
        name, made, created = facts["name"], int(facts["format"]), float(facts["created_at"])
        changed = (folder / TEXT).stat().st_mtime
    except (OSError, ValueError, LookupError, TypeError):
        raise NotFound(f"there is no report in {folder}") from None
    if made > FORMAT:
        raise FormatError(f"{folder} has format {made}, this version knows {FORMAT}; upgrade runstone")
    return StoredReport(str(name), folder / TEXT, created, changed)


def _check(text: str) -> None:
    if len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise InvalidValue(f"the text is longer than {MOST_BYTES >> 20} MiB: that is no report")


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.urandom(16).hex()}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="replace")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
