"""What the mirror tells of a medium in a field that TensorBoard does not read, so that an import gives it back whole.

Marks are read from files that anybody may have written: what is not known here, or is of another type, is no fact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from blake3 import blake3

from runstone.values import JSON

KINDS = frozenset({"image", "audio", "video", "table", "text", "figure", "histogram"})
_MOST_BYTES = 1 << 16
_MOST_CAPTION = 1 << 14
_NUMBERS = frozenset({"duration_s", "fps", "min", "max", "mean"})
_COUNTS = frozenset(
    {
        *("width", "height", "frames", "sample_rate", "channels", "rows", "column_count"),
        *("count", "nan", "positive_inf", "negative_inf", "below", "above"),
    }
)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a medium was in the run that was mirrored.

    Attributes:
        kind: As in `Record.kind`.
        name: Under which it was logged; the tag may be another.
        key: What tells its content from others, see `content_key`.
        facts: Its metadata, as far as they are single values.
    """

    kind: str
    name: str
    key: str
    facts: dict[str, JSON] = field(default_factory=dict)

    def pack(self) -> str:
        """Return it as text."""
        told = {"runstone": self.kind, "name": self.name, "key": self.key, "facts": self.facts}
        return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def read_mark(text: str) -> Mark | None:
    """Return the mark that stands in a text, `None` where none does."""
    if not text.startswith('{"runstone":') or len(text) > _MOST_BYTES:
        return None
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    kind, name, key, facts = (told.get(part) for part in ("runstone", "name", "key", "facts"))
    if kind not in KINDS or not isinstance(name, str) or not isinstance(key, str) or not isinstance(facts, dict):
        return None
    return Mark(kind, name, key, known_facts(facts))


def known_facts(metadata: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return of a medium's metadata what a mark holds; everything else is left out."""
    return {name: value for name, value in metadata.items() if _is_fact(name, value)}


def content_key(content: bytes) -> str:
    """Return what tells a content from others: its hash, as the blobs know it."""
    return blake3(content).hexdigest()


def histogram_key(metadata: Mapping[str, JSON]) -> str:
    """Return what tells a histogram, which has no bytes of its own, from others."""
    return content_key(json.dumps([metadata.get("edges"), metadata.get("counts")]).encode())


def _is_fact(name: str, value: JSON) -> bool:
    if isinstance(value, bool):
        return False
    if name in _COUNTS:
        return isinstance(value, int) and 0 <= value < 2**63
    if name in _NUMBERS:
        return isinstance(value, int | float) and math.isfinite(value)
    return name == "caption" and isinstance(value, str) and len(value) <= _MOST_CAPTION
