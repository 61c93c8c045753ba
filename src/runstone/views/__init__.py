"""Saved views: a filter, an order, columns and charts under a name. One JSON file each, in the workspace's `views/`.

A view is what somebody wants to see again, not something that was recorded: saving one replaces the one before.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone.errors import FormatError, InvalidValue, NotFound
from runstone.names import check_name, folder_name, shown
from runstone.query import parse_filter, parse_order
from runstone.query.parser import parse_fields
from runstone.query.table import CONSUMPTION
from runstone.values import JSON

FORMAT = 1
_MOST_BYTES = 4 << 20
_ENDING = ".json"


@dataclass(frozen=True, slots=True)
class View:
    """What to show of which runs.

    Attributes:
        name: Any name.
        filter: Which runs; empty for all.
        order_by: In which order; empty for newest first.
        columns: Fields of the filter language; none: those that tell most.
        group_by: Fields of the filter language whose equal values make a group.
        charts: Any JSON, kept as it is: the page's own.

    Raises:
        InvalidName, InvalidFilter, InvalidValue: it cannot be kept.
    """

    name: str
    filter: str = ""
    order_by: str = ""
    columns: tuple[str, ...] = ()
    group_by: tuple[str, ...] = ()
    charts: JSON = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check it, so that what is saved can be shown."""
        check_name(self.name, "view")
        for what in ("filter", "order_by"):
            if not isinstance(getattr(self, what), str):
                raise InvalidValue(f"{what} of a view must be text, got {shown(getattr(self, what))}")
        parse_filter(self.filter)
        parse_order(self.order_by)
        for what in ("columns", "group_by"):
            names = getattr(self, what)
            if isinstance(names, str) or not all(isinstance(name, str) for name in names):
                raise InvalidValue(f"{what} of a view must be a list of fields, got {shown(names)}")
            object.__setattr__(self, what, tuple(names))
        for name in (*self.columns, *self.group_by):
            if name not in CONSUMPTION:
                parse_fields(name)

    def narrowed(
        self, filter: str = "", *, order_by: str | None = None, columns: str | None = None
    ) -> tuple[str, str | None, str | None]:
        """Return filter, order and columns of a list that shows this view, with what was asked for beside it.

        Args:
            filter: Narrows the view's further.
            order_by, columns: Stand in place of the view's.
        """
        both = [one for one in (self.filter, filter) if one.strip()]
        joined = " and ".join(f"({one})" for one in both) if len(both) > 1 else "".join(both)
        return joined, order_by or self.order_by or None, columns or ", ".join(self.columns) or None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "name": self.name,
            "filter": self.filter,
            "order_by": self.order_by,
            "columns": list(self.columns),
            "group_by": list(self.group_by),
            "charts": self.charts,
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> View:
        """Return what `to_dict` returned; keys that are not known are left out.

        Raises:
            InvalidName, InvalidFilter, InvalidValue: it cannot be kept.
        """
        known = {key: told[key] for key in cls.__slots__ if told.get(key) is not None}
        if "name" not in known:
            raise InvalidValue("a view needs a name")
        return cls(**known)


def list_views(workspace: Path) -> list[View]:
    """Return the saved views of a workspace by name; a file that is none, or of a newer version, is left out."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in (workspace / "views").iterdir():
            if path.name.endswith(_ENDING):
                with contextlib.suppress(FormatError, FileNotFoundError):
                    found.append(_read(path))
    return sorted(found, key=lambda view: view.name)


def load(workspace: Path, name: str) -> View:
    """Return a saved view.

    Raises:
        NotFound: there is none of this name; the message lists those that there are.
        FormatError: its file is damaged or of a newer version.
    """
    try:
        return _read(_path(workspace, name))
    except FileNotFoundError:
        names = ", ".join(repr(view.name) for view in list_views(workspace)[:10]) or "none yet"
        raise NotFound(f"there is no view {name!r:.80}; saved are: {names}") from None


def save(workspace: Path, view: View) -> bool:
    """Save a view; return whether it replaced one of its name.

    Raises:
        InvalidValue: its charts are no JSON, or take more than 4 MiB.
        OSError: it cannot be written; what was there stays.
    """
    try:
        text = json.dumps({"format": FORMAT, **view.to_dict()}, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
        data = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(f"the charts of a view must be JSON: {error}") from None
    if len(data) > _MOST_BYTES:
        raise InvalidValue(f"the view {view.name!r:.80} takes {len(data):,} bytes; at most {_MOST_BYTES:,} are kept")
    path = _path(workspace, view.name)
    path.parent.mkdir(exist_ok=True)
    is_there = path.exists()
    partial = path.with_name(f".{os.urandom(16).hex()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return is_there


def delete(workspace: Path, name: str) -> View:
    """Remove a saved view and return it, so that it can be saved again.

    Raises:
        NotFound, FormatError: as `load` does.
    """
    view = load(workspace, name)
    _path(workspace, name).unlink(missing_ok=True)
    return view


def _path(workspace: Path, name: str) -> Path:
    return workspace / "views" / f"{folder_name(check_name(name, 'view'))}{_ENDING}"


def _read(path: Path) -> View:
    if path.stat().st_size > _MOST_BYTES:
        raise FormatError(f"{path} has {path.stat().st_size:,} bytes: this is no view")
    try:
        told = json.loads(path.read_bytes())
        version = told["format"]
        if version > FORMAT:
            raise FormatError(f"{path} has format {version}, this version knows {FORMAT}; upgrade runstone")
        return View.from_dict(told)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"{path} is no saved view: {error}") from None
