"""Every environment variable that Runstone reads, and the only place that reads the environment.

An argument given in Python wins over the environment, the environment over the workspace's `settings.json`, that over
the default.

| variable | meaning |
|---|---|
| `RUNSTONE_WORKSPACE` | folder of the workspace; default: the nearest `.runstone` here or above |
| `RUNSTONE_PROJECT` | project of runs that name none; default `default` |
| `RUNSTONE_NAME` | name of the first run of this process that has none |
| `RUNSTONE_GROUP` | group of runs that name none |
| `RUNSTONE_RUN_ID` | id that the first run of this process takes; set by `sweep run` for each trial |
| `RUNSTONE_TRIAL` | JSON object with the params of the trial; set by `sweep run` |
| `RUNSTONE_SEED` | seed of the trial, for the script to use; set by `sweep run` |
| `RUNSTONE_FACTS` | folder in which trials hand each other what they know of their host; set by `sweep run` |
| `RUNSTONE_ON_ERROR` | `warn` (default) or `raise`: what happens when something cannot be recorded |
| `RUNSTONE_SYSTEM_METRICS` | `0`: no system metrics; a number: seconds between them; default 10 |
| `RUNSTONE_PRICE_PER_KWH` | price of a kilowatt-hour, in any currency, for `runstone runs show` |
| `RUNSTONE_CARBON_G_PER_KWH` | grams of CO2 a kilowatt-hour, for `runstone runs show` |
| `RUNSTONE_LOG` | `mmap` or `append`: forces how the metric log is written; default by file system |
| `RUNSTONE_SPILL` | `off`, or the most that is kept elsewhere while the disk of a run is full; default `64M` |
| `XDG_STATE_HOME` | where that is kept, in `runstone/spill`; default `~/.local/state` |
| `RUNSTONE_BLOBS` | URL of a store that content is sent to and read from, such as `s3://bucket/prefix`; `off`: none |
| `RUNSTONE_DISABLED` | `1`: record nothing, with the same calls |
| `RUNSTONE_AUTOLOG` | `on` or `off`: record trainings that name no callback; wins over `runstone autolog` |
| `XDG_CONFIG_HOME` | where that switch lies, in `runstone`; default `~/.config` |
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, cast

from runstone.errors import InvalidConfig, InvalidValue

OnError = Literal["warn", "raise"]
WORKSPACE_FOLDER = ".runstone"
VARIABLES = (
    "RUNSTONE_WORKSPACE",
    "RUNSTONE_PROJECT",
    "RUNSTONE_NAME",
    "RUNSTONE_GROUP",
    "RUNSTONE_RUN_ID",
    "RUNSTONE_TRIAL",
    "RUNSTONE_SEED",
    "RUNSTONE_FACTS",
    "RUNSTONE_ON_ERROR",
    "RUNSTONE_SYSTEM_METRICS",
    "RUNSTONE_PRICE_PER_KWH",
    "RUNSTONE_CARBON_G_PER_KWH",
    "RUNSTONE_LOG",
    "RUNSTONE_SPILL",
    "RUNSTONE_BLOBS",
    "RUNSTONE_DISABLED",
    "RUNSTONE_AUTOLOG",
)


def process_environment() -> Mapping[str, str]:
    """Return a copy of this process's environment, for the environment snapshot and for child processes."""
    return dict(os.environ)


@contextlib.contextmanager
def variable_kept(variable: str) -> Iterator[None]:
    """Put an environment variable back to what it is now when the block ends."""
    before = os.environ.get(variable)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


def read(variable: str) -> str | None:
    """Return one of `VARIABLES`, or `None` where it is unset or empty."""
    return os.environ.get(variable) or None


def workspace_path() -> Path | None:
    """Return the folder that `RUNSTONE_WORKSPACE` names, if it does."""
    value = read("RUNSTONE_WORKSPACE")
    return expanded(value) if value else None


def facts_folder() -> Path | None:
    """Return the folder that `RUNSTONE_FACTS` names, if it does."""
    value = read("RUNSTONE_FACTS")
    return Path(value) if value else None


def expanded(path: str | Path) -> Path:
    """Return a path in which a leading `~` is the home folder.

    Raises:
        FileNotFoundError: nobody knows where that is, as for users without an entry in many containers.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f"{path}: {error}") from None


def on_error(given: OnError | None) -> OnError:
    """Return what happens when something cannot be recorded: the argument, the environment, or `warn`.

    Raises:
        InvalidValue: it is neither `warn` nor `raise`.
    """
    value = given if given is not None else read("RUNSTONE_ON_ERROR") or "warn"
    if value not in ("warn", "raise"):
        raise InvalidValue(f"on_error is {value!r}; it must be 'warn' or 'raise'")
    return cast(OnError, value)


def log_backend() -> Literal["mmap", "append"] | None:
    """Return the way to write the metric log that `RUNSTONE_LOG` forces, if it does."""
    value = read("RUNSTONE_LOG")
    if value not in (None, "mmap", "append"):
        raise InvalidValue(f"RUNSTONE_LOG is {value!r}; it must be 'mmap' or 'append'")
    return cast(Literal["mmap", "append"] | None, value)


def spill_folder() -> Path | None:
    """Return where points are kept while the disk of their run takes nothing; `None` where there is no home folder."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # the XDG specification: others are ignored
        try:
            state = Path.home() / ".local" / "state"
        except RuntimeError:
            return None
    return state / "runstone" / "spill"


def spill_bytes() -> int:
    """Return the most bytes that one process keeps there, 0 for none.

    Raises:
        InvalidValue: `RUNSTONE_SPILL` says neither `off` nor a size.
    """
    told = read("RUNSTONE_SPILL")
    if told is None:
        return 64 << 20
    value = told.strip()
    if value.lower() in ("0", "off", "false", "no"):
        return 0
    found = re.fullmatch(r"([0-9]{1,15})([kmg]?)(?:i?b)?", value.lower())
    if found is None:
        raise InvalidValue(f"RUNSTONE_SPILL is {value!r}; it must be 'off' or a size such as '64M' or '1G'")
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[found[2]]


def blob_store(workspace: Path) -> str | None:
    """Return the URL of the store that a workspace's content is sent to, `None` where it stays in the workspace.

    `RUNSTONE_BLOBS` says so, else `blobs` in the workspace's `settings.json`, a JSON object.

    Raises:
        InvalidConfig: that file is no JSON object, or `blobs` in it no URL.
    """
    given = read("RUNSTONE_BLOBS")
    if given is None:
        given = _of_workspace(workspace, "blobs")
    if given is None or given.lower() == "off":
        return None
    if not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*(::[^:]+)?://", given):
        raise InvalidConfig(f"RUNSTONE_BLOBS: {given!r:.80} is no URL such as 's3://bucket/prefix' or 'file:///folder'")
    return given


def _of_workspace(workspace: Path, key: str) -> str | None:
    path = workspace / "settings.json"
    try:
        data = path.read_bytes()
    except OSError:  # most have none
        return None
    import json  # most workspaces have no settings

    try:
        told = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{path}: no JSON: {error}") from None
    value = told.get(key) if isinstance(told, dict) else data
    if value is not None and not isinstance(value, str):
        raise InvalidConfig(f"{path}: {key} must be text in a JSON object")
    return value


def switch_or_seconds(variable: str, value: str) -> bool | float:
    """Return what a variable says that switches something off or on, or gives its interval in seconds.

    Raises:
        InvalidValue: it says neither.
    """
    word = value.strip().lower()
    if word in ("0", "false", "no", "off"):
        return False
    if word in ("true", "yes", "on"):
        return True
    found = number(variable)
    return True if found is None else found


def number(variable: str) -> float | None:
    """Return a variable that holds a number of 0 or more, `None` where it is unset.

    Raises:
        InvalidValue: it holds something else.
    """
    value = read(variable)
    if value is None:
        return None
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise InvalidValue(f"{variable} is {value!r}; it must be a number of 0 or more")
    return found


def is_disabled() -> bool:
    """Return whether `RUNSTONE_DISABLED` switches recording off."""
    return (read("RUNSTONE_DISABLED") or "0").lower() not in ("0", "false", "no", "off")


def rank() -> int:
    """Return this process's rank in a distributed job, 0 where there is none.

    Launchers set one of these before the script starts: torchrun and Lightning `RANK` or `LOCAL_RANK`,
    Slurm `SLURM_PROCID`, Open MPI `OMPI_COMM_WORLD_RANK`.
    """
    for variable in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "LOCAL_RANK"):
        value = os.environ.get(variable, "")
        if value.isdigit():
            return int(value)
    return 0
