"""The frozen records that readers get, and the glossary of the product.

| word | meaning |
|---|---|
| workspace | one folder (default `.runstone`) that holds everything |
| project | a named group of runs |
| run | one execution that records; has params, metrics, tags, artifacts, an environment |
| attempt | one process life of a run; a resumed run has several |
| metric, point | a named series; `(step, value, wall time)` |
| media, record | an image, sound, table, text, … at a step; what is known of it, and where its bytes lie |
| param | a JSON value known before or during the run; nested, addressed with dots |
| artifact | a file or folder that a run produced; content-addressed |
| dataset, model | a name with versions that never change; a version is its content, and what was said of it |
| alias, stage | a movable name for one version (`champion`); where a version of a model stands (`production`) |
| gate | a rule that must hold before a version of a model comes into a stage |
| deployment, incident | where a version of a model works; what was found to be wrong with it there |
| group | runs that belong together, such as the trials of a sweep |
| sweep, trial | a search over a space; each trial is a run |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone.status import Status

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = [
    "JSON",
    "Alert",
    "Artifact",
    "Attempt",
    "Failure",
    "FileEntry",
    "Link",
    "MetricSummary",
    "Record",
    "Series",
    "Status",
]

JSON = None | bool | int | float | str | list[Any] | dict[str, Any]


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """What one metric of one run comes down to. NaN never counts as lowest, highest or mean; ±Inf does.

    Attributes:
        name: Exactly as logged.
        count: Points that are not superseded, NaN included.
        nan_count: How many of them are NaN.
        first_step, last_step: Smallest and largest step.
        last: Value of the point logged last (it may be NaN); min, max, mean: `None` where every value is NaN.
        min_step, max_step: Step at which the lowest and the highest value were first reached.
        last_at: Seconds since the Unix epoch (UTC) of the point logged last.
    """

    name: str
    count: int
    nan_count: int
    first_step: int
    last_step: int
    last: float
    min: float | None
    min_step: int | None
    max: float | None
    max_step: int | None
    mean: float | None
    last_at: float


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact: its path inside it (POSIX, relative), BLAKE3 hash (hex) and size."""

    path: str
    hash: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file or folder that a run produced.

    Attributes:
        name: As given to `log_artifact`, or the file's own name.
        is_folder: Whether it is a folder; then `files` holds its content, else one entry.
        logged_at: Aware UTC time.
        metadata: What the one who logged it said of it.
    """

    name: str
    is_folder: bool
    files: tuple[FileEntry, ...]
    logged_at: datetime
    metadata: dict[str, JSON] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Sum over the files."""
        return sum(entry.size_bytes for entry in self.files)


@dataclass(frozen=True, slots=True)
class Alert:
    """Something about a run that somebody wanted to be told of.

    Attributes:
        id: 16 hex digits.
        rule: Name of the rule that fired; empty for one that the program raised by itself.
        level: `info`, `warning` or `error`.
        title: One line.
        text: What shows it.
        at: Seconds since the Unix epoch, UTC.
        metric, step, value: The point that shows it, where there is one.
        deliveries: Who was told, and how that went: `(name, whether it was taken, detail)`.
    """

    id: str
    rule: str
    level: str
    title: str
    text: str
    at: float
    metric: str | None = None
    step: int | None = None
    value: float | None = None
    deliveries: tuple[tuple[str, bool, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """What a run used or made: one end of a step of lineage.

    Attributes:
        kind: `dataset`, `model` or `artifact`; or `incident`, for which the run trained again.
        name: Of the dataset, model or artifact; of the model that has the incident.
        version: Which one, as its registry counts; `None` where only its content is known. The number of an incident.
        hash: Of its manifest or content; `None` where that could not be read.
        role: What it was used as, such as `train`; `None` where nobody said so.
        at: Seconds since the Unix epoch, UTC.
        source: Where it lay, for data from outside the workspace: a path or URL without secrets.
    """

    kind: str
    name: str
    version: str | None = None
    hash: str | None = None
    role: str | None = None
    at: float = 0.0
    source: str | None = None

    @property
    def key(self) -> tuple[str | None, ...]:
        """Equal for links that say the same."""
        return (self.kind, self.name, self.version, self.hash, self.role)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One metric of one run as three arrays of shape `(n,)`, in the order in which points were logged.

    Attributes:
        name: Metric name, exactly as logged.
        step: int64.
        value: float64, NaN and ±Inf kept; int64 where only integers were logged, bool likewise; `str` (dtype object)
            where only texts were.
        wall_s: float64, seconds since the Unix epoch, UTC.
    """

    name: str
    step: NDArray[np.int64]
    value: NDArray[Any]
    wall_s: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.step)

    def to_pandas(self) -> pd.DataFrame:
        """Return a frame with the columns `step`, `value` and `wall_s` (needs pandas)."""
        import pandas as pd  # heavy and optional

        return pd.DataFrame({"step": self.step, "value": self.value, "wall_s": self.wall_s})

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table with the columns `step`, `value` and `wall_s`; numbers are not copied."""
        import pyarrow as pa  # heavy, only where asked for

        return pa.table({"step": self.step, "value": self.value, "wall_s": self.wall_s})


@dataclass(frozen=True, slots=True)
class Record:
    """Something other than a number that was logged at a step: an image, a table, a text, …

    Attributes:
        step: As logged.
        wall_s: Seconds since the Unix epoch, UTC.
        kind: `image`, `audio`, `video`, `table`, `text`, `figure`, `histogram` or `object3d`.
        format: How its bytes are to be read, such as `png`, `wav`, `parquet`, `plotly.json`; `None` without bytes.
        size_bytes: How many bytes it has.
        hash: BLAKE3 of its bytes, hex; `None` for what is kept inline.
        path: Where its bytes lie; `None` without bytes, and where the content is not in this workspace.
        text: The text of a short one.
        metadata: What else is known: `width`, `height`, `caption`, `sample_rate`, `columns`, `counts`, …
    """

    step: int
    wall_s: float
    kind: str
    format: str | None = None
    size_bytes: int = 0
    hash: str | None = None
    path: Path | None = None
    text: str | None = None
    metadata: dict[str, JSON] = field(default_factory=dict)

    def read_text(self) -> str:
        """Return the text of any length.

        Raises:
            OSError: its content is not in this workspace.
        """
        if self.text is not None:
            return self.text
        if self.path is None:
            raise FileNotFoundError(f"the content of this {self.kind} is not in this workspace (hash {self.hash})")
        return self.path.read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed: the exception's type and message, and the traceback as text."""

    type: str
    message: str
    traceback: str
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One process life of a run; several ranks share one.

    Attributes:
        number: Counted from 1.
        status: How this attempt stands or ended.
        started_at, ended_at: Aware UTC; `ended_at` is `None` while it runs, and the last sign of life after a crash.
        rewind_step: First step that it logs again, if it said so; it supersedes earlier attempts from there on.
        host, pid: Where the process of rank 0 ran.
    """

    number: int
    status: Status
    started_at: datetime
    ended_at: datetime | None
    rewind_step: int | None
    host: str
    pid: int
