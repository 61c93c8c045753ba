"""How a version of a model is named: `credit-risk@2.1.0`, `credit-risk@production?as_of=2026-03-01`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runstone import catalog
from runstone.errors import InvalidName, InvalidValue
from runstone.models.semver import SemVer
from runstone.names import check_name

LATEST = "latest"
_PARTIAL = re.compile(r"v?\d+(\.\d+)?")


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
    """Return seconds since the Unix epoch for a date or a time of ISO 8601; without a zone, and with ` UTC`, it is UTC.

    It means the end of what it names: `2026-03-01` what stood when that day was over, `12:30` when that minute was, and
    `12:30:07`, as histories show times, when that second was.

    Raises:
        InvalidValue: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text.strip().removesuffix(" UTC"))
    except ValueError:
        raise InvalidValue(
            f"{text!r:.80} is not a time; write a date such as 2026-03-01, or 2026-03-01T12:00:00+01:00"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    clock = re.search(r"[T ](\d\d):?(\d\d)?:?(\d\d)?([.,]\d+)?", text)
    named = sum(part is not None for part in clock.groups()) if clock else 0
    if named == 4:
        return moment.timestamp()
    length = (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))[named]
    return (moment + length - timedelta(microseconds=1)).timestamp()


def check_alias(alias: str, stages: tuple[str, ...]) -> str:
    """Return an alias that cannot be taken for a version or a stage.

    Raises:
        InvalidName: it could be, or is no plain word.
    """

    def mistakable(word: str) -> str | None:
        if word in stages:
            return "a stage"
        return "a version" if word.lower() == LATEST or is_version_like(word) else None

    return catalog.check_alias(alias, mistakable)


def is_version_like(selector: str) -> bool:
    """Tell whether it is a version, or the beginning of one."""
    if _PARTIAL.fullmatch(selector):
        return True
    try:
        SemVer.parse(selector)
    except InvalidValue:
        return False
    return True
