"""How a version of a model is named: `credit-risk@2.1.0`, `credit-risk@production?as_of=2026-03-01`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time

from runstone.errors import InvalidName, InvalidValue
from runstone.models.semver import SemVer
from runstone.names import check_name

LATEST = "latest"
_PARTIAL = re.compile(r"v?\d+(\.\d+)?")
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which version of which model is meant.

    Attributes:
        name: The model.
        selector: A version, `1` or `1.2` for the highest of these, an alias, a stage, or `latest`.
        as_of: Seconds since the Unix epoch: what stood at that time; `None`: what stands now.
    """

    name: str
    selector: str = LATEST
    as_of: float | None = None

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Read `name`, `name@selector` and `name@selector?as_of=time`; `models:/` in front is passed over.

        Raises:
            InvalidName: no model is named.
            InvalidValue: the time is not one.
        """
        rest = text.removeprefix("models:/").removeprefix("model:")
        rest, has_query, query = rest.rpartition("?as_of=") if "?as_of=" in rest else (rest, "", "")
        name, has_selector, selector = rest.rpartition("@") if "@" in rest else (rest, "", "")
        check_name(name, "model")
        if has_selector and not selector:
            raise InvalidName(f"{text!r:.120} names no version after @; give a version, an alias or a stage")
        return cls(name, selector or LATEST, parse_time(query) if has_query else None)

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        at = f"?as_of={datetime.fromtimestamp(self.as_of, UTC).isoformat()}" if self.as_of is not None else ""
        return f"{self.name}@{self.selector}{at}"


def parse_time(text: str) -> float:
    """Return seconds since the Unix epoch for a date or a time of ISO 8601; without a zone it is UTC.

    A date alone means its end: what stood when that day was over.

    Raises:
        InvalidValue: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidValue(
            f"{text!r:.80} is not a time; write a date such as 2026-03-01, or 2026-03-01T12:00:00+01:00"
        ) from None
    if len(text) <= len("2026-03-01"):
        moment = datetime.combine(moment.date(), time.max)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def check_alias(alias: str, stages: tuple[str, ...]) -> str:
    """Return an alias that cannot be taken for a version or a stage.

    Raises:
        InvalidName: it could be, or is no plain word.
    """
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise InvalidName(
            f"alias {alias!r:.80} is not legal: use 1 to 255 letters, digits, '_', '-' and '.', starting with a "
            "letter or digit"
        )
    if alias.lower() == LATEST or alias in stages or is_version_like(alias):
        what = "a stage" if alias in stages else "a version"
        raise InvalidName(f"alias {alias!r} could be taken for {what}; choose another word")
    return alias


def is_version_like(selector: str) -> bool:
    """Tell whether it is a version, or the beginning of one."""
    if _PARTIAL.fullmatch(selector):
        return True
    try:
        SemVer.parse(selector)
    except InvalidValue:
        return False
    return True
