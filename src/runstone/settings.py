"""Every environment variable that Runstone reads, and the only place that reads the environment.

An argument given in Python wins over the environment, the environment over the workspace's `settings.json`, that over
the default.

| variable | meaning |
|---|---|
| `RUNSTONE_WORKSPACE` | folder of the workspace, or URL of a server; default: the nearest `.runstone` here or above |
| `RUNSTONE_TOKEN` | token for that server; default: what `runstone login` keeps |
| `RUNSTONE_SPOOL_DAYS` | how long runs stay on this machine that a server has as a whole; default 1 |
| `RUNSTONE_SEAL_MINUTES` | how long after their end `ui` and `serve` seal long runs; default 10; `0`: never |
| `RUNSTONE_PROJECT` | project of runs that name none; default `default` |
| `RUNSTONE_NAME` | name of the first run of this process that has none |
| `RUNSTONE_GROUP` | group of runs that name none |
| `RUNSTONE_RUN_ID` | id that the first run of this process takes; set by `sweep run` for each trial |
| `RUNSTONE_TRIAL` | JSON object with the params of the trial; set by `sweep run` |
| `RUNSTONE_SEED` | seed of the trial, for the script to use; set by `sweep run` |
| `RUNSTONE_FACTS` | folder in which trials hand each other what they know of their host; set by `sweep run` |
| `RUNSTONE_INCIDENT` | incident that this process trains again for, such as `credit-risk#3`; set by monitoring |
| `RUNSTONE_ON_ERROR` | `warn` (default) or `raise`: what happens when something cannot be recorded |
| `RUNSTONE_SYSTEM_METRICS` | `0`: no system metrics; a number: seconds between them; default 10 |
| `RUNSTONE_PRICE_PER_KWH` | price of a kilowatt-hour, in any currency, for `runstone runs show` |
| `RUNSTONE_CARBON_G_PER_KWH` | grams of CO2 a kilowatt-hour, for `runstone runs show` |
| `RUNSTONE_LOG` | `mmap` or `append`: forces how the metric log is written; default by file system |
| `RUNSTONE_SPILL` | `off`, or the most that is kept elsewhere while the disk of a run is full; default `64M` |
| `XDG_STATE_HOME` | where that is kept, and runs for a server, in `runstone`; default `~/.local/state` |
| `RUNSTONE_BLOBS` | URL of a store that content is sent to and read from, such as `s3://bucket/prefix`; `off`: none |
| `RUNSTONE_BLOBS_CACHE` | how much content that lies there a server keeps here too, such as `50G`; default: all |
| `RUNSTONE_INDEX` | address of a PostgreSQL database in which the index and a server's accounts lie; default: files |
| `RUNSTONE_DISABLED` | `1`: record nothing, with the same calls |
| `RUNSTONE_AUTOLOG` | `on` or `off`: record trainings that name no callback; wins over `runstone autolog` |
| `XDG_CONFIG_HOME` | where that switch and tokens lie, in `runstone`; default `~/.config` |
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
    "RUNSTONE_TOKEN",
    "RUNSTONE_SPOOL_DAYS",
    "RUNSTONE_SEAL_MINUTES",
    "RUNSTONE_PROJECT",
    "RUNSTONE_NAME",
    "RUNSTONE_GROUP",
    "RUNSTONE_RUN_ID",
    "RUNSTONE_TRIAL",
    "RUNSTONE_SEED",
    "RUNSTONE_FACTS",
    "RUNSTONE_INCIDENT",
    "RUNSTONE_ON_ERROR",
    "RUNSTONE_SYSTEM_METRICS",
    "RUNSTONE_PRICE_PER_KWH",
    "RUNSTONE_CARBON_G_PER_KWH",
    "RUNSTONE_LOG",
    "RUNSTONE_SPILL",
    "RUNSTONE_BLOBS",
    "RUNSTONE_BLOBS_CACHE",
    "RUNSTONE_INDEX",
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


def tell_children(variable: str, value: str) -> None:
    """Set an environment variable of another program that processes of this one inherit; one that is set stays."""
    os.environ.setdefault(variable, value)


def read(variable: str) -> str | None:
    """Return one of `VARIABLES`, or `None` where it is unset or empty."""
    return os.environ.get(variable) or None


def workspace_path() -> Path | None:
    """Return the folder that `RUNSTONE_WORKSPACE` names, if it does; `None` where that is the URL of a server."""
    value = read("RUNSTONE_WORKSPACE")
    return expanded(value) if value and not is_url(value) else None


def workspace_url() -> str | None:
    """Return the URL of the server that `RUNSTONE_WORKSPACE` names, if it does."""
    value = read("RUNSTONE_WORKSPACE")
    return value if value and is_url(value) else None


def is_url(place: object) -> bool:
    """Return whether a place of a workspace is a server, not a folder."""
    return isinstance(place, str) and re.match(r"https?://", place, re.IGNORECASE) is not None


def spool_days() -> float:
    """Return how many days a run stays on this machine after the server has it as a whole.

    Raises:
        InvalidValue: `RUNSTONE_SPOOL_DAYS` is no number of 0 or more.
    """
    told = number("RUNSTONE_SPOOL_DAYS")
    return 1.0 if told is None else told


def seal_minutes() -> float:
    """Return how many minutes after their end a server seals long runs; 0: never.

    Raises:
        InvalidValue: `RUNSTONE_SEAL_MINUTES` is no number of 0 or more.
    """
    told = number("RUNSTONE_SEAL_MINUTES")
    return 10.0 if told is None else told


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
    return cast("Literal['mmap', 'append'] | None", value)  # as text: to make that type costs each trial of a sweep


def spill_folder() -> Path | None:
    """Return where points are kept while the disk of their run takes nothing; `None` where there is no home folder."""
    state = _state_folder()
    return state / "spill" if state is not None else None


def spool_folder() -> Path | None:
    """Return where runs are written that go to a server; `None` where there is no home folder."""
    state = _state_folder()
    return state / "spool" if state is not None else None


def _state_folder() -> Path | None:
    return _own_folder("XDG_STATE_HOME", (".local", "state"))


def config_folder() -> Path | None:
    """Return where settings of this user lie; `None` where there is no home folder."""
    return _own_folder("XDG_CONFIG_HOME", (".config",))


def _own_folder(variable: str, usual: tuple[str, ...]) -> Path | None:
    place = Path(os.environ.get(variable, ""))
    if not place.is_absolute():  # the XDG specification: others are ignored
        try:
            place = Path.home().joinpath(*usual)
        except RuntimeError:
            return None
    return place / "runstone"


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
    found = bytes_of(value)
    if found is None:
        raise InvalidValue(f"RUNSTONE_SPILL is {value!r}; it must be 'off' or a size such as '64M' or '1G'")
    return found


def bytes_of(text: str) -> int | None:
    """Return how many bytes a text such as `64M`, `1G` or `2 TiB` says, powers of 1,024; `None` where it says none."""
    found = re.fullmatch(r"([0-9]{1,15}) ?([kmgt]?)(?:i?b)?", text.strip().lower())
    return None if found is None else int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[found[2]]


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


def use_blob_store(url: str | None, *, cache: str | None = None) -> None:
    """Let this process, and those that it starts, use a store: as if `RUNSTONE_BLOBS` said so. `None`: as before.

    Args:
        url: Its URL, or `off`. Without a password: everyone on the machine sees the arguments of a process.
        cache: As `RUNSTONE_BLOBS_CACHE` says it.

    Raises:
        InvalidConfig: it is no URL, or one with a password; the cache is no size.
    """
    if url is not None and re.search(r"://[^/@]*:[^/@]*@", url):
        raise InvalidConfig(
            "a URL with a password is seen by all who list processes; give the store its credentials by the "
            "environment or its own files (S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, the machine's role)"
        )
    for variable, value in (("RUNSTONE_BLOBS", url), ("RUNSTONE_BLOBS_CACHE", cache)):
        if value is not None:
            os.environ[variable] = value
    blob_store(Path())
    blob_cache_bytes(Path())


def blob_cache_bytes(workspace: Path) -> int | None:
    """Return how much content that lies in a store elsewhere is kept here too, in bytes; `None`: all.

    `RUNSTONE_BLOBS_CACHE` says so, else `blobs_cache` in the workspace's `settings.json`.

    Raises:
        InvalidConfig: it is no size.
    """
    told = read("RUNSTONE_BLOBS_CACHE") or _of_workspace(workspace, "blobs_cache")
    if told is None:
        return None
    found = bytes_of(told)
    if found is None:
        raise InvalidConfig(f"RUNSTONE_BLOBS_CACHE: {told!r:.80} is no size such as '50G' or '2T'")
    return found


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
