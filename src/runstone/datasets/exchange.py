"""Sending datasets to a folder or URL, and fetching them: content first, events last, each once, checked on arrival.

There it looks as in a workspace: `blobs/<aa>/<hash>` and `datasets/<folder>/events/<number>.json`. So what was broken
off goes on, and whatever an event names is there.
"""

from __future__ import annotations

import posixpath
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone import settings
from runstone.blobs.exchange import Moved as Exchanged
from runstone.blobs.remote import Remote
from runstone.datasets.copying import copy_versions
from runstone.datasets.history import DatasetNotFound, DatasetState, Recorded
from runstone.datasets.manifest import Manifest
from runstone.datasets.refs import DatasetRef
from runstone.datasets.registry import Dataset, Datasets
from runstone.errors import AlreadyExists, InvalidConfig, InvalidValue, NotFound
from runstone.ledger import Ledger, LedgerEvent
from runstone.names import folder_name

_EVENT = re.compile(r"(.+)/events/([0-9]{8,})\.json")


class HistoriesDiffer(AlreadyExists):
    """A dataset has another history elsewhere: two workspaces added to it, each for itself."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a push or pull did to one dataset.

    Attributes:
        name: The dataset.
        versions: How many versions were sent or fetched with their content.
        count, size_bytes: Files and bytes of content that moved.
        there_already: Files that were there.
        events: Events that moved.
        by_reference: Versions of which only the manifests moved, since their content is not stored.
    """

    name: str
    versions: int
    count: int
    size_bytes: int
    there_already: int
    events: int
    by_reference: int


class Elsewhere:
    """A folder or URL that holds datasets, as a workspace does.

    Args:
        place: Folder or URL.
        file_system: The fsspec file system, where a URL does not say enough; then `place` is a path on it.
    """

    def __init__(self, place: str, *, file_system: Any = None) -> None:
        url = place if "://" in place else f"file://{Path(place).expanduser().absolute()}"
        if file_system is None:
            try:
                import fsspec  # type: ignore[import-untyped]  # an extra, only for stores elsewhere
            except ImportError:
                raise InvalidConfig(
                    "sending and fetching needs fsspec; install it: pip install 'runstone[remote]'"
                ) from None
            try:
                file_system, url = fsspec.core.url_to_fs(url, use_listings_cache=False)
            except (ImportError, ValueError) as error:
                raise InvalidConfig(f"{place!r:.120} cannot be used: {error}") from None
        self.file_system = file_system
        self.folder = str(url).rstrip("/")
        self.files = Remote(self.folder, file_system=file_system)
        self.blobs: Remote | None = Remote(f"{self.folder}/blobs", file_system=file_system)
        """Where content lies there; `None` for the remote store of the workspace itself."""

    def events(self) -> dict[str, int]:
        """Return how many events each dataset has there, by its folder."""
        root = f"{self.folder}/datasets"
        try:
            paths = self.file_system.find(root)
        except FileNotFoundError:
            return {}
        found: dict[str, int] = {}
        for path in paths:
            match = _EVENT.fullmatch(posixpath.relpath(str(path), root))
            if match is not None:
                found[match[1]] = max(found.get(match[1], 0), int(match[2]))
        return found

    def read(self, folder: str, seq: int) -> bytes:
        """Return an event as it lies there."""
        try:
            return b"".join(self.files.receive(_event_name(folder, seq)))
        except FileNotFoundError:
            raise NotFound(f"event {seq} of datasets/{folder} is not in {self.folder}") from None


def elsewhere_of(workspace: Path, place: str | None) -> Elsewhere:
    """Return the store at a place, else the one that the settings of a workspace name.

    Raises:
        NotFound: none is named.
    """
    if place is not None:
        return Elsewhere(place)
    url = settings.blob_store(workspace)
    if url is None:
        raise NotFound("say where: name a folder or URL, or a store in RUNSTONE_BLOBS or in the workspace's settings")
    found = Elsewhere(url)
    found.blobs = None
    return found


def push(datasets: Datasets, names: Sequence[str], there: Elsewhere, *, check: bool = False) -> Iterator[Moved]:
    """Send datasets, all or those that are named; what is there already is not sent again.

    Args:
        datasets: Of which workspace.
        names: Datasets, or versions as `name@3`, whose content alone is sent then; empty for all.
        there: Where to.
        check: Whether content is read back and hashed.

    Raises:
        DatasetNotFound: there is none of this name.
        HistoriesDiffer: others went on with it there.
        OSError: the store does not answer.
    """
    for dataset, selector in _chosen(datasets, names):
        folder = folder_name(dataset.name)
        own = dataset.ledger.events()
        count = there.events().get(folder, 0)
        if count:
            _check_begin(dataset.ledger, [there.read(folder, min(count, len(own)))], min(count, len(own)))
        if count > len(own):
            raise HistoriesDiffer(
                f"{there.folder} is ahead of this workspace for {dataset.name!r}: pull first ({count} events there, "
                f"{len(own)} here)"
            )
        state = dataset.state()
        versions = [state.find(selector)] if selector else list(state.versions.values())
        hashes: set[str] = set()
        for version in state.versions.values():
            hashes |= {one for one in (version.manifest, version.about) if one is not None}
        for version in versions:
            if version.is_stored:
                hashes |= dataset.find(version.version).manifest.hashes
        moved = datasets.blobs.push(sorted(hashes), to=there.blobs, check=check)
        for event in own[count:]:
            _send_event(there, folder, dataset.ledger.path(event.seq), event)
        stored = sum(version.is_stored for version in versions)
        yield Moved(
            dataset.name,
            stored,
            moved.count,
            moved.size_bytes,
            moved.there_already,
            len(own) - count,
            len(versions) - stored,
        )


def pull(datasets: Datasets, names: Sequence[str], there: Elsewhere, *, into: str | None = None) -> Iterator[Moved]:
    """Fetch datasets, all or those that are named; what is here already is not fetched again.

    Args:
        datasets: Of which workspace.
        names: Datasets, or versions as `name@3`, whose content alone is fetched then; empty for all.
        there: Where from.
        into: Another name, for one dataset: its versions are added to the dataset of that name, with numbers of their
            own there. It may be the name that it has; then what went on in two places comes together here.

    Raises:
        DatasetNotFound: there is none of this name.
        InvalidValue: another name is given for more than one dataset.
        HistoriesDiffer: this workspace went on with it for itself.
        FormatError: what came is damaged; nothing of it was kept.
        OSError: the store does not answer, or the disk is full.
    """
    counts = there.events()
    chosen = [DatasetRef.parse(name) for name in names]
    if into is not None and len(chosen) != 1:
        raise InvalidValue("another name can be given to one dataset at a time; name that dataset")
    folders: list[tuple[str, str | None]] = [
        (folder_name(ref.name), ref.selector if "@" in text else None) for ref, text in zip(chosen, names, strict=True)
    ]
    for ref, (folder, _selector) in zip(chosen, folders, strict=True):
        if folder not in counts:
            raise DatasetNotFound(f"no dataset has the name {ref.name!r:.80} in {there.folder}")
    for folder, selector in folders or [(folder, None) for folder in sorted(counts)]:
        if into is None:
            yield _pull(datasets, folder, selector, there, counts[folder])
        else:
            yield _pull_into(datasets, folder, selector, there, counts[folder], into)


def _pull(datasets: Datasets, folder: str, selector: str | None, there: Elsewhere, count: int) -> Moved:
    own = Ledger(datasets.root / folder / "events")
    have = len(own.events())
    data = [there.read(folder, seq) for seq in range(min(have, count) or 1, count + 1)]
    if have:
        _check_begin(own, data[:1], min(have, count))
        data = data[1:]
    before = [own.path(seq).read_bytes() for seq in range(1, have + 1)]
    state = _checked([*before, *data])
    versions, moved = _fetch_content(datasets, state, selector, there)
    try:
        for one in data:
            own.take(one)
    except AlreadyExists:
        raise HistoriesDiffer(f"dataset {state.name!r} went on here meanwhile; pull again") from None
    return _told(state.name, versions, moved, len(data))


def _pull_into(datasets: Datasets, folder: str, selector: str | None, there: Elsewhere, count: int, into: str) -> Moved:
    """Fetch a dataset into one of another name, or of its own, whose history goes on with it."""
    state = _checked([there.read(folder, seq) for seq in range(1, count + 1)])
    target = datasets.create(into, is_there_ok=True)
    versions, moved = _fetch_content(datasets, state, selector, there)
    before = len(target.history())
    copy_versions(state, versions, target)
    return _told(target.name, versions, moved, len(target.history()) - before)


def _checked(data: Sequence[bytes]) -> DatasetState:
    """Return what events come down to, held against the same rules as those that are here.

    Raises:
        LedgerDamaged: one is not what was written.
    """
    with tempfile.TemporaryDirectory(prefix="runstone-pull-") as scratch:
        for seq, one in enumerate(data, 1):
            Path(scratch, f"{seq:08d}.json").write_bytes(one)
        return DatasetState.from_events(Ledger(Path(scratch)).events())


def _fetch_content(
    datasets: Datasets, state: DatasetState, selector: str | None, there: Elsewhere
) -> tuple[list[Recorded], list[Exchanged]]:
    """Fetch the manifests of all versions, and the content of those that are wanted."""
    manifests = [one for version in state.versions.values() for one in (version.manifest, version.about) if one]
    moved = [datasets.blobs.pull(manifests, source=there.blobs)]
    versions = [state.find(selector)] if selector else list(state.versions.values())
    hashes: set[str] = set()
    for version in versions:
        if version.is_stored:
            hashes |= Manifest.unpack(datasets.blobs.read(version.manifest)).hashes
    moved.append(datasets.blobs.pull(sorted(hashes), source=there.blobs))
    datasets.blobs.sync()
    return versions, moved


def _told(name: str, versions: Sequence[Recorded], moved: Sequence[Exchanged], events: int) -> Moved:
    stored = sum(version.is_stored for version in versions)
    return Moved(
        name,
        stored,
        sum(one.count for one in moved),
        sum(one.size_bytes for one in moved),
        sum(one.there_already for one in moved),
        events,
        len(versions) - stored,
    )


def _chosen(datasets: Datasets, names: Sequence[str]) -> Iterator[tuple[Dataset, str | None]]:
    if not names:
        yield from ((dataset, None) for dataset in datasets)
    for name in names:
        ref = DatasetRef.parse(name)
        yield datasets.get(ref.name), ref.selector if "@" in name else None


def _check_begin(own: Ledger, data: Sequence[bytes], seq: int) -> None:
    """Check that both histories are one up to an event. Its hash stands for all before it.

    Raises:
        HistoriesDiffer: they are not.
    """
    if data and data[0] != own.path(seq).read_bytes():
        name = DatasetState.from_events(own.events()).name
        raise HistoriesDiffer(
            f"dataset {name!r} has two histories: here and there versions were added that the other does not know. "
            f"Neither is lost: `runstone data pull {name} --as OTHER-NAME` fetches theirs beside yours (--as {name} "
            "adds theirs to yours, with new numbers); "
            f"`runstone data copy {name} OTHER-NAME` gives yours another name, under which it can be pushed"
        )


def _send_event(there: Elsewhere, folder: str, path: Path, event: LedgerEvent) -> None:
    name = _event_name(folder, event.seq)
    there.files.send(path, name, content_hash=None)
    if there.read(folder, event.seq) != path.read_bytes():
        raise HistoriesDiffer(f"another workspace wrote event {event.seq} of datasets/{folder} at the same time")


def _event_name(folder: str, seq: int) -> str:
    return f"datasets/{folder}/events/{seq:08d}.json"
