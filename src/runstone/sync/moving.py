"""Moving runs, datasets and models between two workspaces, each a folder or on a server. Again changes nothing."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runstone.blobs import Blobs
from runstone.bundle import import_bundle, write_bundle
from runstone.errors import AlreadyExists, FormatError, NotFound
from runstone.runlog.reader import read_journal
from runstone.sync.address import Address, token_for
from runstone.sync.batches import Problems, open_runs, send_parcels
from runstone.sync.client import Client, NotThere, Refused
from runstone.sync.fetching import fetch_content, fetch_contents, fetch_run, ids_of
from runstone.sync.histories import KINDS, Kind, contents_of, events_of, hashes_in, histories_in, take_event
from runstone.sync.shipping import RunShipper
from runstone.workspace import Workspace, ensure_workspace

Outcome = Literal["new", "grown", "unchanged", "different"]
_CONTENT_BYTES = 4 << 20
_EVENTS_BYTES = 256 << 10
_EVERYTHING = "*"


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of one thing.

    Attributes:
        kind: `runs`, `datasets` or `models`.
        name: Of it; of a run, its id.
        outcome: `new`: it was not there. `grown`: what it had more was taken. `unchanged`. `different`: it went on
            there otherwise; nothing was done.
        reason: Why it is different; else empty.
        bytes: Of its files, or events, that moved.
    """

    kind: str
    name: str
    outcome: Outcome
    reason: str = ""
    bytes: int = 0


@dataclass(slots=True)
class Moving:
    """What came of all, and the contents that moved with them."""

    items: list[Moved] = field(default_factory=list)
    contents: int = 0
    content_bytes: int = 0

    def count(self, outcome: Outcome) -> int:
        """Return how many had an outcome."""
        return sum(one.outcome == outcome for one in self.items)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be moved.

    Attributes:
        runs: A filter; `None`: no runs.
        datasets, models: Names; `*` in them: all.
    """

    runs: str | None = ""
    datasets: Sequence[str] = ()
    models: Sequence[str] = ()

    def names(self, kind: Kind) -> Sequence[str]:
        """Return the names of a kind."""
        return self.datasets if kind == "datasets" else self.models


def push(source: Workspace, target: str | Path | Workspace, choice: Choice) -> Moving:
    """Bring what is chosen from a folder to another, or to a server.

    Args:
        source: A workspace that is a folder.
        target: Where to; a folder is made where it is not there.
        choice: What.

    Raises:
        NotFound: something that is named is not there.
        Unreachable, Refused: the server does not answer, or says no to all of it.
        OSError: a disk is full.
    """
    url = _url_of(target)
    if url is None:
        return _between(source, ensure_workspace(target), choice)
    address = Address.parse(url)
    with contextlib.closing(Client(address, token_for(address))) as client:
        moving = Moving()
        for folder in _chosen(source, choice.runs):
            moving.items.append(_send_run(client, source.blobs, folder, moving))
        for kind in KINDS:
            there: dict[str, tuple[int, str]] = {}
            names = _named(histories_in(source.path, kind), choice.names(kind), kind)
            if names:
                there = client.get(f"/api/sync/histories/{kind}")["histories"]
            for name in names:
                count = there.get(name, (0, ""))[0]
                moving.items.append(_send_history(client, source, kind, name, count, moving))
        return moving


def pull(target: Workspace, source: str | Path | Workspace, choice: Choice) -> Moving:
    """Bring what is chosen from a folder or server into a folder; raises as `push` does."""
    url = _url_of(source)
    if url is None:
        return _between(source if isinstance(source, Workspace) else Workspace(Path(source)), target, choice)
    address = Address.parse(url)
    with (
        contextlib.closing(Client(address, token_for(address))) as client,
        tempfile.TemporaryDirectory(prefix="pull-", dir=_scratch(target)) as scratch,
    ):
        staged = ensure_workspace(Path(scratch) / "w")
        moving = Moving()
        if choice.runs is not None:
            ids, _total = ids_of(client, choice.runs, limit=20_000, archived="all")
            for run_id in ids:
                folder, _came = fetch_run(client, staged.path, run_id)
                fetch_contents(client, folder, staged.blobs, beside=target.blobs)
                _take_runs(staged, target, [folder], moving)
        for kind in KINDS:
            wanted = choice.names(kind)
            there = client.get(f"/api/sync/histories/{kind}")["histories"] if wanted else {}
            for name in _named(there, wanted, kind):
                moving.items.append(_fetch_history(client, target, kind, name, moving))
        return moving


# --- between folders -------------------------------------------------------------------------------------------------


def _between(source: Workspace, target: Workspace, choice: Choice) -> Moving:
    moving = Moving()
    _take_runs(source, target, list(_chosen(source, choice.runs)), moving)
    for kind in KINDS:
        for name in _named(histories_in(source.path, kind), choice.names(kind), kind):
            for content in sorted(contents_of(source.path, source.blobs, kind, name)):
                if not target.blobs.keep(content):
                    entry = target.blobs.put(source.blobs.local_path(content), content)
                    moving.contents, moving.content_bytes = moving.contents + 1, moving.content_bytes + entry.size_bytes
            moving.items.append(_take_history(target, kind, name, events_of(source.path, kind, name)))
    return moving


def _take_runs(source: Workspace, target: Workspace, folders: Sequence[Path], moving: Moving) -> None:
    """Bring runs from one folder to another, as one file that is checked before anything of it is taken."""
    if not folders:
        return
    with tempfile.TemporaryDirectory(prefix="push-", dir=_scratch(target)) as scratch:
        file = Path(scratch) / "runs.bundle"
        write_bundle(folders, file, source.blobs)
        sizes = {one.name: sum(path.stat().st_size for path in one.glob("*")) for one in folders}
        result = import_bundle(target, file)
    for run in result.runs:
        taken = sizes.get(run.original_id, 0) if run.outcome in ("new", "grown") else 0
        moving.items.append(Moved("runs", run.original_id, run.outcome, run.reason, taken))
    moving.contents += result.contents_new
    moving.content_bytes += result.content_bytes


def _take_history(target: Workspace, kind: Kind, name: str, lines: Sequence[str]) -> Moved:
    before = len(events_of(target.path, kind, name))
    taken = 0
    try:
        for line in lines:
            taken += len(line) if take_event(target.path, target.blobs, kind, name, line) else 0
    except (AlreadyExists, NotFound) as error:
        return Moved(kind, name, "different", str(error))
    return Moved(kind, name, "unchanged" if not taken else "grown" if before else "new", "", taken)


# --- to and from a server --------------------------------------------------------------------------------------------


def _send_run(client: Client, blobs: Blobs, folder: Path, moving: Moving) -> Moved:
    shipper = RunShipper(folder, blobs, client, takes_words=False)
    is_new = False
    try:
        try:
            client.get(f"/api/sync/runs/{folder.name}/files")
        except NotThere:
            is_new = True
        while True:
            if not shipper.is_open:
                _raise(open_runs(client, [shipper]))
            if not shipper.is_open:
                return Moved("runs", folder.name, "different", "its first writer has not said yet what it is")
            sending = send_parcels(client, [shipper], beat_s=1e18)
            _raise(sending.problems)
            if not sending.sent and not shipper.step_content():
                break
        client.post("/api/sync/finish", {"run_ids": [folder.name]})
    except Refused as error:
        if error.status in (401, 403):
            raise
        return Moved("runs", folder.name, "different", str(error))
    except FormatError as error:
        return Moved("runs", folder.name, "different", str(error))
    moving.contents += shipper.content_count
    moving.content_bytes += shipper.content_bytes
    outcome: Outcome = "new" if is_new else "grown" if shipper.sent_bytes else "unchanged"
    return Moved("runs", folder.name, outcome, "", shipper.sent_bytes)


def _raise(problems: Problems) -> None:
    for error in problems.values():
        raise error


def _send_history(client: Client, source: Workspace, kind: Kind, name: str, count: int, moving: Moving) -> Moved:
    lines = events_of(source.path, kind, name)
    hashes = sorted(contents_of(source.path, source.blobs, kind, name))
    for start in range(0, len(hashes), 1_000):
        some = {"project": _EVERYTHING, "hashes": hashes[start : start + 1_000]}
        for one in client.post("/api/sync/contents", some)["missing"]:
            moving.content_bytes += _send_content(client, source.blobs, one["hash"], one["offset"])
            moving.contents += 1
    # With the last that both have: it shows whether they are one.
    fresh = lines[max(0, min(count, len(lines)) - 1) :]
    try:
        for some_lines in _batches(fresh):
            client.post(f"/api/sync/histories/{kind}/events", {"events": some_lines}, name=name)
    except Refused as error:
        if error.status in (401, 403):
            raise
        return Moved(kind, name, "different", str(error))
    if count >= len(lines):
        return Moved(kind, name, "unchanged")
    taken = sum(len(line) for line in lines[count:])
    return Moved(kind, name, "grown" if count else "new", "", taken)


def _send_content(client: Client, blobs: Blobs, content: str, offset: int) -> int:
    size, sent = blobs.size(content), 0
    with blobs.open(content) as file:
        while True:
            file.seek(offset)
            data = file.read(_CONTENT_BYTES)
            answer = client.post(f"/api/sync/contents/{content}", data, project=_EVERYTHING, offset=offset, size=size)
            sent += len(data)
            if answer["is_complete"]:
                return sent
            offset = int(answer["size"])


def _fetch_history(client: Client, target: Workspace, kind: Kind, name: str, moving: Moving) -> Moved:
    before = len(events_of(target.path, kind, name))
    lines: list[str] = []
    start = max(0, before - 1)
    while some := client.get(f"/api/sync/histories/{kind}/events", name=name, after=start + len(lines))["events"]:
        lines += some

    def take(content: str) -> bool:
        if target.blobs.keep(content):
            return True
        came = fetch_content(client, f"/api/sync/contents/{content}", content, target.blobs)
        if came is not None:
            moving.contents, moving.content_bytes = moving.contents + 1, moving.content_bytes + came
        return came is not None

    for line in lines:
        told = json.loads(line)
        for key in ("manifest", "about", "profile"):
            if isinstance(told.get(key), str) and take(told[key]) and key == "manifest":
                for content in hashes_in(target.blobs.read(told[key])):
                    take(content)  # what its server has not stored is left out, as there
    return _take_history(target, kind, name, lines)


def _batches(lines: Sequence[str]) -> Iterator[list[str]]:
    some: list[str] = []
    for line in lines:
        if some and sum(map(len, some)) + len(line) > _EVENTS_BYTES:
            yield some
            some = []
        some.append(line)
    if some:
        yield some


# --- what is chosen --------------------------------------------------------------------------------------------------


def _chosen(source: Workspace, filter: str | None) -> Iterator[Path]:
    if filter is None:
        return
    for info in source.runs(filter, archived=None, order_by="started_at"):
        if read_journal(info.path).is_created:
            yield info.path


def _named(there: dict[str, tuple[int, str]], names: Sequence[str], kind: Kind) -> list[str]:
    if _EVERYTHING in names:
        return sorted(there)
    for name in names:
        if name not in there:
            raise NotFound(
                f"there is no {kind.removesuffix('s')} {name!r:.80}; there are {', '.join(sorted(there)[:8])}"
            )
    return list(dict.fromkeys(names))


def _url_of(place: str | Path | Workspace) -> str | None:
    if isinstance(place, Workspace):
        return place.url
    return place if isinstance(place, str) and place.lower().startswith(("http://", "https://")) else None


def _scratch(target: Workspace) -> Path:
    """Return the folder for what is not whole yet: on the disk that takes it in the end."""
    folder = target.path / "imports"
    folder.mkdir(exist_ok=True)
    return folder
