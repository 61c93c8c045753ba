"""A workspace on a server, as Python and the command line read it: runs are fetched when they are asked for."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from runstone import settings
from runstone.errors import AmbiguousName, FormatError, InvalidConfig, InvalidValue, RunNotFound
from runstone.names import check_run_id
from runstone.runlog.tail import MetricTail
from runstone.sync.address import Address, token_for
from runstone.sync.client import Client, NotThere, Refused, Unreachable, segment
from runstone.sync.fetching import fetch_contents, fetch_run, ids_of, quoted
from runstone.sync.kinds import writer_of
from runstone.sync.spool import Spool
from runstone.workspace import StopReason, Workspace, ensure_workspace

if TYPE_CHECKING:
    from runstone.blobs import Blobs
    from runstone.datasets import Datasets
    from runstone.editing import Edited
    from runstone.models import Models
    from runstone.query import RunTable
    from runstone.runinfo import RunInfo

_MOST_RUNS = 1_000
_ASK_S = 5.0
_STAMPS_AT_ONCE = 200


class RemoteWorkspace(Workspace):
    """A workspace on a server. Its folder on this machine holds what was fetched, and nothing else.

    Reading fetches what is new of the runs that are asked for and answers from that. What would change it, or needs
    all of it, says where that is done instead.

    Args:
        url: Of the server.

    Raises:
        InvalidConfig: it is no URL of a server, or nobody knows where this user's files lie.
    """

    def __init__(self, url: str) -> None:
        self.address = Address.parse(url)
        self.url = str(self.address)
        root = settings.spool_folder()
        if root is None:
            raise InvalidConfig("there is no home folder to keep what is fetched in; set XDG_STATE_HOME")
        folder = root.parent / "fetched" / self.address.folder
        if not (folder / "FORMAT").is_file():
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            ensure_workspace(folder)
            folder.chmod(0o700)
        super().__init__(folder)
        self._client = Client(self.address, token_for(self.address))

    def __repr__(self) -> str:
        """Say where it is."""
        return f"<RemoteWorkspace {self.url}>"

    def runs(
        self,
        filter: str = "",
        *,
        order_by: str | None = None,
        limit: int | None = None,
        deleted: bool = False,
        archived: bool | None = False,
    ) -> RunTable:
        """Return the runs that a filter selects, as `Workspace.runs` does; the newest 1,000 without a limit.

        Raises:
            Unreachable: the server does not answer.
            Refused: it does not know the filter, or the token.
        """
        word = {None: "all", True: "1", False: "0"}[archived]
        wanted = _MOST_RUNS if limit is None else limit
        ids, total = ids_of(
            self._client, filter, order_by=order_by, limit=wanted, deleted=str(deleted).lower(), archived=word
        )
        if limit is None and total > len(ids):
            raise InvalidValue(f"{total:,} runs match; give a limit, or a filter that selects at most {_MOST_RUNS:,}")
        self._fetch(ids)
        if not ids:
            return super().runs("id = ''", limit=0)
        return super().runs(quoted(ids), order_by=order_by, deleted=deleted, archived=None)

    def refresh(self) -> None:
        """Fetch what is new of the newest 1,000 runs, for those who read the files; others go.

        Raises:
            Unreachable, Refused: as `runs`.
        """
        ids, _total = ids_of(self._client, "", limit=_MOST_RUNS, archived="all")
        self._fetch(ids)
        wanted = set(ids)
        for folder in list(self.run_folders()):
            if folder.name not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    def _fetch(self, ids: list[str]) -> None:
        """Fetch what changed of some runs since they were fetched last."""
        file = self.path / "fetched.json"
        known: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            known = dict(json.loads(file.read_bytes()))
        here = {folder.name for folder in self.run_folders()}
        for start in range(0, len(ids), _STAMPS_AT_ONCE):
            some = ids[start : start + _STAMPS_AT_ONCE]
            now = self._client.get("/api/sync/stamps", ids=some)["stamps"]
            for run_id in some:
                if run_id in now and (known.get(run_id) != now[run_id] or run_id not in here):
                    fetch_run(self._client, self.path, run_id)
                    known[run_id] = now[run_id]
        partial = file.with_name(f"{file.name}.{os.urandom(8).hex()}.partial")
        partial.write_text(json.dumps(known))
        partial.replace(file)

    def run(self, reference: str) -> RunInfo:
        """Return one run, as `Workspace.run` does, with what it logged until now.

        Raises:
            RunNotFound: there is none.
            AmbiguousName: there are several.
            Unreachable: the server does not answer.
        """
        run_id = self._resolve(reference)
        folder, _came = fetch_run(self._client, self.path, run_id)
        from runstone.runinfo import RunInfo  # NumPy, only for reading

        return RunInfo(folder)

    def fetch_contents(self, run_id: str) -> int:
        """Fetch the artifacts and media of a run; return how many contents came."""
        folder, _came = fetch_run(self._client, self.path, run_id)
        return fetch_contents(self._client, folder, super().blobs)[0]

    def request_stop(self, run_id: str, reason: StopReason = "stop") -> None:
        """Ask a running run to stop, wherever it runs: its `should_stop` turns true when its helper asks next.

        Raises:
            RunNotFound: no run has this id.
            InvalidValue: the server prunes no runs.
        """
        if reason != "stop":
            raise InvalidValue("a run on a server can be asked to stop; only its own sweep prunes it")
        try:
            self._client.post(f"/api/runs/{segment(run_id)}/stop", {})
        except NotThere:
            raise RunNotFound(f"no run has the id {run_id!r} on {self.url}") from None

    def follow(self, run_id: str) -> MetricTail:
        """Not here: only files are followed."""
        self._only_there("following a run")

    def edit(self, runs_or_filter: Any, *, dry_run: bool = False, **edits: Any) -> Edited:
        """Not here: runs on a server are changed there."""
        self._only_there("changing runs")

    def purge(self, runs_or_filter: Any, *, dry_run: bool = False) -> NoReturn:
        """Not here: runs on a server are removed there."""
        self._only_there("removing runs")

    def create_run(self, **options: Any) -> NoReturn:
        """Not here: `start_run` writes runs, and sends them."""
        self._only_there("making runs for other processes")

    def seal(self, run_id: str) -> NoReturn:
        """Not here: runs on a server are sealed there."""
        self._only_there("sealing runs")

    @property
    def blobs(self) -> Blobs:
        """Content of artifacts that was fetched, by hash; `fetch_contents` fetches that of a run."""
        return super().blobs

    @property
    def models(self) -> Models:
        """Not here: `runstone pull` fetches models into a folder."""
        self._only_there("the model registry")

    @property
    def datasets(self) -> Datasets:
        """Not here: `runstone pull` fetches datasets into a folder."""
        self._only_there("the datasets")

    def _resolve(self, reference: str) -> str:
        try:
            if self._client.get(f"/api/sync/runs/{check_run_id(reference)}/files"):
                return reference
        except (NotThere, InvalidValue):
            pass
        told = json.dumps(reference, ensure_ascii=False)
        text = "'" + reference.replace("'", "''") + "'"
        ids, _total = ids_of(self._client, f"name = {text}", limit=10, archived="all")
        if not ids and len(reference) >= 4 and reference.replace("-", "").replace("_", "").isalnum():
            ids = [
                one
                for one in ids_of(self._client, "", limit=20_000, archived="all")[0]
                if one.startswith(reference) or one.endswith(reference)
            ]
        if not ids:
            raise RunNotFound(f"no run on {self.url} has the id or name {told}")
        if len(ids) > 1:
            raise AmbiguousName(f"{told} may be {', '.join(ids[:5])}; give more of the id")
        return ids[0]

    def _only_there(self, what: str) -> NoReturn:
        raise InvalidValue(
            f"{what} works in a folder, or on the server itself ({self.url}); `runstone pull {self.url}` brings runs, "
            "datasets and models into a folder"
        )


def fetch_journals(spool: Path, run_id: str, *, is_needed: bool) -> Path | None:
    """Bring what a server knows of a run to the spool, so that it can be gone on with here; `None` where it has none.

    Args:
        spool: Folder of the workspace from which runs are sent.
        run_id: The run.
        is_needed: Whether to say so where the server cannot be asked.

    Raises:
        RunNotFound: the server cannot be asked, and `is_needed`.
    """
    place = Spool(spool)
    client = Client(place.address, token_for(place.address), timeout_s=_ASK_S)
    staged = spool / "imports" / f"{os.urandom(16).hex()}.partial"
    try:
        listing = client.get(f"/api/sync/runs/{run_id}/files")
        staged.mkdir(parents=True)
        names = [name for name in listing["files"] if name.endswith((".jsonl", ".status")) and writer_of(name)]
        for name in names:
            data = b"".join(client.stream(f"/api/sync/runs/{run_id}/files/{segment(name)}"))
            (staged / name).write_bytes(data)
        target = spool / "runs" / Path(listing["project"]).name / run_id
        target.parent.mkdir(parents=True, exist_ok=True)
        place.note("foreign", run_id, sorted({str(writer_of(name)) for name in names}))
        place.note("opened", run_id, {"at": 0.0})
        staged.rename(target)
        return target
    except NotThere:
        return None
    except (Unreachable, Refused, FormatError) as error:  # training goes on without its earlier attempts
        if is_needed:
            raise RunNotFound(f"run {run_id!r} is not on this machine, and {error}") from None
        return None
    finally:
        client.close()
        if staged.is_dir():
            for path in staged.iterdir():
                path.unlink()
            staged.rmdir()
