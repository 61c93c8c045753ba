"""YAML files of other tools: plain values only, and nothing is executed."""

from __future__ import annotations

from typing import Any

from runstone.errors import InvalidConfig
from runstone.importers.values import UNREADABLE


def parse_yaml(data: bytes | None) -> Any:
    """Return what YAML says, `UNREADABLE` where it is none.

    Raises:
        InvalidConfig: PyYAML is not installed.
    """
    try:
        import yaml  # an extra, only where a store has such files
    except ImportError:
        raise InvalidConfig("this store has YAML files, which take PyYAML: pip install 'runstone[import]'") from None
    if data is None:
        return UNREADABLE
    try:
        return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (a safe loader)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError, AttributeError):
        return UNREADABLE
