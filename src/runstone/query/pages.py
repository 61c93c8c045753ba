"""Runs as a page shows them: windows of columns, groups, what changed since. Makes no object for each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from runstone.errors import InvalidFilter, InvalidValue
from runstone.index.conditions import Attribute, Condition, Field, Order, fields_in
from runstone.query.completion import Completion, complete_text
from runstone.query.fields import FieldInfo, listed_fields
from runstone.query.parser import parse_field, parse_filter, parse_order
from runstone.query.table import RunTable

if TYPE_CHECKING:
    from runstone.index.asking import Aggregate
    from runstone.index.records import RunRecord
    from runstone.index.store import Question

ALWAYS = ("id", "name", "project", "status", "started_at", "ended_at", "duration", "group", "pinned", "archived")
"""Columns that every page has."""
_MOST_COLUMNS = 500
_MOST_GROUPED = 5
_ALL = slice(0, None)


@dataclass(frozen=True, slots=True)
class RunGroup:
    """Runs that share the values of the fields that were grouped by.

    Attributes:
        key: The values, `None` where the runs have none.
        runs: How many.
        columns: Figures of each column that holds numbers, by the text of its field.
    """

    key: tuple[Any, ...]
    runs: int
    columns: dict[str, Aggregate]


@dataclass(frozen=True, slots=True)
class RunPage:
    """A window of the runs that match.

    Attributes:
        total: How many match in all.
        ids: Of the runs in the window, in order; empty for groups.
        columns: Values by the text of the field, in the order of the ids; `None` where a run has none. Times are
            seconds since the epoch; floats may be NaN; lists in params are JSON text; several values are a list.
        groups: Where it was grouped: the groups in the window.
        cursor: Of the state that was answered from, for `changes`.
        troubles: Run folders that could not be read, in words.
    """

    total: int
    ids: tuple[str, ...] = ()
    columns: dict[str, list[Any]] = field(default_factory=dict)
    groups: tuple[RunGroup, ...] = ()
    cursor: str = ""
    troubles: tuple[str, ...] = ()


class Changes(NamedTuple):
    """What changed since a cursor.

    Attributes:
        cursor: Of the state now.
        changed: Ids of the runs that are new, or differ in anything that is shown.
        removed: Ids of the runs whose folders are gone.
        is_complete: `False` where the cursor is of no use, so that all must be loaded again.
    """

    cursor: str
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    is_complete: bool


class OpenIndex:
    """The index of a workspace, held open: what a question has read is at hand for the next. Threads may share it.

    A handle: close it, or use it in a `with` block.

    Args:
        workspace_path: Folder of the workspace.
        refresh_s: Take in what changed at most so often, for many who ask at once; 0: at each question.
        database: Address of a PostgreSQL database, where the index lies there; default: `RUNSTONE_INDEX`, else a file.
        stays_open: Keep the file open between questions; else there is nothing to close.
    """

    def __init__(
        self, workspace_path: Path, *, refresh_s: float = 0.0, database: str | None = None, stays_open: bool = True
    ) -> None:
        from runstone.index.opening import open_index  # loads SQLite

        self._workspace_path = workspace_path
        self._index = open_index(workspace_path, database, refresh_s=refresh_s, stays_open=stays_open)

    def __enter__(self) -> OpenIndex:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._index.close()

    def find_runs(
        self,
        filter: str = "",
        *,
        order_by: str | None = None,
        limit: int | None = None,
        deleted: bool = False,
        archived: bool | None = False,
    ) -> RunTable:
        """Return the runs that a filter describes, as `Workspace.runs` does."""
        condition, orders = parse_filter(filter), parse_order(order_by or "")
        if limit is not None:
            _check_count(limit, "limit")
        archived = _archived(condition, archived, deleted=deleted)
        page = self._index.find(condition, orders=orders, limit=limit, deleted=deleted, archived=archived)
        return RunTable(self._workspace_path, page.records, total=page.total, troubles=page.troubles)

    def records(
        self,
        condition: Condition,
        *,
        orders: Sequence[Order] = (),
        window: slice = _ALL,
        deleted: bool | None = False,
        archived: bool | None = None,
    ) -> tuple[tuple[RunRecord, ...], int]:
        """Return what tables show of the runs for which a condition holds, and how many they are.

        Args:
            condition: What must hold.
            orders: What to sort by; then, newest first.
            window: Which of them are wanted.
            deleted: Whether they must be deleted, or must not; `None`: no matter.
            archived: The same of archived ones.
        """

        def answer(question: Question) -> tuple[tuple[RunRecord, ...], int]:
            keys, total = question.chosen(condition, orders, deleted=deleted, archived=archived, window=window)
            return question.records(keys), total

        return self._index.ask(answer)

    def page_of_runs(
        self,
        filter: str = "",
        *,
        order_by: str | None = None,
        offset: int = 0,
        limit: int = 200,
        columns: Sequence[str] = (),
        deleted: bool = False,
        archived: bool | None = False,
        group_by: Sequence[str] = (),
    ) -> RunPage:
        """Return a window of the runs that a filter describes, column by column.

        Args:
            filter: As `Workspace.runs` takes it.
            order_by: The same; of groups: `runs`, what was grouped by, or a column, which sorts by its mean.
            offset: Where the window begins, from 0.
            limit: At most this many.
            columns: Fields, beside those of `ALWAYS`.
            deleted: The deleted runs, instead of the others.
            archived: The archived ones instead of the others; `None`: both. A filter that names `archived` decides.
            group_by: Fields; then the window is one of groups, with figures of the columns.

        Raises:
            InvalidFilter: a field, the filter or the order does not parse.
            InvalidValue: a number is not one from 0, or there are too many fields.
        """
        condition = parse_filter(filter)
        _check_count(offset, "offset")
        _check_count(limit, "limit")
        if len(columns) > _MOST_COLUMNS or len(group_by) > _MOST_GROUPED:
            raise InvalidValue(
                f"at most {_MOST_COLUMNS} columns and {_MOST_GROUPED} fields to group by can be asked for"
            )
        archived = _archived(condition, archived, deleted=deleted)
        wanted = {text: parse_field(text) for text in columns}
        window = slice(offset, offset + limit)
        if group_by:
            grouped = {text: parse_field(text) for text in group_by}
            return self._groups(condition, order_by or "", window, wanted, grouped, deleted=deleted, archived=archived)
        orders = parse_order(order_by or "")
        wanted = {**{name: Attribute(name) for name in ALWAYS}, **wanted}

        def answer(question: Question) -> RunPage:
            from runstone.index.asking import ids, values

            keys, total = question.chosen(condition, orders, deleted=deleted, archived=archived, window=window)
            shown = {text: values(question, keys, one) for text, one in wanted.items()}
            return RunPage(total, ids(question, keys), shown, cursor=question.cursor, troubles=question.troubles)

        return self._index.ask(answer)

    def _groups(
        self,
        condition: Condition,
        order_by: str,
        window: slice,
        wanted: dict[str, Field],
        grouped: dict[str, Field],
        *,
        deleted: bool,
        archived: bool | None,
    ) -> RunPage:
        orders = _group_orders(order_by, list(grouped.values()), list(wanted.values()))

        def answer(question: Question) -> RunPage:
            from runstone.index.asking import groups, order_groups

            keys, _total = question.chosen(condition, deleted=deleted, archived=archived)
            found = order_groups(groups(question, keys, list(grouped.values()), list(wanted.values())), orders)
            shown = []
            for group in found[window]:
                figures = zip(wanted, group.columns, strict=True)
                known = {text: aggregate for text, aggregate in figures if aggregate is not None}
                shown.append(RunGroup(group.key, group.runs, known))
            return RunPage(len(found), groups=tuple(shown), cursor=question.cursor, troubles=question.troubles)

        return self._index.ask(answer)

    def changes(self, cursor: str = "") -> Changes:
        """Return which runs changed since a cursor; a living run only where something was recorded.

        Args:
            cursor: Of a page, or of the last call; empty for a beginning.
        """

        def answer(question: Question) -> Changes:
            from runstone.index.asking import changed_since

            found = changed_since(question, cursor) if cursor else None
            return Changes(question.cursor, *(found or ((), ())), is_complete=found is not None)

        return self._index.ask(answer)

    def fields(self, filter: str = "") -> list[FieldInfo]:
        """Return the fields that runs have: attributes, then names by kind, those that most runs have first.

        Args:
            filter: Only of these runs. Where more than 2,000 match, or none is given, all runs are counted.

        Raises:
            InvalidFilter: it does not parse.
        """
        condition = parse_filter(filter) if filter.strip() else None
        return self._index.ask(lambda question: listed_fields(question, condition))

    def complete(self, text: str, at: int) -> list[Completion]:
        """Return what may be written at a place of a filter, the best first.

        Args:
            text: The filter, finished or not.
            at: The place, from 0.
        """
        return self._index.ask(lambda question: complete_text(question, text, at))


def _archived(condition: Condition, archived: bool | None, *, deleted: bool) -> bool | None:
    """Return which runs are meant: a filter that names archived ones decides itself, and so do deleted ones."""
    if deleted or Attribute("archived") in fields_in(condition):
        return None if archived is False else archived
    return archived


def _check_count(number: object, name: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise InvalidValue(f"{name} must be a whole number from 0, got {number!r:.80}")


def _group_orders(text: str, grouped: list[Field], wanted: list[Field]) -> list[tuple[str, int, bool]]:
    """Return what groups are sorted by, as `order_groups` takes it."""
    found: list[tuple[str, int, bool]] = []
    for part in [part.strip() for part in text.split(",")] if text.strip() else []:
        word, _, direction = part.partition(" ")
        if word == "runs" and direction.strip().lower() in ("", "asc", "desc"):
            found.append(("runs", 0, direction.strip().lower() == "desc"))
            continue
        (order,) = parse_order(part) or (Order(Attribute("id")),)
        if order.field in grouped:
            found.append(("key", grouped.index(order.field), order.descending))
        elif order.field in wanted:
            found.append(("column", wanted.index(order.field), order.descending))
        else:
            raise InvalidFilter(
                f"groups are sorted by runs, what they are grouped by, or a column that is shown, not {part!r:.80}",
                text=text,
                position=text.find(part),
            )
    return found or [("runs", 0, True)]
