"""Every error that Runstone raises on purpose.

RunstoneError
├── InvalidName          a name that cannot be kept (empty, too long, not text)
├── InvalidValue         a metric value, step or param that cannot be kept
├── InvalidFilter        a filter that does not parse; carries the position
├── InvalidConfig        a configuration file with a mistake; carries the path inside the file
├── NotFound             something that was asked for by name is not there
│   ├── WorkspaceNotFound
│   ├── RunNotFound
│   └── MetricNotFound
├── AmbiguousName        a short name that fits several things
├── AlreadyExists        something that must be new is there already
├── RunFinished          a finished run was written to
├── Unavailable          a server that is needed does not answer, for now
└── FormatError          files that this version cannot read

Each message says what happened, with which value, and what to do now. The command line prints
these messages as they are; any other exception is a defect of Runstone.
"""

from __future__ import annotations

__all__ = [
    "AlreadyExists",
    "AmbiguousName",
    "FormatError",
    "InvalidConfig",
    "InvalidFilter",
    "InvalidName",
    "InvalidValue",
    "MetricNotFound",
    "NotFound",
    "RunFinished",
    "RunNotFound",
    "RunstoneError",
    "TrackingWarning",
    "Unavailable",
    "WorkspaceNotFound",
]


class RunstoneError(Exception):
    """Base of every error that Runstone raises on purpose."""


class InvalidName(RunstoneError, ValueError):
    """A name that cannot be kept as it was given."""


class InvalidValue(RunstoneError, ValueError):
    """A metric value, step or param that cannot be kept as it was given."""


class InvalidFilter(RunstoneError, ValueError):
    """A filter that does not parse.

    Attributes:
        text: The whole filter.
        position: Index into `text` where the mistake begins, counted from 0.
    """

    def __init__(self, message: str, *, text: str = "", position: int = 0) -> None:
        super().__init__(message)
        self.text = text
        self.position = position


class InvalidConfig(RunstoneError, ValueError):
    """A configuration with a mistake; the message starts with the path inside the file."""


class NotFound(RunstoneError, LookupError):
    """Something that was asked for by name is not there."""


class WorkspaceNotFound(NotFound):
    """No workspace lies here or above."""


class RunNotFound(NotFound):
    """No run has this id or name."""


class MetricNotFound(NotFound):
    """The run never logged a metric of this name."""


class AmbiguousName(RunstoneError, LookupError):
    """A short id or a name that fits several runs."""


class AlreadyExists(RunstoneError, FileExistsError):
    """Something that must be new is there already."""


class RunFinished(RunstoneError, RuntimeError):
    """A finished run was written to."""


class Unavailable(RunstoneError, ConnectionError):
    """A server that is needed does not answer, for now."""


class FormatError(RunstoneError):
    """Files that this version cannot read, most often written by a newer one."""


class TrackingWarning(UserWarning):
    """Something could not be recorded; training goes on. Shown once per kind and run."""
