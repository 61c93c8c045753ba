"""Names that MLflow takes: for each of ours the nearest one that is legal there, and no two alike."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable

_MOST = 250
_NOT_LEGAL = re.compile(r"[^\w.\- /]")


def mlflow_names(names: Iterable[str]) -> dict[str, str]:
    """Return for each name what it is called in MLflow: itself, where that is legal."""
    given = list(dict.fromkeys(names))
    result = {name: name for name in given if _is_legal(name)}
    taken = set(result.values())
    for name in given:
        if name in result:
            continue
        plain = _plain(name)
        chosen, number = plain, 2
        while chosen in taken:
            chosen, number = f"{plain}~{number}".replace("~", "_"), number + 1
        result[name] = chosen
        taken.add(chosen)
    return result


def _plain(name: str) -> str:
    text = _NOT_LEGAL.sub("_", name)
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    text = "/".join(parts) or "_"
    if len(text) > _MOST - 10:  # room for a number
        text = f"{text[: _MOST - 30]}_{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
    return text


def _is_legal(name: str) -> bool:
    if not name or len(name) > _MOST or _NOT_LEGAL.search(name) or name in (".", ".."):
        return False
    return posixpath.normpath(name) == name and not name.startswith(("/", ".."))
