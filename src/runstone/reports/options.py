"""What stands in a live block: small YAML, read strictly. A mistake is told with the words that may stand there."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Any

from runstone.errors import InvalidConfig
from runstone.models.yamlfile import parse_yaml

_MOST_BYTES = 20_000
_MOST_LISTED = 200


class Options:
    """The options of one block.

    Args:
        kind: Of the block, for messages.
        text: YAML: a mapping, or nothing.
        known: Keys that may stand there.

    Raises:
        InvalidConfig: it is no such YAML, or has a key that is not known.
    """

    def __init__(self, kind: str, text: str, known: frozenset[str]) -> None:
        self._kind = kind
        if len(text) > _MOST_BYTES:
            raise InvalidConfig(f"the block is longer than {_MOST_BYTES:,} characters")
        if importlib.util.find_spec("yaml") is None:
            raise InvalidConfig("blocks take PyYAML: pip install 'runstone[reports]'")
        raw = parse_yaml(text.encode("utf-8", "replace"), kind)
        if raw is None:
            raw = {}
        if not isinstance(raw, dict):
            raise InvalidConfig("a block holds lines such as `limit: 10`")
        unknown = sorted(str(key) for key in raw if key not in known)
        if unknown:
            raise InvalidConfig(f"{unknown[0]!r:.80} is no key of a {kind} block; there is {', '.join(sorted(known))}")
        self._raw: Mapping[str, Any] = raw

    def __contains__(self, key: str) -> bool:
        """Return whether a key has a value."""
        return self._raw.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        """Return text; a number counts as text."""
        value = self._raw.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise InvalidConfig(f"{key} must be text, not {value!r:.80}")
        return str(value)

    def word(self, key: str, words: tuple[str, ...], default: str = "") -> str:
        """Return one of some words."""
        value = self.text(key, default)
        if value and value not in words:
            raise InvalidConfig(f"{key} is {value!r:.80}; it must be {', '.join(words)}")
        return value

    def texts(self, *keys: str) -> list[str]:
        """Return a list of texts, also where one text stands in its place; of several keys, the first that is there."""
        for key in keys:
            value = self._raw.get(key)
            if value is None:
                continue
            listed = value if isinstance(value, list) else [value]
            if len(listed) > _MOST_LISTED or not all(isinstance(item, (str, int, float)) for item in listed):
                raise InvalidConfig(f"{key} must be a list of at most {_MOST_LISTED} texts")
            return [str(item) for item in listed]
        return []

    def number(self, key: str, default: float) -> float:
        """Return a finite number."""
        value = self._raw.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InvalidConfig(f"{key} must be a number, not {value!r:.80}")
        return float(value)

    def count(self, key: str, default: int, most: int) -> int:
        """Return a whole number from 1 to `most`."""
        value = self._raw.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise InvalidConfig(f"{key} must be a whole number from 1 to {most:,}, not {value!r:.80}")
        return value

    def flag(self, key: str) -> bool:
        """Return whether something is wanted."""
        value = self._raw.get(key)
        if value is not None and not isinstance(value, bool):
            raise InvalidConfig(f"{key} must be true or false, not {value!r:.80}")
        return bool(value)
