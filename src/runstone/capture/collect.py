"""Runs every collector, each where it cannot hold up another, and puts the sections together."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runstone import settings
from runstone._version import __version__
from runstone.capture import redact
from runstone.capture.cgroup import read_cgroup
from runstone.capture.code import read_git
from runstone.capture.container import container_key, read_container
from runstone.capture.context import Context, Privacy, no_pause
from runstone.capture.disk import disk_key, read_disk, renew_disk
from runstone.capture.facts import Facts, Missing, Section, explain
from runstone.capture.frameworks import read_blas, read_frameworks
from runstone.capture.gpu import read_gpu
from runstone.capture.handover import Handover, open_handover
from runstone.capture.host import cpu_key, read_cpu, read_limits, read_memory, read_os, renew_memory, renew_os
from runstone.capture.packages import conda_key, packages_key, read_conda, read_packages
from runstone.capture.process import read_identity, read_notebook, read_process, read_rank
from runstone.capture.python import python_key, read_python
from runstone.capture.scheduler import read_scheduler
from runstone.capture.unchanged import checkout_key, holds, make_witness
from runstone.capture.variables import read_variables

SCHEMA = 1
_QUICK_S = 1.0
# Kept back for putting together and writing.
_RESERVE_S = 0.25
# What an administrator may change while a sweep runs (limits, power of a GPU) is read anew so often.
_KEEP_S = 60.0
_ELSEWHERE = "absent: another rank of this host tells it"


def _cuda_variables(context: Context) -> Hashable:
    names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
    return (*map(context.environment.get, names), context.privacy.keep_serials)


def _is_never_the_same(_: Context) -> Hashable:
    return object()


@dataclass(frozen=True, slots=True)
class _Sharing:
    """How processes of one host hand a section to each other; see `runstone.capture.handover`.

    Attributes:
        key: Who has an equal one may take the section over.
        keep_s: For so long; a key that tells of every change is good for ever.
        renew: Sets in its values what is of the moment, or of this process. Without: there is no such thing.
    """

    key: Callable[[Context], object]
    keep_s: float = _KEEP_S
    renew: Callable[[dict[str, Any], Context], None] | None = None


def _nothing(_: Context) -> None:
    """Be the key of what all processes of a host and container have in common."""


@dataclass(frozen=True, slots=True)
class _Collector:
    """How one section comes about.

    Attributes:
        same: Equal answers say that the section has not changed within this process, and is not read again.
        is_slow: It waits for programs or drivers, or asks much of the disk: it runs beside the others, with all the
            time there is.
        is_own: It tells of this process; the others tell of the host and of the code, which its ranks share.
        may_change: A program changes it after its first lines; a second look is taken at it.
        sharing: Who else of this host may have it.
    """

    section: str
    read: Callable[[Facts, Context], None]
    same: Callable[[Context], Hashable] = _is_never_the_same
    is_slow: bool = False
    is_own: bool = False
    may_change: bool = False
    sharing: _Sharing | None = None


def _conda_key(context: Context) -> Hashable:
    return packages_key(), context.environment.get("CONDA_PREFIX")


def _packages_key(_: Context) -> Hashable:
    return packages_key()


# In the order of the snapshot. The first that is slow starts first.
_COLLECTORS = (
    _Collector("rank", read_rank, is_own=True),
    _Collector("identity", read_identity, is_own=True),
    _Collector("process", read_process, is_own=True),
    _Collector("git", read_git, is_slow=True, sharing=_Sharing(checkout_key, keep_s=math.inf)),
    _Collector("python", read_python, sharing=_Sharing(python_key)),
    _Collector("frameworks", read_frameworks, is_own=True, may_change=True),
    _Collector("gpu", read_gpu, same=_cuda_variables, is_slow=True, is_own=True, sharing=_Sharing(_cuda_variables)),
    _Collector("os", read_os, sharing=_Sharing(_nothing, renew=renew_os)),
    _Collector("cpu", read_cpu, sharing=_Sharing(cpu_key)),
    _Collector("memory", read_memory, sharing=_Sharing(_nothing, renew=renew_memory)),
    _Collector("cgroup", read_cgroup, sharing=_Sharing(_nothing)),
    _Collector("limits", read_limits),
    _Collector("disk", read_disk, sharing=_Sharing(disk_key, renew=renew_disk)),
    _Collector("container", read_container, sharing=_Sharing(container_key)),
    _Collector("scheduler", read_scheduler),
    _Collector("notebook", read_notebook),
    _Collector("env", read_variables, is_own=True, may_change=True),
    _Collector("blas", read_blas, is_own=True, may_change=True),
    _Collector("conda", read_conda, same=_conda_key, is_slow=True, sharing=_Sharing(conda_key)),
    _Collector(
        "packages",
        read_packages,
        same=_packages_key,
        is_slow=True,
        may_change=True,
        sharing=_Sharing(_packages_key, keep_s=math.inf),
    ),
)


# Sections that do not change while the process lives, for its second run. Each is replaced whole, so that threads
# and forked children see it as it was or as it is.
_known: dict[str, tuple[Hashable, Section]] = {}


class _Reader:
    """A thread in which collectors work one after another. Where one hangs it is left behind, with those after it."""

    def __init__(self, collectors: Sequence[_Collector], context: Context) -> None:
        self._context = context
        self._is_left_behind = False
        self._jobs: dict[str, tuple[_Collector, Facts, threading.Lock]] = {}
        for collector in collectors:
            is_read = threading.Lock()
            is_read.acquire()
            self._jobs[collector.section] = (collector, Facts(collector.section), is_read)
        # A daemon: what hangs in a driver does not keep the process from ending.
        threading.Thread(target=self._work, name=f"runstone-{collectors[0].section}", daemon=True).start()

    def _work(self) -> None:
        for collector, facts, is_read in self._jobs.values():
            if self._is_left_behind:
                return
            self._context.pause()
            try:
                collector.read(facts, self._context)
            except Exception as error:
                facts.fail(explain(error))
            finally:
                is_read.release()

    def result(self, section: str, timeout_s: float) -> Section:
        """Return a section, cleaned; what has not been read after `timeout_s` is missing from it."""
        _, facts, is_read = self._jobs[section]
        is_there = is_read.acquire(timeout=max(0.0, timeout_s))
        self._is_left_behind = not is_there
        reason = None if is_there else f"timeout: no answer within {timeout_s:.1f} s"
        return _clean(facts.close(timeout_reason=reason), self._context)


def _clean(section: Section, context: Context) -> Section:
    """Return a section without secrets."""
    values, why = redact.tree([section.values, section.why], home=context.home)
    return replace(section, values=values, why=why)


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
    handed_over: Path | None = None,
    timeout_s: float = 5.0,
) -> dict[str, Any]:
    """Return a snapshot; `runstone.capture.snapshot` says what is in it and what most arguments mean.

    Args:
        root: Where `/proc`, `/sys`, `/etc` and `/run` are looked for.
        ranks: See `Context`.
        is_whole: `False`: only what this process is; another rank of its host tells the rest.
        pause: Called between small steps.
        keep_patch: Stores the patch and returns the name of its file.
        handed_over: Folder in which processes of this host hand each other what they read.
    """
    started_at, started = time.time(), time.monotonic()
    until = started + max(0.1, timeout_s - _RESERVE_S)
    patches: list[bytes] = []

    def keep(patch: bytes) -> str:
        patches.append(patch)
        return keep_patch(patch) if keep_patch is not None else ""

    context = Context(
        environment=settings.process_environment() if environment is None else environment,
        privacy=privacy or Privacy(),
        root=root,
        store=store,
        log_backend=log_backend,
        pause=pause,
        keep_patch=keep if keep_patch is not None else None,
        ranks=ranks,
        # Its commands end before the section is given up, so that it says which of them took too long.
        timeout_s=max(0.1, until - started - 0.25),
    )
    collectors = [collector for collector in _COLLECTORS if is_whole or collector.is_own]
    handover = open_handover(handed_over, context)
    taken = _take_over(collectors, context, handover) if handover is not None else {}
    sections = taken | _read_all([each for each in collectors if each.section not in taken], context, until)
    if handover is not None:
        read = [sections[each.section] for each in collectors if each.section not in taken]
        _hand_over(read, started_at, patches[-1] if patches else b"", context, handover)
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
    return snapshot


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
    for section in _read_all(collectors, context, started + timeout_s).values():
        before = {path: text for path, text in why_before.items() if path.split(".")[0] == section.name}
        # What hung or failed now is no news of the program.
        if section.is_complete and (section.values, section.why) != (snapshot.get(section.name), before):
            changed[section.name] = section.values
            why |= section.why
    took_ms = round((time.monotonic() - started) * 1000, 1)
    return {"captured_at": started_at, "duration_ms": took_ms, **changed, "why": why}


def _read_all(collectors: Sequence[_Collector], context: Context, until: float) -> dict[str, Section]:
    """Return the sections by name: those that wait for others are read beside each other, the quick ones in turn."""
    found: dict[str, Section] = {}
    keys = {collector.section: collector.same(context) for collector in collectors}
    for collector in collectors:
        known = _known.get(collector.section)
        if known is not None and known[0] == keys[collector.section]:
            found[collector.section] = known[1]
    wanted = [collector for collector in collectors if collector.section not in found]
    slow = {each.section: _Reader([each], context) for each in wanted if each.is_slow}
    quick = [each for each in wanted if not each.is_slow]
    while quick:
        reader = _Reader(quick, context)
        while quick:
            name = quick.pop(0).section
            found[name] = reader.result(name, min(_QUICK_S, until - time.monotonic()))
            if not found[name].is_complete:
                break  # those after it are read by another thread
    for name, reader in slow.items():
        found[name] = reader.result(name, until - time.monotonic())
    for collector in wanted:
        if found[collector.section].is_complete:
            _known[collector.section] = (keys[collector.section], found[collector.section])
    return found


# --- what other processes of this host know ---------------------------------------------------------------------------
def _take_over(collectors: Sequence[_Collector], context: Context, handover: Handover) -> dict[str, Section]:
    """Return the sections that nobody has to read again, with what is of the moment renewed."""
    found: dict[str, Section] = {}
    for collector in collectors:
        name, sharing = collector.section, collector.sharing
        if sharing is None:
            continue
        section = handover.take(name, sharing.key(context), keep_s=sharing.keep_s)
        if section is not None and name == "git":
            section = _unchanged_git(section, context, handover)
        if section is not None and sharing.renew is not None and section.values is not None:
            try:
                sharing.renew(section.values, context)
            except (Missing, OSError, ValueError, LookupError, TypeError):  # read as a whole it says why
                continue
            section = _clean(section, context)
        if section is not None:
            found[name] = section
    return found


def _unchanged_git(section: Section, context: Context, handover: Handover) -> Section | None:
    """Return the section with the patch of this run, if the checkout is as it was then."""
    witness = handover.witness("git")
    if witness is None or not holds(witness):
        handover.be_patient()
        return None
    diff = section.values and section.values.get("diff")
    if not section.values or not isinstance(diff, dict) or not diff.get("file"):
        return section
    patch = handover.patch(witness.get("patch", ""))
    if patch is None or context.keep_patch is None:
        return None
    return replace(section, values=section.values | {"diff": diff | {"file": context.keep_patch(patch)}})


def _hand_over(read: Sequence[Section], began_at: float, patch: bytes, context: Context, handover: Handover) -> None:
    """Keep what was read for the processes that come later."""
    sharings = {collector.section: collector.sharing for collector in _COLLECTORS}
    for section in read:
        sharing, witness = sharings[section.name], None
        if sharing is None:
            continue
        if section.name == "git":
            witness = make_witness(section, context, since=began_at) if handover.may_witness() else None
            if witness is None:
                handover.be_patient()
                continue
        handover.add(section, sharing.key(context), witness=witness, patch=patch)
    handover.save()
