"""Sees what a script makes of its command line, in the script's process, and tells the launcher. Standard library only.

A finder on `sys.meta_path` waits until the script itself imports a library that parses arguments, and then puts one
function of it into another that also tells what came out. Nothing that goes wrong here is seen by the script.
"""

# Nothing is imported that the interpreter has not loaded; arguments have the names that libraries call them by.
# ruff: noqa: SIM105, ARG001
from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # see `runner`
    from collections.abc import Callable
    from typing import Any

_MOST_DEPTH, _MOST_ITEMS, _MOST_TEXT = 24, 20_000, 20_000


class Observer:
    """Tells the launcher what is observed, a Python literal a line.

    Args:
        fd: Where to write it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pid = os.getpid()
        self._depth = 0
        self._roots: list[Any] = []
        self._words: list[str] | None = None
        self._from_cli: list[Any] = []
        self._by_module: dict[str, Callable[[Any], None]] = {
            "argparse": self._watch_argparse,
            "click.core": self._watch_click,
            "typer._click.core": self._watch_click,
            "absl.flags._flagvalues": self._watch_absl,
            "fire.core": self._watch_fire,
            "omegaconf.omegaconf": self._watch_omegaconf,
            "hydra._internal.callbacks": self._watch_hydra,
            "jsonargparse._core": self._watch_jsonargparse,
            "jsonargparse.core": self._watch_jsonargparse,
            "draccus.argparsing": self._watch_parse,
            "pyrallis.argparsing": self._watch_parse,
        }

    # --- waiting for an import -------------------------------------------------------------------------------------

    def install(self) -> None:
        """Begin to watch."""
        for name in self._by_module:
            if name in sys.modules:  # by a `.pth` file
                self._watch(sys.modules[name])
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return what the other finders find, to be told when it has been loaded."""
        if name not in self._by_module:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec = find(name, path, target)
            if spec is not None:
                self._await(spec)
                return spec
        return None

    def _await(self, spec: Any) -> None:
        loader = spec.loader
        try:
            execute = loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                if module.__name__ == spec.name:
                    try:
                        del loader.exec_module
                    except AttributeError:
                        pass
                    self._watch(module)

            loader.exec_module = exec_module
        except AttributeError:  # a loader that cannot be changed: its module is not observed
            pass

    def _watch(self, module: Any) -> None:
        try:
            self._by_module[module.__name__](module)
        except Exception:  # a version that is built in another way
            return

    def _see(self, owner: Any, name: str, seen: Callable[..., None], *, is_static: bool = False) -> None:
        """Call `seen(result, *arguments)` after each outermost call of a function."""
        original = vars(owner)[name]
        call = original.__func__ if is_static else original

        def observed(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            try:
                result = call(*args, **kwargs)
            finally:
                self._depth -= 1
            if not self._depth and os.getpid() == self._pid:
                try:
                    seen(result, *args, **kwargs)
                except Exception:  # the script goes on in any case
                    return result
            return result

        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(observed, attribute, getattr(call, attribute, None))
        observed.__dict__.update(getattr(call, "__dict__", {}))
        observed.__wrapped__ = call  # type: ignore[attr-defined]
        setattr(owner, name, staticmethod(observed) if is_static else observed)

    # --- the libraries ---------------------------------------------------------------------------------------------

    def _watch_argparse(self, module: Any) -> None:
        def seen(result: Any, _parser: Any, args: Any = None, *_: Any, **__: Any) -> None:
            if _is_command_line(args) and not _caller().startswith(("hydra.", "fire.")):  # their own options
                self._tell_params(vars(result[0]), "argparse")

        self._see(module.ArgumentParser, "parse_known_args", seen)

    def _watch_click(self, module: Any) -> None:
        def seen(_result: Any, _command: Any, context: Any, _args: Any) -> None:
            root = context.find_root()
            if getattr(context, "resilient_parsing", False):
                return
            if context is root and (self._words is None or _is_command_line(self._words)):
                self._roots = [root]
            if not any(known is root for known in self._roots):
                return
            found = dict(context.params)
            names = []
            while context is not root:
                names.append(str(context.info_name))
                context = context.parent
            if names:
                found.setdefault("command", " ".join(reversed(names)))
            self._tell_params(found, "click")

        self._see(module.Command, "parse_args", seen)
        for kind in (vars(module).get("BaseCommand"), module.Command):
            if kind is not None and "make_context" in vars(kind):
                self._note_arguments(kind)

    def _note_arguments(self, main: Any) -> None:
        """Note the words that a command is given before it takes them apart."""
        original = vars(main)["make_context"]

        def make_context(command: Any, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
            if parent is None:
                self._words = list(args)
            return original(command, info_name, args, parent=parent, **extra)

        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(make_context, attribute, getattr(original, attribute, None))
        make_context.__wrapped__ = original  # type: ignore[attr-defined]
        main.make_context = make_context

    def _watch_absl(self, module: Any) -> None:
        def seen(_result: Any, flags: Any, argv: Any, *_: Any, **__: Any) -> None:
            if not _is_command_line(argv[1:]):
                return
            found = {}
            for owner, defined in flags.flags_by_module_dict().items():
                if not owner.startswith("absl."):
                    found.update({flag.name: flag.value for flag in defined})
            self._tell_params(found, "absl")

        self._see(module.FlagValues, "__call__", seen)

    def _watch_fire(self, module: Any) -> None:
        original = module._MakeParseFn

        def make_parse(function: Any, metadata: Any) -> Any:
            parse = original(function, metadata)
            spec = module.inspectutils.GetFullArgSpec(function)

            def observed(args: Any) -> Any:
                result = parse(args)
                if os.getpid() == self._pid:
                    try:
                        (values, named), *_ = result
                        found = dict(zip(spec.args, values))  # noqa: B905 - there may be more values than names
                        found.update(spec.kwonlydefaults or {})
                        found.update(named)
                        if len(values) > len(spec.args) and spec.varargs:
                            found[spec.varargs] = values[len(spec.args) :]
                        self._tell_params(found, "fire")
                    except Exception:
                        return result
                return result

            return observed

        module._MakeParseFn = make_parse

    def _watch_omegaconf(self, module: Any) -> None:
        def from_cli(result: Any, args_list: Any = None) -> None:
            if _is_command_line(args_list):
                self._from_cli.append(result)
                self._tell_params(_config(module.OmegaConf, result), "omegaconf")

        def merged(result: Any, *configs: Any, **_: Any) -> None:
            if any(config is known for config in configs for known in self._from_cli):
                self._from_cli.append(result)
                self._tell_params(_config(module.OmegaConf, result), "omegaconf")

        self._see(module.OmegaConf, "from_cli", from_cli, is_static=True)
        self._see(module.OmegaConf, "merge", merged, is_static=True)

    def _watch_hydra(self, module: Any) -> None:
        def seen(_result: Any, _callbacks: Any, config: Any = None, **_: Any) -> None:
            conf = sys.modules["omegaconf"].OmegaConf
            overrides = [str(word) for word in config.hydra.overrides.task]
            composed = _config(conf, conf.masked_copy(config, [name for name in config if name != "hydra"]))
            mode = str(getattr(config.hydra.mode, "name", config.hydra.mode))
            if mode != "MULTIRUN":
                self._tell_params(composed, "hydra")
                return
            # Several jobs in one process are one run: what they share, and what each was given.
            number = conf.select(config, "hydra.job.num") or 0
            given = dict(word.lstrip("+~").partition("=")[::2] for word in overrides)
            if number == 0:
                self._tell_params(_without(composed, given), "hydra")
            chosen = {name: _typed(conf, name, value, config) for name, value in given.items()}
            self._tell({"params": {"jobs": {str(number): plain(chosen)}}, "by": "hydra", "is_exact": True})

        self._see(module.Callbacks, "on_job_start", seen)

    def _watch_jsonargparse(self, module: Any) -> None:
        def seen(result: Any, parser: Any, args: Any = None, *_: Any, **__: Any) -> None:
            if _is_command_line(args):
                self._tell_params(result.as_dict(), "jsonargparse")

        self._see(module.ArgumentParser, "parse_args", seen)

    def _watch_parse(self, module: Any) -> None:
        def seen(result: Any, config_class: Any = None, config_path: Any = None, args: Any = None, **_: Any) -> None:
            if _is_command_line(args):
                found = plain(result)
                if isinstance(found, dict):
                    self._tell_params(found, module.__name__.partition(".")[0])

        self._see(module, "parse", seen)

    # --- telling ---------------------------------------------------------------------------------------------------

    def tell_error(self, error: BaseException) -> None:
        """Tell the launcher by what exception the script ends."""
        try:
            import traceback  # the script has ended: nobody minds

            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        except Exception:
            text = ""
        try:
            message = str(error)
        except Exception:
            message = "(its message cannot be shown)"
        self.tell_failure(type(error).__name__, message, text, [kind.__name__ for kind in type(error).__mro__])

    def tell_failure(self, kind: str, message: str, text: str, kinds: list[str]) -> None:
        """Tell the launcher why the script fails."""
        self._tell({"failure": {"type": kind, "message": message[:10_000], "traceback": text[-100_000:]}, "is": kinds})

    def _tell_params(self, found: dict[str, Any], by: str) -> None:
        params = {
            str(name): plain(value)
            for name, value in found.items()
            if not str(name).startswith("_unrecognized") and type(value).__name__ not in ("function", "method")
        }
        if params:
            self._tell({"params": params, "by": by})

    def _tell(self, message: dict[str, Any]) -> None:
        if os.getpid() != self._pid:
            return
        line = ascii(message).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError:  # the launcher is gone, or has no time: the script goes on
            return


# --- what came out ----------------------------------------------------------------------------------------------------


def _is_command_line(args: Any) -> bool:
    """Return whether words that are parsed are those that the script was called with, or the last of them."""
    if args is None:
        return True
    words, given = list(args), sys.argv[1:]
    return words == given or (bool(words) and words == given[-len(words) :])


def _caller() -> str:
    """Return the module that called argparse."""
    frame = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name != "argparse" and frame.f_globals is not globals():
            return name
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _config(conf: Any, config: Any) -> Any:
    """Return a configuration of OmegaConf as plain values; with its references where they cannot be followed."""
    if not conf.is_dict(config):
        return {}
    try:
        return conf.to_container(config, resolve=True, throw_on_missing=False)
    except Exception:
        return conf.to_container(config, resolve=False)


def _without(found: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return nested params without those that are named by their path, such as `model/name` or `model.lr`."""
    kept = plain(found)
    for name in names:
        *above, last = name.partition("@")[0].replace("/", ".").split(".")
        inner = kept
        for part in above:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(last, None)
    return kept  # type: ignore[no-any-return]


def _typed(conf: Any, name: str, value: str, config: Any) -> Any:
    try:
        found = conf.select(config, name)
    except Exception:
        return value
    return value if found is None or conf.is_config(found) else found


def plain(value: Any, depth: int = 0, left: list[int] | None = None) -> Any:
    """Return any value as what a Python literal can be: numbers, text, lists and dicts with names."""
    left = [_MOST_ITEMS] if left is None else left
    left[0] -= 1
    kind = type(value)
    if value is None or kind in (bool, int):
        return value
    if kind is float:  # a literal knows no NaN
        return value if value - value == 0 else {"$float": repr(value)}
    if isinstance(value, str):
        inner = getattr(value, "value", None) if _is_enum(value) else str.__str__(value)
        return (inner if isinstance(inner, str) else str.__str__(value))[:_MOST_TEXT]
    if depth > _MOST_DEPTH or left[0] < 0:
        return f"<{kind.__module__}.{kind.__qualname__}>"
    try:
        return _opened(value, kind, depth + 1, left)
    except Exception:  # foreign code may raise anything
        return f"<{kind.__module__}.{kind.__qualname__}>"


def _is_enum(value: Any) -> bool:
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(value, enum.Enum)


def _opened(value: Any, kind: Any, depth: int, left: list[int]) -> Any:
    if _is_enum(value):
        inner = value.value
        return plain(inner, depth, left) if isinstance(inner, (bool, int, float, str)) else value.name
    if isinstance(value, dict):
        return {str(plain(name)): plain(item, depth, left) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth, left) for item in value]
    if isinstance(value, (set, frozenset)):
        return [plain(item, depth, left) for item in sorted(value, key=repr)]
    if isinstance(value, (bool, int, float)):
        return plain(kind.__mro__[-2](value), depth, left)
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is not None:
        return {name: plain(getattr(value, name, None), depth, left) for name in fields}
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if kind.__name__ in ("function", "method", "builtin_function_or_method"):
        return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "__fspath__"):
        return str(os.fspath(value))
    if kind.__name__ == "Namespace":
        return plain(value.as_dict() if hasattr(value, "as_dict") else vars(value), depth, left)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return plain(value.item(), depth, left)
    if hasattr(value, "read") or hasattr(value, "write"):
        return str(getattr(value, "name", f"<{kind.__module__}.{kind.__qualname__}>"))
    if kind.__str__ is not object.__str__ or kind.__repr__ is not object.__repr__:
        return str(value)[:_MOST_TEXT]
    return f"<{kind.__module__}.{kind.__qualname__}>"
