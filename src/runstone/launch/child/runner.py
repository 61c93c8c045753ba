"""Runs a script as Python itself would: same arguments, paths, `__main__`, tracebacks and exit. Standard library only.

What is not the same: `sys._getframe` finds our frames below the script's, and `python -i`, standard input as a script
and `.pyc` files are not handled here; those run without this.
"""

# Nothing is imported that the interpreter has not loaded, `pathlib` least of all.
# ruff: noqa: PTH109, PTH112, PTH117, PTH118, PTH120, PTH123
from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # not `typing`'s: nothing is imported here that the interpreter has not loaded
    from types import TracebackType
    from typing import Any

_HERE = __file__.rpartition("/")[0] + "/"


def run(main: dict[str, Any], make_observer: Any) -> None:
    """Run what `sys.argv` names, in the module `__main__` whose names are `main`."""
    started_as, fd, *words = sys.argv
    os.set_inheritable(int(fd), False)  # for this process, not for those that it starts
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[-len(sys.argv) :] = words
    observer = make_observer(int(fd))
    observer.install()
    kind = words[0]
    is_path_unsafe = bool(sys.path) and sys.path[0] == os.path.dirname(started_as)
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]
    try:
        if kind == "-m":
            _run_module(words, is_path_unsafe)
        elif kind == "-c":
            _run_code(words, main, is_path_unsafe)
        elif os.path.isdir(kind) or kind.endswith((".zip", ".pyz")):
            _run_archive(words, is_path_unsafe)
        else:
            _run_script(words, main, is_path_unsafe)
    except SystemExit as ended:
        if not isinstance(ended.code, int) and ended.code is not None:
            observer.tell_failure("SystemExit", str(ended.code), "", ["SystemExit"])
        raise
    except BaseException as error:
        _print_as_python_does(error, observer)
        raise


def _run_script(words: list[str], main: dict[str, Any], is_path_unsafe: bool) -> None:
    path = words[0]
    sys.argv = words
    if is_path_unsafe:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    full = _absolute(path)
    main.update(__file__=full, __doc__=None, __cached__=None)
    main["__loader__"] = type(main["__loader__"])("__main__", full)
    with open(full, "rb") as file:
        source = file.read()
    exec(compile(source, full, "exec", dont_inherit=True), main)  # noqa: S102 - it is what the user asked for


def _run_code(words: list[str], main: dict[str, Any], is_path_unsafe: bool) -> None:
    sys.argv = ["-c", *words[2:]]
    if is_path_unsafe:
        sys.path[0] = ""
    del main["__file__"], main["__cached__"]
    main["__doc__"] = None
    main["__loader__"] = sys.modules["_frozen_importlib"].BuiltinImporter
    exec(compile(words[1], "<string>", "exec", dont_inherit=True), main)  # noqa: S102 - it is what the user asked for


def _run_module(words: list[str], is_path_unsafe: bool) -> None:
    sys.argv = ["-m", *words[2:]]
    if is_path_unsafe:
        sys.path[0] = os.getcwd()
    import runpy  # as Python does itself, with the script's path

    runpy._run_module_as_main(words[1])  # type: ignore[attr-defined]


def _run_archive(words: list[str], is_path_unsafe: bool) -> None:
    sys.argv = words
    sys.path[: 1 if is_path_unsafe else 0] = [_absolute(words[0])]
    import runpy  # as above

    runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]


def _absolute(path: str) -> str:
    """Return a path as Python names a script: not made shorter."""
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


# --- the end --------------------------------------------------------------------------------------------------------


def _print_as_python_does(error: BaseException, observer: Any) -> None:
    """Let the interpreter print the error as it always does, but without the frames of these files."""
    _strip(error, set())
    stripped = error.__traceback__
    hook = sys.excepthook

    def show(kind: type[BaseException], shown: BaseException, _trace: TracebackType | None) -> None:
        sys.excepthook = hook
        shown.__traceback__ = stripped
        sys.last_traceback = stripped
        hook(kind, shown, stripped)

    sys.excepthook = show
    observer.tell_error(error)


def _strip(error: BaseException | None, seen: set[int]) -> None:
    """Take the frames of these files out of a traceback, and out of those of its causes."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    error.__traceback__ = _without_ours(error.__traceback__)
    _strip(error.__cause__, seen)
    _strip(error.__context__, seen)


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    first = trace
    while trace is not None:
        following = trace.tb_next
        while following is not None and _is_ours(following):
            following = following.tb_next
        trace.tb_next = following
        trace = following
    return first


def _is_ours(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename.startswith(_HERE)
