"""Runs every collector, each where it cannot hold up another, and puts the sections together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone import settings
from runstone._version import __version__
from runstone.capture import redact
from runstone.capture.cgroup import read_cgroup
from runstone.capture.code import read_git
from runstone.capture.container import read_container
from runstone.capture.context import Context, Privacy, no_pause
from runstone.capture.disk import read_disk
from runstone.capture.facts import Facts, Section, explain
from runstone.capture.frameworks import read_blas, read_frameworks
from runstone.capture.gpu import read_gpu
from runstone.capture.host import read_cpu, read_limits, read_memory, read_os
from runstone.capture.packages import packages_key, read_conda, read_packages
from runstone.capture.process import read_identity, read_notebook, read_process, read_rank
from runstone.capture.python import read_python
from runstone.capture.scheduler import read_scheduler
from runstone.capture.variables import read_variables

SCHEMA = 1
_QUICK_S = 1.0
# Kept back for putting together and writing.
_RESERVE_S = 0.25
_ELSEWHERE = "absent: another rank of this host tells it"


def _cuda_variables(context: Context) -> Hashable:
    names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
    return (*map(context.environment.get, names), context.privacy.keep_serials)


def _is_never_the_same(_: Context) -> Hashable:
    return object()


@dataclass(frozen=True, slots=True)
class _Collector:
    """How one section comes about.

    Attributes:
        same: Equal answers say that the section has not changed within this process, and is not read again.
        is_slow: It waits for programs or drivers, or asks much of the disk: it runs beside the others, with all the
            time there is.
        is_own: It tells of this process; the others tell of the host and of the code, which its ranks share.
        may_change: A program changes it after its first lines; a second look is taken at it.
    """

    section: str
    read: Callable[[Facts, Context], None]
    same: Callable[[Context], Hashable] = _is_never_the_same
    is_slow: bool = False
    is_own: bool = False
    may_change: bool = False


# In the order of the snapshot. The first that is slow starts first.
_COLLECTORS = (
    _Collector("rank", read_rank, is_own=True),
    _Collector("identity", read_identity, is_own=True),
    _Collector("process", read_process, is_own=True),
    _Collector("git", read_git, is_slow=True),
    _Collector("python", read_python),
    _Collector("frameworks", read_frameworks, is_own=True, may_change=True),
    _Collector("gpu", read_gpu, same=_cuda_variables, is_slow=True, is_own=True),
    _Collector("os", read_os),
    _Collector("cpu", read_cpu),
    _Collector("memory", read_memory),
    _Collector("cgroup", read_cgroup),
    _Collector("limits", read_limits),
    _Collector("disk", read_disk),
    _Collector("container", read_container),
    _Collector("scheduler", read_scheduler),
    _Collector("notebook", read_notebook),
    _Collector("env", read_variables, is_own=True, may_change=True),
    _Collector("blas", read_blas, is_own=True, may_change=True),
    _Collector(
        "conda",
        read_conda,
        same=lambda context: (packages_key(), context.environment.get("CONDA_PREFIX")),
        is_slow=True,
    ),
    _Collector("packages", read_packages, same=lambda _: packages_key(), is_slow=True, may_change=True),
)


# Sections that do not change while the process lives, for its second run. Each is replaced whole, so that threads
# and forked children see it as it was or as it is.
_known: dict[str, tuple[Hashable, Section]] = {}


class _Reading:
    """One collector at work in a thread of its own, which is left behind if it hangs."""

    def __init__(self, collector: _Collector, context: Context) -> None:
        self._collector = collector
        self._context = context
        self._facts = Facts(collector.section)
        self._done = threading.Event()
        # A daemon: what hangs in a driver does not keep the process from ending.
        threading.Thread(target=self._work, name=f"runstone-{collector.section}", daemon=True).start()

    def _work(self) -> None:
        try:
            self._collector.read(self._facts, self._context)
        except Exception as error:
            self._facts.fail(explain(error))
        finally:
            self._done.set()

    def result(self, timeout_s: float) -> Section:
        """Return the section; what has not been read after `timeout_s` is missing from it."""
        if self._done.wait(timeout_s):
            return self._facts.close()
        return self._facts.close(timeout_reason=f"timeout: no answer within {timeout_s:.1f} s")


def collect(
    *,
    writer: str | None = None,
    store: Path | None = None,
    log_backend: str | None = None,
    privacy: Privacy | None = None,
    environment: Mapping[str, str] | None = None,
    root: Path = Path("/"),
    ranks: Mapping[str, int] | None = None,
    is_whole: bool = True,
    pause: Callable[[], None] = no_pause,
    keep_patch: Callable[[bytes], str] | None = None,
    timeout_s: float = 5.0,
) -> dict[str, Any]:
    """Return a snapshot; `runstone.capture.snapshot` says what is in it and what most arguments mean.

    Args:
        root: Where `/proc`, `/sys`, `/etc` and `/run` are looked for.
        ranks: See `Context`.
        is_whole: `False`: only what this process is; another rank of its host tells the rest.
        pause: Called between small steps.
        keep_patch: Stores the patch and returns the name of its file.
    """
    started_at, started = time.time(), time.monotonic()
    until = started + max(0.1, timeout_s - _RESERVE_S)
    context = Context(
        environment=settings.process_environment() if environment is None else environment,
        privacy=privacy or Privacy(),
        root=root,
        store=store,
        log_backend=log_backend,
        pause=pause,
        keep_patch=keep_patch,
        ranks=ranks,
        # Its commands end before the section is given up, so that it says which of them took too long.
        timeout_s=max(0.1, until - started - 0.25),
    )
    collectors = [collector for collector in _COLLECTORS if is_whole or collector.is_own]
    sections = {section.name: section for section in _read_all(collectors, context, until)}
    snapshot: dict[str, Any] = {
        "schema": SCHEMA,
        "runstone": __version__,
        "writer": writer,
        "captured_at": started_at,
        "duration_ms": round((time.monotonic() - started) * 1000, 1),
    }
    why: dict[str, str] = {} if writer else {"writer": "absent: this snapshot belongs to no run"}
    for collector in _COLLECTORS:
        section = sections.get(collector.section, Section(collector.section, None, {collector.section: _ELSEWHERE}))
        snapshot[section.name] = section.values
        why |= section.why
    snapshot["why"] = why
    clean: dict[str, Any] = redact.tree(snapshot, home=context.home)
    return clean


def collect_changes(
    snapshot: Mapping[str, Any],
    *,
    privacy: Privacy | None = None,
    environment: Mapping[str, str] | None = None,
    pause: Callable[[], None] = no_pause,
    timeout_s: float = 5.0,
) -> dict[str, Any]:
    """Return what has changed since a snapshot of this process, of what a program changes after its first lines.

    Args:
        snapshot: What `collect` returned in this process.

    Returns:
        The sections that are not as they were, whole, with `captured_at`, `duration_ms` and `why` as in a snapshot;
        reasons are those of the sections in it.
    """
    started_at, started = time.time(), time.monotonic()
    context = Context(
        environment=settings.process_environment() if environment is None else environment,
        privacy=privacy or Privacy(),
        pause=pause,
        timeout_s=timeout_s,
    )
    why_before: Mapping[str, str] = snapshot.get("why") or {}
    collectors = [
        collector
        for collector in _COLLECTORS
        if collector.may_change and why_before.get(collector.section) != _ELSEWHERE
    ]
    changed: dict[str, Any] = {}
    why: dict[str, str] = {}
    for section in _read_all(collectors, context, started + timeout_s):
        told = redact.tree({section.name: section.values, "why": section.why}, home=context.home)
        before = {path: text for path, text in why_before.items() if path.split(".")[0] == section.name}
        # What hung or failed now is no news of the program.
        if section.is_complete and (told[section.name], told["why"]) != (snapshot.get(section.name), before):
            changed[section.name] = told[section.name]
            why |= told["why"]
    took_ms = round((time.monotonic() - started) * 1000, 1)
    return {"captured_at": started_at, "duration_ms": took_ms, **changed, "why": why}


def _read_all(collectors: Sequence[_Collector], context: Context, until: float) -> list[Section]:
    found: dict[str, Section] = {}
    keys: dict[str, Hashable] = {}
    readings: dict[str, _Reading] = {}

    def take(collector: _Collector, limit_s: float) -> None:
        left_s = max(0.0, min(limit_s, until - time.monotonic()))
        section = found[collector.section] = readings[collector.section].result(left_s)
        if section.is_complete:
            _known[collector.section] = (keys[collector.section], section)

    for collector in sorted(collectors, key=lambda collector: not collector.is_slow):
        context.pause()
        name = collector.section
        keys[name] = collector.same(context)
        known = _known.get(name)
        if known is not None and known[0] == keys[name]:
            found[name] = known[1]
            continue
        readings[name] = _Reading(collector, context)
        if not collector.is_slow:
            take(collector, _QUICK_S)
    for collector in collectors:
        if collector.section not in found:
            take(collector, until - time.monotonic())
    return [found[collector.section] for collector in collectors]
