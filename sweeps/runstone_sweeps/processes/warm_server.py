"""The process that has imported what trials need, and forks one for each. Standard library only, apart from those.

It runs no operation, starts no thread and opens no device, so a fork of it is as good as a new process. The supervisor
starts it with the interpreter's options, the folder and the environment that trials get, and talks to it in JSON lines:

    to it     {"preload": [module, …], "learns", "argv"} first
              {"number", "argv", "env", "cwd", "console"} for each trial
    from it   {"ready": modules} | {"unfit": reason}        {"refused": number, "reason"}: start it cold
              {"started": number, "pid"}, by the trial itself        {"exited": pid, "code", "cpu_s", "max_rss_bytes"}

When nothing more is sent it goes on until its last trial has ended. When the supervisor dies the system kills it, and
its trials with it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import weakref
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import CodeType
from typing import Any

from runstone_sweeps.processes.imports import OWN, find_imports
from runstone_sweeps.processes.invocation import Invocation, read_invocation
from runstone_sweeps.processes.linux import Listing, children_of, die_with_parent, find_prctl
from runstone_sweeps.processes.warm_main import (
    Program,
    encoded,
    first_of_path,
    full_path,
    is_own,
    renew,
    set_environment,
)

# The first trials tell what they load later than at their top; those after them find it there.
_LEARN_FROM = 3
_at_exit = atexit.register
# Threads that hold still at a fork and are started again by it: jemalloc's own, which pyarrow's pool of memory has.
_FORK_SAFE = frozenset({"jemalloc_bg_thd"})
_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri", "/dev/accel", "/dev/neuron")


class Unfit(Exception):
    """This process must not be forked; says why."""


class WarmServer:
    """Serves one supervisor.

    Args:
        requests: Where they come from.
        reports: Pipe that takes the answers, of this process and of its forks: a line is written in one piece.
        parent: The supervisor.
        early: Modules that every interpreter has loaded before it looks at a script.
    """

    def __init__(self, requests: socket.socket, reports: int, parent: int, early: frozenset[str]) -> None:
        self._requests = requests
        self._reports = reports
        self._prctl = find_prctl()
        die_with_parent(self._prctl, parent)
        self._received = b""
        self._trials: dict[int, int | None] = {}
        self._scripts: dict[str, tuple[bytes, CodeType | None, str | None]] = {}
        self._own: dict[str, tuple[CodeType | None, ModuleSpec | None]] = {}
        self._places: dict[str, int] = {}
        self._said = b""
        self._known: frozenset[str] = frozenset()
        self._early = early
        self._unfit: str | None = None
        self._installed = _installed_at()
        self._to_learn = 0
        self._finalizers: list[Any] = []
        self._listing = Listing()
        # The interpreter sets it for itself where the locale is C.
        self._locale = {name: os.environb[name] for name in (b"LC_CTYPE",) if name in os.environb}
        self._pid = os.getpid()

    # --- before the first trial ------------------------------------------------------------------------------------

    def prepare(self) -> bool:
        """Import what is to be there; tell whether trials may be forked."""
        request = self._next_request()
        if request is None:
            return False
        if not sys.flags.safe_path and sys.path[:1] == [""]:
            del sys.path[0]  # that of `-c`, which no trial has
        sys.argv = [request["argv"][0]]
        self._to_learn = _LEARN_FROM if request["learns"] else -_LEARN_FROM
        atexit.register = self._register
        try:
            for entry in request["preload"]:
                _import(entry)
            self._settle()
        except Unfit as error:
            self._report({"unfit": str(error)})
            return False
        self._said = _taken_output()
        self._report({"ready": len(self._known)})
        return True

    def _settle(self) -> None:
        """Make sure that a fork of this process is as good as a new one, and that it shares what it can."""
        # Thread pools of linear algebra end at a fork, and come back when they are needed.
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if names := _foreign_threads(self._pid):
            more = f"{len(names)} threads" if len(names) > 1 else "a thread"
            raise Unfit(f"the modules started {more} when they were imported: {', '.join(sorted(set(names)))}")
        if set(children_of(self._pid)) - self._trials.keys():
            raise Unfit("the modules started processes when they were imported")
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # as above
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith(_DEVICES):  # noqa: PTH115  # as above
                    raise Unfit("the modules opened a GPU when they were imported")
        torch: Any = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            raise Unfit("the modules initialised CUDA when they were imported")
        # What clears up after an object that was made here is for this process to do, not for each fork.
        for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
            if finalizer.atexit:
                finalizer.atexit = False
                self._finalizers.append(finalizer)
        self._known = frozenset(sys.modules)
        gc.collect()
        gc.freeze()  # the collector of a fork has no business with what it shares

    def _register(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Stand in for `atexit.register`, so that the first trial that ends does not remove what all were given."""
        if function in (shutil.rmtree, os.remove, os.unlink, os.rmdir):
            _at_exit(lambda: function(*args, **kwargs) if os.getpid() == self._pid else None)
        else:
            _at_exit(function, *args, **kwargs)
        return function

    # --- serving ---------------------------------------------------------------------------------------------------

    def serve(self) -> Program | None:
        """Fork trials until no more can come. Returns in each of them with what it is to run, else with `None`."""
        wake_read, wake_write = os.pipe()
        for end in (wake_read, wake_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        gc.disable()  # a collection in a fork, before its program, would copy pages for nothing
        is_open = True
        while is_open or self._trials:
            if b"\n" not in self._received:
                waited = [wake_read, self._requests.fileno()] if is_open else [wake_read]
                ready = select.select(waited, [], [])[0]
                if wake_read in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                self._reap()
                if self._requests.fileno() not in ready:
                    continue
            request = self._next_request()
            if request is None:
                is_open = False
            elif (program := self._start(request, (wake_read, wake_write))) is not None:
                return program
        for finalizer in self._finalizers:
            finalizer.atexit = True
        return None

    def _start(self, request: dict[str, Any], wake: tuple[int, int]) -> Program | None:
        invocation = read_invocation(request["argv"])
        if _installed_at() != self._installed:
            self._report(
                {"refused": request["number"], "is_stale": True, "reason": "packages were installed meanwhile"}
            )
            return None
        code, reason, spec = None, self._unfit, None
        if invocation is None:
            reason = "a fork cannot stand in for its command"
        elif reason is None:
            if invocation.kind == "script":
                code, reason = self._script(invocation)
            elif invocation.target.startswith("runstone_sweeps."):
                code, spec = self._own_module(invocation.target)
            reason = reason or self._shadow(first_of_path(invocation))
        if invocation is None or reason is not None:
            self._report({"refused": request["number"], "reason": reason})
            return None
        lessons = os.memfd_create("runstone-lessons") if self._to_learn > 0 else None
        # Before the fork: each object that a fork touches costs it a copy of the page that holds it.
        variables, argv = encoded(request["env"]), [os.fsencode(word) for word in request["argv"]]
        try:
            pid = os.fork()
        except OSError as error:
            self._report({"refused": request["number"], "reason": f"it cannot fork: {error.strerror}"})
            return None
        if pid == 0:
            return self._become(request, invocation, (code, spec), wake, lessons, argv, variables)
        self._trials[pid] = lessons
        return None

    def _become(
        self,
        request: dict[str, Any],
        invocation: Invocation,
        program: tuple[CodeType | None, ModuleSpec | None],
        wake: tuple[int, int],
        lessons: int | None,
        argv: list[bytes],
        variables: dict[bytes, bytes],
    ) -> Program:
        """Turn this fork into the trial's process, up to its first line."""
        try:
            os.setsid()
            die_with_parent(self._prctl, self._pid)
            console = os.open(request["console"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(console, 1)
            os.dup2(console, 2)
            os.close(console)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._report({"started": request["number"], "pid": os.getpid()})
            self._requests.close()
            lists = [lessons, *self._trials.values()]
            for fd in (self._reports, *wake, *(each for each in lists if each is not None)):
                os.close(fd)
            set_environment({**variables, **self._locale})
            self._listing.show(argv, variables)
            atexit.register = _at_exit
            sys.argv = [invocation.target, *invocation.arguments]
            sys.orig_argv = list(request["argv"])
            if not sys.flags.safe_path:
                sys.path.insert(0, first_of_path(invocation))
            renew()
            if self._said:
                os.write(2, self._said)
        except BaseException as error:  # the fork of a server must never go on as one
            os.write(2, f"the trial could not be started: {error!r}\n".encode())
            os._exit(127)
        gc.enable()
        report = None if lessons is None else lambda names: self._tell(names, lessons)
        code, spec = program
        return Program(invocation, code=code, spec=spec, known=self._known, report=report)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self._trials:
                continue
            self._report(
                {
                    "exited": pid,
                    "code": os.waitstatus_to_exitcode(status),
                    "cpu_s": usage.ru_utime + usage.ru_stime,
                    "max_rss_bytes": usage.ru_maxrss * 1024,
                }
            )
            lessons = self._trials.pop(pid)
            if lessons is not None:
                self._learn(lessons)

    # --- what may change between trials ----------------------------------------------------------------------------

    def _script(self, invocation: Invocation) -> tuple[CodeType | None, str | None]:
        """Return the compiled script, or why it must start cold: what cannot be compiled Python itself says best."""
        path = full_path(invocation.target)
        try:
            with open(path, "rb") as file:  # noqa: PTH123  # each import costs every trial
                text = file.read()
        except OSError:
            return None, f"{invocation.target} cannot be read"
        known = self._scripts.get(path)
        if known is not None and known[0] == text:
            return known[1], known[2]
        reason = None
        if known is not None:  # it was changed since the sweep looked at it
            from pathlib import Path

            reason = find_imports(Path(path), folders=[first_of_path(invocation), *sys.path]).reason
            self._to_learn += _LEARN_FROM
        code = None
        try:
            code = compile(text, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            reason = reason or f"{invocation.target} cannot be compiled"
        self._scripts[path] = (text, code, reason)
        gc.freeze()
        return code, reason

    def _own_module(self, name: str) -> tuple[CodeType | None, ModuleSpec | None]:
        """Return the code and spec of a module of this package, looked for once and not by each trial."""
        if name not in self._own:
            self._own[name] = None, None  # what is not there the trial itself says best
            with contextlib.suppress(ImportError):
                spec = importlib.util.find_spec(name)
                loader: Any = spec.loader if spec is not None else None
                if hasattr(loader, "get_code"):
                    self._own[name] = loader.get_code(name), spec
            gc.freeze()
        return self._own[name]

    def _shadow(self, folder: str) -> str | None:
        """Return which of the modules here would be another in a cold start, where the script's folder comes first."""
        try:
            changed = os.stat(folder).st_mtime_ns  # noqa: PTH116  # as above
            if self._places.get(folder) == changed:
                return None
            names = {name.partition(".")[0] for name in os.listdir(folder) if name.endswith(".py") or "." not in name}  # noqa: PTH208
        except OSError:
            return None
        loaded = {name.partition(".")[0] for name in self._known - self._early}
        for name in sorted(names & loaded):
            if os.path.isfile(f"{folder}/{name}.py") or os.path.isfile(f"{folder}/{name}/__init__.py"):  # noqa: PTH113
                return f"{name} in the script's folder stands in for the installed module"
        self._places[folder] = changed
        return None

    # --- learning --------------------------------------------------------------------------------------------------

    def _tell(self, names: list[str], lessons: int) -> None:
        """Called in a trial at its end: write down what it loaded that does not belong to the user, and compiled."""
        found = []
        for name in names:
            module = sys.modules.get(name)
            if name in self._known or name in ("__main__", "__mp_main__") or getattr(module, "__spec__", None) is None:
                continue
            if name.partition(".")[0] in OWN or not is_own(module):
                found.append(name)
        with contextlib.suppress(OSError), open(f"/proc/{self._pid}/fd/{lessons}", "wb") as file:  # noqa: PTH123
            file.write(json.dumps({"modules": found, "patterns": _patterns()}).encode())

    def _learn(self, lessons: int) -> None:
        """Import what a trial had to load by itself, for those after it."""
        self._to_learn -= 1
        with os.fdopen(lessons, "rb") as file:
            file.seek(0)
            text = file.read()
        try:
            told = json.loads(text)
        except ValueError:
            return  # it was killed
        names = [name for name in told["modules"] if name not in sys.modules]
        for pattern, flags in told["patterns"]:
            with contextlib.suppress(Exception):
                re.compile(pattern, flags)
        if not names:
            return
        for name in names:
            with contextlib.suppress(Exception):
                _import(name)
        gc.unfreeze()
        try:
            self._settle()
        except Unfit as error:
            self._unfit = f"{error}, after a trial had loaded {', '.join(names[:3])}"
            self._report({"unfit": self._unfit, "is_learned": True})
        self._places.clear()
        _taken_output()

    # --- words -----------------------------------------------------------------------------------------------------

    def _next_request(self) -> dict[str, Any] | None:
        while b"\n" not in self._received:
            data = self._requests.recv(1 << 18)
            if not data:
                return None
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        request: dict[str, Any] = json.loads(line)
        return request

    def _report(self, told: dict[str, Any]) -> None:
        os.write(self._reports, json.dumps(told).encode() + b"\n")


def _import(entry: str) -> None:
    name, _, taken = entry.partition(":")
    try:
        module = importlib.import_module(name)
        if taken and not hasattr(module, taken):
            __import__(name, {}, {}, [taken], 0)  # a module inside it; or nothing, which the trial itself finds out
    except BaseException as error:
        raise Unfit(f"import {name} failed: {type(error).__name__}: {error}") from None


def _patterns() -> list[tuple[str, int]]:
    """Return the regular expressions that are compiled here; each process would compile them once more."""
    known: dict[Any, Any] = getattr(re, "_cache", {})
    return [(key[1], int(key[2])) for key in list(known) if len(key) == 3 and isinstance(key[1], str)]


def _taken_output() -> bytes:
    """Return what was printed so far; this process's own output is a file in memory."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    size = os.fstat(1).st_size
    said = os.pread(1, size, 0) if size else b""
    os.ftruncate(1, 0)
    return said


def _installed_at() -> list[int]:
    """Return when something was last installed or removed."""
    folders = [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]
    found = []
    for folder in folders:
        with contextlib.suppress(OSError):
            found.append(os.stat(folder).st_mtime_ns)  # noqa: PTH116  # strings all the way
    return found


def _foreign_threads(pid: int) -> list[str]:
    """Return the names of the threads beside the main one that a fork would lack."""
    found = []
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208  # strings all the way
        if task == str(pid):
            continue
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/comm") as file:  # noqa: PTH123  # as above
            name = file.read().strip()
            if name not in _FORK_SAFE:
                found.append(name)
    return found


def serve(requests: int, reports: int, parent: int, early: frozenset[str]) -> Program | None:
    """Be a server; returns in each of its forks with what that is to run."""
    server = WarmServer(socket.socket(fileno=requests), reports, parent, early)
    return server.serve() if server.prepare() else None
