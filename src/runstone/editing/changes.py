"""What is to be changed of runs, what was changed, and how it is taken back. Values only: reads and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from runstone.errors import InvalidValue
from runstone.names import check_name, shown
from runstone.runlog.reader import JournalState


class Kept(Enum):
    """The type of `KEEP`."""

    KEEP = "keep"

    def __repr__(self) -> str:
        """Return the name under which it is imported."""
        return "KEEP"


KEEP: Final = Kept.KEEP
"""Leaves a field as it is: `None` is a value that notes and groups can have."""
KeptOr: TypeAlias = Literal[Kept.KEEP]
_FLAGS = {"pinned": "is_pinned", "archived": "is_archived", "deleted": "is_deleted"}


@dataclass(frozen=True, slots=True)
class Edits:
    """What is to be changed of each run; what is not given stays.

    Attributes:
        name: Another name.
        notes, group: Another text, or `None` for none.
        set_tags: Tags to set.
        remove_tags: Names of tags to remove; those that a run does not have are passed over.
        pinned, archived, deleted: Whether it is marked, put away, hidden.

    Raises:
        InvalidName, InvalidValue: a value cannot be kept.
    """

    name: str | KeptOr = KEEP
    notes: str | KeptOr | None = KEEP
    group: str | KeptOr | None = KEEP
    set_tags: Mapping[str, str] = field(default_factory=dict)
    remove_tags: tuple[str, ...] = ()
    pinned: bool | KeptOr = KEEP
    archived: bool | KeptOr = KEEP
    deleted: bool | KeptOr = KEEP

    def __post_init__(self) -> None:
        """Check the values."""
        if self.name is not KEEP:
            check_name(self.name, "run")
        if self.group is not KEEP and self.group is not None:
            check_name(self.group, "group")
        if self.notes is not KEEP and self.notes is not None and not isinstance(self.notes, str):
            raise InvalidValue(f"notes must be text or None, got {shown(self.notes)}")
        if not isinstance(self.set_tags, Mapping):
            raise InvalidValue(f"tags must be given by name, got {shown(self.set_tags)}")
        if isinstance(self.remove_tags, str):
            raise InvalidValue(f"remove_tags is the text {self.remove_tags!r:.80}; it must be a tuple of names")
        object.__setattr__(self, "set_tags", {check_name(key, "tag"): str(text) for key, text in self.set_tags.items()})
        object.__setattr__(self, "remove_tags", tuple(self.remove_tags))
        both = sorted(set(self.set_tags).intersection(self.remove_tags))
        if both:
            raise InvalidValue(f"the tag {both[0]!r} is both set and removed; say one of the two")
        for word in _FLAGS:
            value = getattr(self, word)
            if value is not KEEP and not isinstance(value, bool):
                raise InvalidValue(f"{word} must be True or False, got {shown(value)}")

    def of(self, run: JournalState) -> Iterator[tuple[Change, tuple[str, dict[str, Any]]]]:
        """Yield each change that a run needs, with the event (name, fields) that makes it; none where it fits."""
        for name in ("name", "notes", "group"):
            after, before = getattr(self, name), getattr(run, name)
            if after is not KEEP and after != before:
                yield self._change(run, name, before, after), (name, {"value": after})
        added = {key: text for key, text in self.set_tags.items() if run.tags.get(key) != text}
        removed = [key for key in self.remove_tags if key in run.tags]
        if added or removed:
            before = {key: run.tags.get(key) for key in (*added, *removed)}
            told = {**added, **dict.fromkeys(removed)}
            yield self._change(run, "tags", before, told), ("tags", {"set": added, "remove": removed})
        for name, attribute in _FLAGS.items():
            after, before = getattr(self, name), getattr(run, attribute)
            if after is KEEP or after == before:
                continue
            if name == "deleted":
                yield self._change(run, name, before, after), ("deleted" if after else "restored", {})
            else:
                yield self._change(run, name, before, after), (name, {"value": after})

    @staticmethod
    def _change(run: JournalState, name: str, before: Any, after: Any) -> Change:
        return Change(run.run_id, run.name or run.run_id, run.project, name, before, after)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be changed."""
        return self == Edits()


@dataclass(frozen=True, slots=True)
class Change:
    """One field of one run that changes.

    Attributes:
        run_id, name, project: Of the run; its name before.
        field: `name`, `notes`, `group`, `tags`, `pinned`, `archived` or `deleted`.
        before, after: Its values; of tags, by name, only those that change, `None` where one is not there.
    """

    run_id: str
    name: str
    project: str
    field: str
    before: Any
    after: Any

    def undo(self) -> dict[str, Any]:
        """Return the arguments of `Workspace.edit` that take it back."""
        if self.field != "tags":
            return {self.field: self.before}
        found: dict[str, Any] = {}
        standing = {key: text for key, text in self.before.items() if text is not None}
        if standing:
            found["set_tags"] = standing
        gone = tuple(key for key, text in self.before.items() if text is None)
        if gone:
            found["remove_tags"] = gone
        return found


@dataclass(frozen=True, slots=True)
class Edited:
    """What was changed, or would be.

    Attributes:
        run_ids: Every run that was chosen, those too that were as they should be.
        changes: Run by run.
        is_dry: Whether nothing was written.
    """

    run_ids: tuple[str, ...]
    changes: tuple[Change, ...]
    is_dry: bool = False

    @property
    def changed_ids(self) -> tuple[str, ...]:
        """The runs in which something changes."""
        return tuple(dict.fromkeys(change.run_id for change in self.changes))

    def undo(self) -> list[dict[str, Any]]:
        """Return what takes it back: for each run its `run_id` and the arguments of `Workspace.edit`."""
        found: dict[str, dict[str, Any]] = {}
        for change in self.changes:
            found.setdefault(change.run_id, {"run_id": change.run_id}).update(change.undo())
        return list(found.values())
