"""What a program imports, found in its text. Executes nothing. Standard library only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NamedTuple

from runstone_sweeps.processes.invocation import matters_at_import

OWN = frozenset({"runstone", "runstone_integrations", "runstone_sweeps"})
# More files than that are a library, not the program of a trial.
_MOST_FILES = 300
# These start something when they are imported that a fork would share.
_UNSAFE = {"mpi4py": "MPI", "horovod": "MPI", "deepspeed": "its launcher"}


class Imports(NamedTuple):
    """What a program would load, and why that must not be done ahead of it.

    Attributes:
        modules: Installed modules in the order in which they are imported: `torch`, or `transformers:AutoModel` where a
            name is taken from one.
        reason: Why they must be imported by each process anew; `None` where they need not be.
    """

    modules: tuple[str, ...]
    reason: str | None


def find_imports(file: Path, *, folders: Sequence[str]) -> Imports:
    """Return the installed modules that a Python file and its user's own modules import at their top level.

    Modules that lie in no `site-packages` are the user's own: they may change between two trials, and they read what
    the trial is told, so they are searched for imports and never named themselves.

    Args:
        file: The script, or the module that is run.
        folders: Where modules are found, in order, as `sys.path` would have it.
    """
    search = _Search(folders)
    search.read(file, package="")
    return Imports(tuple(dict.fromkeys(search.modules)), search.reason)


class _Search:
    """One walk over the files of a program, in the order in which they would be executed."""

    def __init__(self, folders: Sequence[str]) -> None:
        self.modules: list[str] = []
        self.reason: str | None = None
        self._folders = list(folders)
        self._seen: set[Path] = set()
        self._change: str | None = None

    def read(self, file: Path, package: str) -> None:
        if file in self._seen or len(self._seen) >= _MOST_FILES:
            return
        self._seen.add(file)
        try:
            tree = ast.parse(file.read_bytes(), str(file))
        except (OSError, SyntaxError, ValueError):
            return  # the trial itself tells
        for node in ast.walk(tree):
            name = _variable_set(node)
            if name is not None and matters_at_import(name):
                self._give_up(f"{file.name} sets {name}, line {getattr(node, 'lineno', 0)}")
        for statement in _executed(tree.body):
            if isinstance(statement, ast.Import):
                for alias in statement.names:
                    self._import(alias.name, ())
            elif isinstance(statement, ast.ImportFrom):
                module = statement.module or ""
                if statement.level:
                    parents = package.split(".")[: len(package.split(".")) - statement.level + 1]
                    module = ".".join([*filter(None, parents), *filter(None, [module])])
                if module and module != "__future__":
                    self._import(module, tuple(alias.name for alias in statement.names if alias.name != "*"))
            elif (change := _change_of_process(statement)) is not None and self._change is None:
                self._change = f"{file.name} {change}, line {statement.lineno},"

    def _import(self, name: str, taken: Sequence[str]) -> None:
        top = name.partition(".")[0]
        if top in _UNSAFE:
            self._give_up(f"{top} starts {_UNSAFE[top]} when it is imported")
        spec = PathFinder.find_spec(top, self._folders)
        if spec is None:
            return  # part of the interpreter, or not there
        if top in OWN or _is_installed(spec):
            if top not in OWN and self._change is not None:
                self._give_up(f"{self._change} before it imports {top}")
            self.modules += [name, *(f"{name}:{each}" for each in taken)]
        elif spec.origin is None or not _is_stdlib(spec):
            self._read_own(name, taken, spec)

    def _read_own(self, name: str, taken: Sequence[str], spec: ModuleSpec | None) -> None:
        """Read a module of the user's, the packages around it, and modules inside it that are imported by name."""
        pieces = name.split(".")
        for depth in range(1, len(pieces) + 1):
            if depth > 1:
                places = spec.submodule_search_locations if spec is not None else None
                spec = PathFinder.find_spec(".".join(pieces[:depth]), places) if places is not None else None
            if spec is None:
                return
            if spec.origin is not None and spec.origin.endswith(".py"):
                is_package = spec.submodule_search_locations is not None
                own = ".".join(pieces[:depth]) if is_package else ".".join(pieces[: depth - 1])
                self.read(Path(spec.origin), own)
        if spec is not None and spec.submodule_search_locations is not None:
            for each in taken:
                inner = PathFinder.find_spec(f"{name}.{each}", spec.submodule_search_locations)
                if inner is not None and inner.origin is not None and inner.origin.endswith(".py"):
                    is_package = inner.submodule_search_locations is not None
                    self.read(Path(inner.origin), f"{name}.{each}" if is_package else name)

    def _give_up(self, reason: str) -> None:
        self.reason = self.reason or reason


def _executed(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that an import of the file would execute, those inside `if`, `try` and `with` too."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield statement
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from _executed(statement.orelse)
            continue
        for part in ("body", "handlers", "orelse", "finalbody"):
            for inner in getattr(statement, part, ()):
                yield from _executed(inner.body if isinstance(inner, ast.ExceptHandler) else [inner])


def _variable_set(node: ast.AST) -> str | None:
    """Return the name of the environment variable that a piece of code sets or removes, where it is written out."""
    found: ast.expr | None = None
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) and _is_environ(node.value):
        found = node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        method, owner = node.func.attr, node.func.value
        if (method in ("setdefault", "pop") and _is_environ(owner)) or method in ("putenv", "unsetenv"):
            found = node.args[0]
    return found.value if isinstance(found, ast.Constant) and isinstance(found.value, str) else None


def _change_of_process(statement: ast.stmt) -> str | None:
    """Return what a statement at the top level changes of the process, in a way that cannot be seen through."""
    if isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While | ast.ClassDef):
        return None  # their bodies come by themselves
    for node in ast.walk(statement):
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            if _is_environ(node.value) and _variable_set(node) is None:
                return "sets environment variables"
            if ast.unparse(node.value) == "sys.path":
                return "changes sys.path"
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node) == "sys.path":
            return "changes sys.path"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("sys.path.insert", "sys.path.extend", "site.addsitedir"):
            return "changes sys.path"
        if called.rpartition(".")[2] == "load_dotenv":
            return "sets environment variables"
        owner, _, method = called.rpartition(".")
        is_hidden = method in ("update", "clear") or (method in ("setdefault", "pop") and _variable_set(node) is None)
        if is_hidden and owner.rpartition(".")[2] == "environ":
            return "sets environment variables"
    return None


def _is_environ(node: ast.expr) -> bool:
    return ast.unparse(node).rpartition(".")[2] in ("environ", "environb")


def _is_installed(spec: ModuleSpec) -> bool:
    places = [spec.origin] if spec.origin is not None else list(spec.submodule_search_locations or ())
    return any(part in ("site-packages", "dist-packages") for place in places for part in Path(place).parts)


def _is_stdlib(spec: ModuleSpec) -> bool:
    return spec.name in sys.stdlib_module_names and Path(str(spec.origin)).is_relative_to(Path(ast.__file__).parent)
