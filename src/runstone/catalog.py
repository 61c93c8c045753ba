"""What datasets and models have in common: a name, versions, aliases, tags, notes, and a ledger with every change.

Three abstract classes, each with two vocabularies on top (`runstone.datasets`, `runstone.models`): `State`, what events
come down to; `Entry`, the handle of one thing, which appends events; `Catalog`, all things of a workspace. What makes a
version, and what a selector means, is theirs.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from runstone.errors import AlreadyExists, InvalidName, InvalidValue, NotFound
from runstone.ledger import Damage, Ledger, LedgerEvent, ledgers
from runstone.names import check_name, folder_name

_MAX_TEXT = 100_000
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")


class Version(Protocol):
    """What every version has."""

    aliases: tuple[str, ...]
    tags: dict[str, str]
    notes: str | None

    @property
    def key(self) -> Any:
        """How events name it: a number, or a semantic version as text."""


V = TypeVar("V", bound=Version)
S = TypeVar("S", bound="State[Any]")
E = TypeVar("E", bound="Entry[Any]")


class State(ABC, Generic[V]):
    """One named thing as its events tell it. `apply` is the only way to change it; knows no files.

    Attributes:
        name: As it was given when the thing was made.
        versions: By their key, in the order in which they were added.
        aliases: Alias, and key of the version.
        tags, notes: Of the thing as a whole.
        created_at: Seconds since the Unix epoch, UTC.
    """

    what: ClassVar[str]
    """What people call such a thing."""
    missing: ClassVar[type[NotFound]]
    """What is raised where a version or alias is not there."""

    def __init__(self) -> None:
        self.name = ""
        self.versions: dict[Any, V] = {}
        self.aliases: dict[str, Any] = {}
        self.tags: dict[str, str] = {}
        self.notes: str | None = None
        self.created_at = 0.0

    @classmethod
    def from_events(cls, events: Iterable[LedgerEvent], *, as_of: float | None = None) -> Self:
        """Return what the events come down to, all or those up to a time."""
        state = cls()
        for event in events:
            if as_of is not None and event.at > as_of:
                break  # their times never go back
            state.apply(event)
        return state

    def apply(self, event: LedgerEvent) -> None:
        """Take in one event. Events and fields that a later version of Runstone adds are ignored."""
        said = event.fields
        version = self.versions.get(said.get("version"))
        match event.kind:
            case "created":
                self.name = said["name"]
                self.created_at = event.at
                self.notes = said.get("notes")
            case "aliased":
                self._point(said["alias"], said["version"])
            case "tagged":
                tags = version.tags if version else self.tags
                tags.update(said.get("set", {}))
                for name in said.get("remove", ()):
                    tags.pop(name, None)
            case "noted" if version:
                version.notes = said["notes"]
            case "noted":
                self.notes = said["notes"]
        self._apply(event, version)

    @abstractmethod
    def _apply(self, event: LedgerEvent, version: V | None) -> None:
        """Take in what an event says beyond that; `version` is the one that it names, if it is there."""

    @abstractmethod
    def find(self, selector: str) -> V:
        """Return the version that a selector means."""

    def key_of(self, selector: str | int | None) -> Any:
        """Return the key of the version that a selector means; `None` stands for the thing as a whole."""
        return None if selector is None else self.find(str(selector)).key

    def _point(self, alias: str, target: Any) -> None:
        before = self.aliases.pop(alias, None)
        if before is not None:
            old = self.versions[before]
            old.aliases = tuple(name for name in old.aliases if name != alias)
        if target is not None:
            self.aliases[alias] = target
            new = self.versions[target]
            new.aliases = tuple(sorted((*new.aliases, alias)))

    def _and_aliases(self) -> str:
        return f" and the aliases {', '.join(sorted(self.aliases)[:10])}" if self.aliases else ""


class Entry(ABC, Generic[S]):
    """The handle of one thing. Cheap to make; reads its history when it is asked something.

    Args:
        ledger: Its events.
        state: An empty state, which the handle fills.
        run_id: The run on whose behalf changes are made, if one does.
    """

    def __init__(self, ledger: Ledger, state: S, *, run_id: str | None = None) -> None:
        self.ledger = ledger
        self._state = state
        self._run_id = run_id
        self._seen = 0

    @property
    def name(self) -> str:
        """Its name, as it was given."""
        return self.state().name

    def state(self, as_of: float | None = None) -> S:
        """Return what stands, now or at a time (seconds since the Unix epoch).

        Raises:
            LedgerDamaged: its history was changed; `verify` names every such place.
        """
        events = self.ledger.events()
        if as_of is not None:
            return type(self._state).from_events(events, as_of=as_of)
        for event in events[self._seen :]:
            self._state.apply(event)
        self._seen = len(events)
        return self._state

    def history(self) -> Sequence[LedgerEvent]:
        """Return every event, the first one first."""
        return self.ledger.events()

    def verify(self) -> list[Damage]:
        """Return what was changed in its history; empty where it holds. Content is checked elsewhere."""
        return self.ledger.verify()

    def remove_alias(self, alias: str) -> None:
        """Let an alias point to nothing.

        Raises:
            NotFound: there is no such alias.
        """

        def said(state: S) -> dict[str, Any]:
            if alias not in state.aliases:
                raise state.missing(f"{state.what} {state.name!r} has no alias {alias!r:.80}")
            return {"alias": alias, "version": None, "before": state.aliases[alias]}

        self._append("aliased", said)

    def set_tags(self, tags: Mapping[str, str], *, version: str | int | None = None) -> None:
        """Set tags of the whole or of one version; values are kept as text."""
        checked = check_tags(tags)
        self._append("tagged", lambda state: {"version": state.key_of(version), "set": checked, "remove": []})

    def remove_tags(self, *names: str, version: str | int | None = None) -> None:
        """Remove tags of the whole or of one version; names that are not there are ignored."""
        self._append("tagged", lambda state: {"version": state.key_of(version), "set": {}, "remove": list(names)})

    def set_notes(self, notes: str | None, *, version: str | int | None = None) -> None:
        """Set the annotation (Markdown) of the whole or of one version, in place of what stood there."""
        checked = None if notes is None else check_text(notes, "notes")
        self._append("noted", lambda state: {"version": state.key_of(version), "notes": checked})

    def _append(self, kind: str, said: Callable[[S], Mapping[str, Any]]) -> LedgerEvent:
        """Append an event; `said` sees what stands, and is asked again whenever another writer was faster."""
        return self.ledger.append(kind, lambda _events: said(self.state()), run_id=self._run_id)


class Catalog(ABC, Generic[E]):
    """All things of one kind in a workspace.

    Args:
        root: The folder with one folder for each.
        run_id: The run on whose behalf changes are made, if one does.
    """

    what: ClassVar[str]
    missing: ClassVar[type[NotFound]]
    makers: ClassVar[str]
    """What makes the first one, for whoever finds none."""

    def __init__(self, root: Path, *, run_id: str | None = None) -> None:
        self.root = root
        self._run_id = run_id

    def __iter__(self) -> Iterator[E]:
        """Iterate over all, in the order of their folders."""
        for folder in ledgers(self.root):
            yield self._entry(Ledger(folder))

    def __contains__(self, name: str) -> bool:
        """Tell whether there is one of this name."""
        return self.ledger_of(name).exists

    def get(self, name: str) -> E:
        """Return the one of this name.

        Raises:
            NotFound: there is none; the message names some that are there.
        """
        ledger = self.ledger_of(check_name(name, self.what))
        if not ledger.exists:
            names = [entry.name for entry, _ in zip(self, range(5), strict=False)]
            there = f"there is {', '.join(names)}" if names else f"there is none yet; {self.makers} makes one"
            raise self.missing(f"no {self.what} has the name {name!r:.80}; {there}")
        return self._entry(ledger)

    def ledger_of(self, name: str) -> Ledger:
        """Return the events of the one of a name, whether or not there is one."""
        return Ledger(self.root / folder_name(name) / "events")

    @abstractmethod
    def _entry(self, ledger: Ledger) -> E:
        """Return the handle of one."""

    def _create(self, fields: Mapping[str, Any], *, is_there_ok: bool) -> tuple[E, LedgerEvent | None]:
        """Make one; return it and its first event, or no event where it was there."""
        name = fields["name"]
        ledger = self.ledger_of(name)

        def said(before: Sequence[LedgerEvent]) -> Mapping[str, Any]:
            if before:
                raise IsThere
            return fields

        try:
            event = ledger.append("created", said, run_id=self._run_id)
        except IsThere:
            if not is_there_ok:
                raise AlreadyExists(f"there is a {self.what} {name!r:.80} already") from None
            return self._entry(ledger), None
        return self._entry(ledger), event


class IsThere(Exception):
    """What was to be added is there already."""


def check_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return tags as they are kept: names that are legal, values as text."""
    return {check_name(name, "tag"): check_text(str(value), f"tag {name!r:.40}") for name, value in tags.items()}


def check_text(text: str, what: str) -> str:
    """Return a text that is not too long for a history.

    Raises:
        InvalidValue: it is.
    """
    if len(text) > _MAX_TEXT:
        raise InvalidValue(f"the {what} has {len(text):,} characters; at most {_MAX_TEXT:,} are kept")
    return text


def check_alias(alias: object, mistakable: Callable[[str], str | None]) -> str:
    """Return an alias that cannot be taken for anything else.

    Args:
        alias: The word.
        mistakable: Returns what a word could be taken for, such as `a version`.

    Raises:
        InvalidName: it could be, or is no plain word.
    """
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise InvalidName(
            f"alias {alias!r:.80} is not legal: use 1 to 255 letters, digits, '_', '-' and '.', starting with a "
            "letter or digit"
        )
    what = mistakable(alias)
    if what is not None:
        raise InvalidName(f"alias {alias!r} could be taken for {what}; choose another word")
    return alias
