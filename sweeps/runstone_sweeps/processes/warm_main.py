"""Runs a program in a forked process as the interpreter itself would have run it. Standard library only.

What a cold process does in C is done here again: how `__main__` looks, how an uncaught exception is shown, what exit
code it gives, and what happens at the end. Only the modules that the fork brought along are not torn down.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import os
import runpy
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from importlib.machinery import BuiltinImporter, ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from runstone_sweeps.processes.invocation import Invocation


class Program:
    """What the process is to run.

    Args:
        invocation: The command line.
        code: The compiled script, or module of this package; `None`: a module that is looked for first.
        spec: That of the module.
        known: Names of the modules that were there before the program.
        report: Told at the end which modules are there then.
    """

    def __init__(
        self,
        invocation: Invocation,
        *,
        code: CodeType | None,
        spec: ModuleSpec | None = None,
        known: frozenset[str],
        report: Callable[[list[str]], None] | None = None,
    ) -> None:
        self._invocation = invocation
        self._code = code
        self._spec = spec
        self._known = known
        self._report = report

    def run(self) -> NoReturn:
        """Run it and end the process."""
        code, error = 0, None
        main = ModuleType("__main__")
        # In the order in which the interpreter sets them, for who lists them.
        main.__dict__.update(__annotations__={}, __builtins__=builtins)
        main.__loader__ = BuiltinImporter
        sys.modules["__main__"] = main
        if "__mp_main__" in sys.modules:  # its other name, for what other processes send
            sys.modules["__mp_main__"] = main
        del main
        try:
            if self._code is None:
                runpy._run_module_as_main(self._invocation.target)  # type: ignore[attr-defined]
            elif self._spec is not None:
                self._run_module(self._code, self._spec)
            else:
                self._run_script(self._code)
        except BaseException as raised:
            error = raised
        is_interrupted = isinstance(error, KeyboardInterrupt)
        if self._invocation.kind == "script":
            _flush_quietly()
        if error is not None:  # here, where it is no longer being handled: a hook that fails has no context
            code = _shown(error)
        if self._invocation.kind == "script" and not isinstance(error, SystemExit):
            for name in ("__file__", "__cached__"):
                sys.modules["__main__"].__dict__.pop(name, None)
        del error
        code = self._end(code)
        if is_interrupted:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(code)

    def _run_module(self, code: CodeType, spec: ModuleSpec) -> None:
        """Do what `runpy` does once it has found a module."""
        main = sys.modules["__main__"]
        main.__dict__.update(
            __file__=spec.origin, __cached__=spec.cached, __loader__=spec.loader, __package__=spec.parent, __spec__=spec
        )
        sys.argv[0] = spec.origin or sys.argv[0]
        self._code = None
        exec(code, main.__dict__)  # noqa: S102  # this package's own

    def _run_script(self, code: CodeType) -> None:
        path = full_path(self._invocation.target)
        main = sys.modules["__main__"]
        main.__loader__ = SourceFileLoader("__main__", path)
        main.__file__ = path
        main.__dict__["__cached__"] = None
        self._code = None
        exec(code, main.__dict__)  # noqa: S102  # the user's script

    def _end(self, code: int) -> int:
        """Do what the interpreter does before it exits; return the exit code."""
        try:
            threading._shutdown()  # type: ignore[attr-defined]
        except BaseException as error:  # Ctrl-C, mostly
            sys.stderr.write("Exception ignored in: <module 'threading'>\n")
            sys.__excepthook__(type(error), error, error.__traceback__)
        atexit._run_exitfuncs()
        if self._report is not None:
            self._report(list(sys.modules))
        is_flushed = _flush()
        if threading.active_count() == 1:
            self._let_go()
        else:  # threads that nobody waits for would stumble over what is gone
            _flush_files()
        _flush_quietly()
        _flush_c()
        return code if is_flushed else 120

    def _let_go(self) -> None:
        """Let go of what the program's own modules hold: files are written out, `__del__` is called."""
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            sys.__dict__.pop(name, None)
        modules = sys.modules
        own = [name for name, module in modules.items() if name not in self._known and is_own(module)]
        weak = [weakref.ref(modules.pop(name)) for name in ("__main__", *own) if isinstance(modules[name], ModuleType)]
        gc.collect()
        for reference in weak:
            module = reference()
            if module is not None:
                _clear(module.__dict__)
        gc.collect()


def is_own(module: object) -> bool:
    """Tell whether a module is of the user's own files, neither installed nor a part of Python."""
    spec = getattr(module, "__spec__", None)
    file = getattr(spec, "origin", None)
    if not isinstance(file, str) or not getattr(spec, "has_location", False):
        return False
    if "/site-packages/" in file or "/dist-packages/" in file:
        return False
    return not file.startswith(os.path.dirname(os.__file__) + os.sep)  # noqa: PTH120  # strings all the way


def full_path(target: str) -> str:
    """Return the path of a script as `__main__.__file__` has it: absolute, nothing resolved."""
    if os.path.isabs(target):  # noqa: PTH117  # strings all the way
        return target
    return f"{os.getcwd()}/{target}"  # noqa: PTH109  # as above


def first_of_path(invocation: Invocation) -> str:
    """Return what the interpreter puts before `sys.path`: the folder of the script, or the working folder."""
    if invocation.kind == "module":
        return os.getcwd()  # noqa: PTH109  # as above
    return os.path.dirname(os.path.realpath(invocation.target))  # noqa: PTH120  # as above


def encoded(variables: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return variables as the system keeps them."""
    return {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}


def set_environment(variables: Mapping[bytes, bytes]) -> None:
    """Make these the whole environment, for Python and for C, in this order. What stays is left alone: it is faster."""
    # What `os.environ` knows, which a new process reads from C.
    known = os.environ._data  # type: ignore[attr-defined]
    for name in known.keys() - variables.keys():
        os.unsetenv(name)
    for name, value in variables.items():
        if known.get(name) != value:
            os.putenv(name, value)
    known.clear()
    known.update(variables)


def renew() -> None:
    """Set anew what modules noted when they were imported, and what forks of one process would otherwise share.

    `random`, `tempfile` and `uuid` see to themselves.
    """
    numpy: Any = sys.modules.get("numpy.random.mtrand")
    if numpy is not None:
        numpy.seed()
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "default_generator"):
        torch.default_generator.seed()
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]
    logging: Any = sys.modules.get("logging")
    if logging is not None and isinstance(getattr(logging, "_startTime", None), float):
        logging._startTime = time.time()
    processes: Any = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes.ORIGINAL_DIR = os.getcwd()  # noqa: PTH109  # as above


def _shown(error: BaseException) -> int:
    """Show an uncaught exception as the interpreter does, without the frames of this module; return the exit code."""
    if isinstance(error, SystemExit):
        return _exit_code(error)
    trace = _without_ours(error.__traceback__)
    error.__traceback__ = trace
    kind = type(error)
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    hook = getattr(sys, "excepthook", None)
    try:
        if hook is None:
            sys.stderr.write("sys.excepthook is missing\n")
            sys.__excepthook__(kind, error, trace)
        else:
            hook(kind, error, trace)
    except SystemExit as ending:
        return _exit_code(ending)
    except BaseException as failed:
        failed.__traceback__ = failed.__traceback__ and failed.__traceback__.tb_next
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(failed), failed, failed.__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(kind, error, trace)
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    return 1


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _exit_code(error: SystemExit) -> int:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF if -(2**63) <= error.code < 2**63 else 0xFF
    with contextlib.suppress(Exception):
        sys.stderr.write(str(error.code))
        sys.stderr.flush()
        sys.stderr.write("\n")
        sys.stderr.flush()
    return 1


def _flush() -> bool:
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except Exception as error:
        what = "on flushing sys.stdout:" if sys.version_info >= (3, 13) else f"in: {sys.stdout!r}"
        with contextlib.suppress(Exception):
            sys.stderr.write(f"Exception ignored {what}\n")
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return False
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    return True


def _flush_quietly() -> None:
    for stream in (sys.stderr, sys.stdout):
        with contextlib.suppress(Exception):
            stream.flush()


def _flush_files() -> None:
    from io import IOBase

    for each in gc.get_objects():
        if isinstance(each, IOBase):
            with contextlib.suppress(Exception):
                each.flush()


def _flush_c() -> None:
    """Write out what C code printed and holds back, since a file is not a terminal."""
    ctypes: Any = sys.modules.get("ctypes")
    if ctypes is not None:
        with contextlib.suppress(Exception):
            ctypes.CDLL(None).fflush(None)


def _clear(names: dict[str, Any]) -> None:
    """Let go of a module's names in the interpreter's order: private ones first."""
    for is_private in (True, False):
        for name in list(names):
            if name != "__builtins__" and (name[:1] == "_" and name[1:2] != "_") >= is_private:
                names[name] = None
