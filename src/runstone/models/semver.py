"""Semantic versions (semver.org 2.0.0), with their order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Literal

from runstone.errors import InvalidValue

Level = Literal["major", "minor", "patch"]
_VERSION = re.compile(
    r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?"
)
_MAX_LENGTH = 128


@total_ordering
@dataclass(frozen=True, slots=True)
class SemVer:
    """A version `major.minor.patch` or `major.minor.patch-pre.release`; build metadata is not kept.

    Attributes:
        pre: Parts of a pre-release, such as `("rc", "1")`; empty for a release.
    """

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> SemVer:
        """Read `1.2.3`, `v1.2.3` or `2.0.0-rc.1`.

        Raises:
            InvalidValue: it is none of these.
        """
        match = _VERSION.fullmatch(text) if len(text) <= _MAX_LENGTH else None
        if match is None:
            raise InvalidValue(
                f"{text!r:.80} is not a semantic version; write it as 1.2.3, or 2.0.0-rc.1 before a release"
            )
        major, minor, patch, pre = match.groups()
        return cls(int(major), int(minor), int(patch), tuple(pre.split(".")) if pre else ())

    def __str__(self) -> str:
        """Write it without a `v`."""
        pre = f"-{'.'.join(self.pre)}" if self.pre else ""
        return f"{self.major}.{self.minor}.{self.patch}{pre}"

    def __lt__(self, other: SemVer) -> bool:
        """Compare by precedence: numbers as numbers, and a pre-release before its release."""
        return self._key < other._key

    @property
    def is_prerelease(self) -> bool:
        """Whether it comes before its release."""
        return bool(self.pre)

    @property
    def release(self) -> SemVer:
        """The release that it is, or leads to."""
        return SemVer(self.major, self.minor, self.patch)

    def bump(self, level: Level) -> SemVer:
        """Return the next release of a level. After a pre-release that may be the very one that it leads to."""
        if self.pre:
            is_enough = {
                "patch": True,
                "minor": self.patch == 0,
                "major": self.minor == self.patch == 0,
            }[level]
            if is_enough:
                return self.release
        if level == "major":
            return SemVer(self.major + 1, 0, 0)
        if level == "minor":
            return SemVer(self.major, self.minor + 1, 0)
        return SemVer(self.major, self.minor, self.patch + 1)

    @property
    def _key(self) -> tuple[object, ...]:
        # semver.org 11.3 and 11.4: numbers before words, and a shorter list before the same with more
        parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.pre)
        return (self.major, self.minor, self.patch, not self.pre, parts)
