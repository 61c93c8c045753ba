"""The workspace on this machine that runs for a server are written to first; and what is known of sending them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runstone import settings
from runstone.errors import InvalidConfig
from runstone.names import check_run_id
from runstone.sync.address import Address
from runstone.workspace import Workspace, ensure_workspace

MARK = "remote.json"
_FOLDER = "sync"


class Spool:
    """A spool and what is kept beside its runs.

    Args:
        workspace: Its folder.

    Raises:
        InvalidConfig: it is no spool.
    """

    def __init__(self, workspace: Path) -> None:
        self.workspace = Workspace(workspace)
        try:
            told = json.loads((workspace / MARK).read_bytes())
            self.address = Address.parse(told["url"])
        except (OSError, ValueError, KeyError, TypeError):
            raise InvalidConfig(f"{workspace} is no place for runs that go to a server") from None
        self._folder = workspace / _FOLDER

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.workspace.path

    # --- who sends ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def sending(self, *, wait_s: float = 0.0) -> Iterator[bool]:
        """Say whether this process alone sends what is here; the lock goes with the process."""
        self._folder.mkdir(exist_ok=True)
        fd = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            yield _locked(fd, wait_s)
        finally:
            os.close(fd)

    @property
    def is_sent(self) -> bool:
        """Whether a process sends what is here."""
        with self.sending() as is_alone:
            return not is_alone

    # --- runs --------------------------------------------------------------------------------------------------------

    def runs(self) -> list[Path]:
        """Return the folders of all runs, the oldest first."""
        return sorted(self.workspace.run_folders(), key=_age_of)

    def note(self, kind: str, run_id: str, told: Any) -> None:
        """Keep something of a run: `opened`, `refused`, `done`, `foreign`."""
        place = self._place(kind, run_id)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f"{place.name}.{os.urandom(8).hex()}.partial")
        partial.write_text(json.dumps(told))
        partial.replace(place)

    def noted(self, kind: str, run_id: str) -> Any:
        """Return what was kept, `None` where nothing was."""
        try:
            return json.loads(self._place(kind, run_id).read_bytes())
        except (OSError, ValueError):
            return None

    def forget(self, kind: str, run_id: str) -> None:
        """Forget what was kept."""
        self._place(kind, run_id).unlink(missing_ok=True)

    def tell(self, **told: Any) -> None:
        """Keep how it is with sending, for `runstone sync status`."""
        self.note("state", "sender", {"at": time.time(), **told})

    def told(self) -> dict[str, Any]:
        """Return how it was with sending last."""
        found = self.noted("state", "sender")
        return found if isinstance(found, dict) else {}

    def _place(self, kind: str, run_id: str) -> Path:
        return self._folder / kind / f"{check_run_id(run_id)}.json"


def open_spool(url: str) -> Workspace:
    """Return the workspace on this machine for runs that go to a server, made where it is not there.

    Raises:
        InvalidConfig: it is no URL of a server, or nobody knows where this user's files lie.
        OSError: it cannot be made.
    """
    address = Address.parse(url)
    root = settings.spool_folder()
    if root is None:
        raise InvalidConfig("there is no home folder to write runs to before they are sent; set XDG_STATE_HOME")
    folder = root / address.folder
    if not (folder / MARK).is_file():
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        ensure_workspace(folder)
        folder.chmod(0o700)
        partial = folder / f"{MARK}.{os.urandom(8).hex()}.partial"
        partial.write_text(json.dumps({"format": 1, "url": str(address)}))
        partial.replace(folder / MARK)
    return Workspace(folder)


def spools() -> list[Spool]:
    """Return all spools of this user, in order of their names."""
    root = settings.spool_folder()
    if root is None:
        return []
    return [Spool(mark.parent) for mark in sorted(root.glob(f"*/{MARK}"))]


def _age_of(folder: Path) -> tuple[float, str]:
    times = []
    with contextlib.suppress(OSError):
        for path in folder.glob("journal.*.jsonl"):
            with path.open("rb") as file:
                told = json.loads(file.readline(1 << 16))
            times.append(float(told["at"]))
    return min(times, default=0.0), folder.name


def _locked(fd: int, wait_s: float) -> bool:
    limit = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= limit:
                return False
        time.sleep(0.02)
