"""What every medium comes down to, and what its makers share."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone.errors import InvalidValue, NotFound
from runstone.values import JSON


@dataclass(frozen=True, slots=True)
class Medium:
    """An image, a sound, a table, …, ready to be stored.

    Attributes:
        kind: `image`, `audio`, `video`, `table`, `text`, `figure`, `histogram` or `object3d`.
        form: How its bytes are to be read, such as `png`; `None` without bytes.
        content: Its bytes, or the file that has them; `None` where the metadata are all.
        metadata: What is known of it.
        notes: What could not be kept as it was given, in words.
    """

    kind: str
    form: str | None = None
    content: bytes | Path | None = None
    metadata: dict[str, JSON] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def is_path(given: object) -> bool:
    """Return whether a file is meant."""
    return isinstance(given, str | os.PathLike)


def known_file(given: Any, what: str, forms: Collection[str]) -> tuple[Path, str]:
    """Return the file that is meant and its form, by the ending of its name.

    Raises:
        NotFound: there is no such file.
        InvalidValue: its ending is not one of `forms`.
    """
    path = Path(given).expanduser().absolute()
    form = path.suffix[1:].lower()
    if form not in forms:
        raise InvalidValue(
            f"{path} does not end as {what} does that can be shown: {', '.join(sorted(forms))}; "
            "log_artifact takes any file"
        )
    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    return path, form


def comes_from(value: object, package: str) -> bool:
    """Return whether the class of a value, or one above it, is of a package; which thus need not be imported."""
    return any(kind.__module__.partition(".")[0] == package for kind in type(value).__mro__)


def plain_text(text: object) -> str:
    """Return text that UTF-8 can hold."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def without_none(**fields: JSON) -> dict[str, JSON]:
    """Return the fields that are known."""
    return {name: value for name, value in fields.items() if value is not None}
