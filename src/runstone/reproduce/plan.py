"""What a run's recording says of how to start it again, moved to another folder and machine. Touches no file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from runstone.capture.redact import REDACTED

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# They say which hardware there is, or where things lie on that machine, not what is computed.
_OF_MACHINE = frozenset(
    "CUDA_VISIBLE_DEVICES CUDA_HOME CUDA_PATH CUDA_ROOT CUDA_CACHE_PATH HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES "
    "LD_PRELOAD LD_LIBRARY_PATH TMPDIR PYTHONHOME PYTHONEXECUTABLE PYTHONUSERBASE PYTHONPYCACHEPREFIX "
    "PYTHONSTARTUP PYTHONBREAKPOINT PYTHONINSPECT HF_HOME TRANSFORMERS_CACHE TORCH_HOME TRITON_CACHE_DIR "
    "TORCHINDUCTOR_CACHE_DIR TF_CONFIG KERAS_HOME".split()
)
_OF_MACHINE_PREFIXES = ("NVIDIA_", "TORCHELASTIC_", "SLURM_")
_FLAGS_WITH_VALUE = frozenset({"-W", "-X", "--check-hash-based-pycs"})


@dataclass(frozen=True, slots=True)
class Command:
    """How the program was started, without its interpreter.

    Attributes:
        flags: Of the interpreter, such as `-O`.
        target: `-m NAME`, `-c CODE`, or a script.
        arguments: Of the program.
        redacted: Places in the whole command line, counted from 1, whose value was left out.
    """

    flags: tuple[str, ...]
    target: tuple[str, ...]
    arguments: tuple[str, ...]
    redacted: tuple[int, ...] = ()

    @property
    def is_script(self) -> bool:
        """Whether a file was run."""
        return len(self.target) == 1

    @property
    def words(self) -> tuple[str, ...]:
        """The command line behind the interpreter."""
        return (*self.flags, *self.target, *self.arguments)


def command_of(snapshot: Mapping[str, Any], home: str) -> Command | None:
    """Return the recorded command; `None` where there is none that can be given again.

    Args:
        snapshot: The environment of the run.
        home: What `~` stands for.
    """
    argv = _at(snapshot, "process", "argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
        return None
    words = [with_home(word, home) for word in argv[1:]]
    redacted = tuple(place for place, word in enumerate(words, 1) if REDACTED in word)
    position = 0
    while position < len(words) and words[position].startswith("-"):
        word = words[position]
        if word in ("-c", "-m"):
            target = words[position : position + 2]
            if len(target) < 2 or target[1].endswith("…"):
                return None
            return Command(tuple(words[:position]), tuple(target), tuple(words[position + 2 :]), redacted)
        if word == "-":
            return None
        position += 2 if word in _FLAGS_WITH_VALUE else 1
    if position >= len(words):
        return None
    return Command(tuple(words[:position]), (words[position],), tuple(words[position + 1 :]), redacted)


def with_home(text: str, home: str) -> str:
    """Return text in which `~` at the start of a path is the home folder again."""
    return re.sub(r"(?<![\w.~-])~(?=/|$)", lambda _: home, text) if home else text


@dataclass(frozen=True, slots=True)
class Variables:
    """What to set for the new process.

    Attributes:
        set: By name.
        unset: Names that are set now and were not then.
        redacted: Names whose value was left out of the recording.
        left: Names that say something of the machine, and stay as they are here.
    """

    set: dict[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    redacted: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def variables_of(snapshot: Mapping[str, Any], now: Mapping[str, Any], *, home: str) -> Variables:
    """Return what of the recorded variables to set.

    Args:
        snapshot: The environment of the run.
        now: The environment here.
        home: What `~` stands for.
    """
    recorded, present = _at(snapshot, "env"), _at(now, "env")
    if not isinstance(recorded, dict):
        return Variables()
    found = Variables()
    redacted, left = [], []
    for name, value in sorted(recorded.items()):
        if not _VARIABLE.fullmatch(name):
            continue
        if is_of_machine(name):
            left.append(name)
        elif not isinstance(value, str) or REDACTED in value or "\0" in value:
            redacted.append(name)
        else:
            found.set[name] = with_home(value, home)
    unset = sorted(name for name in present or () if name not in recorded and not is_of_machine(name))
    return Variables(found.set, tuple(unset), tuple(redacted), tuple(left))


def is_of_machine(name: str) -> bool:
    """Return whether a variable describes a machine."""
    return name in _OF_MACHINE or name.startswith(_OF_MACHINE_PREFIXES)


def inside(path: str, root: str) -> PurePosixPath | None:
    """Return an absolute path relative to a folder around it; `None` where it lies elsewhere or goes back up."""
    if not root.startswith("/") or not path.startswith("/"):
        return None
    try:
        relative = PurePosixPath(path).relative_to(root)
    except ValueError:
        return None
    return None if ".." in relative.parts else relative


def is_safe_relative(path: str) -> bool:
    """Return whether a recorded path stays inside the folder that it is joined to, and out of git's own."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and "\0" not in path and not ({"..", ".git"} & set(parts))


def moved(word: str, root: str, code: Path) -> str:
    """Return a word of the command line with the old checkout's folder replaced, if the new one has what it names.

    Args:
        word: An absolute path, or `--name=` and one.
        root: Folder of the old checkout.
        code: Folder of the new one.
    """
    head, equals, tail = word.partition("=")
    prefix, path = (head + equals, tail) if equals and not head.startswith("/") else ("", word)
    relative = inside(path, root)
    if relative is None or not (code / relative).exists():
        return word
    return f"{prefix}{code / relative}"


def with_data(word: str, data: Mapping[str, Path]) -> str:
    """Return a word of the command line in which a place of data is the one where it is now.

    Args:
        word: A path, or `--name=` and one.
        data: Where data was, and where it is.
    """
    head, equals, tail = word.partition("=")
    prefix, path = (head + equals, tail) if equals and not head.startswith("/") else ("", word)
    for then, now in sorted(data.items(), key=lambda one: -len(one[0])):  # the nearest folder around it
        relative = inside(path, then)
        if relative is not None:
            return f"{prefix}{now / relative}" if relative.parts else f"{prefix}{now}"
    return word


def seeds_of(snapshot: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was recorded of seeds: params by their name, frameworks, Python's hashes."""
    found = {f"param {name}": value for name, value in params.items() if is_seed(name) and value is not None}
    frameworks = _at(snapshot, "frameworks")
    for name, facts in (frameworks if isinstance(frameworks, dict) else {}).items():
        if isinstance(facts, dict) and facts.get("seed") is not None:
            found[name] = facts["seed"]
    if _at(snapshot, "python", "hash_seed") is not None:
        found["PYTHONHASHSEED"] = _at(snapshot, "python", "hash_seed")
    return found


def is_seed(name: str) -> bool:
    """Return whether a param is a seed by its name."""
    last = re.split(r"[./]", name.lower())[-1]
    return "seed" in re.split(r"[^a-z]+", last) or last in ("random_state", "rng", "randomseed")


def _at(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def field_of(snapshot: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path of a snapshot, `None` where there is none."""
    return _at(snapshot, *path.split("."))


def text_of(snapshot: Mapping[str, Any], path: str) -> str:
    """Return the text at a dotted path, empty where there is none."""
    value = field_of(snapshot, path)
    return value if isinstance(value, str) else ""


def texts_of(snapshot: Mapping[str, Any], path: str) -> Sequence[str]:
    """Return the texts in the list at a dotted path."""
    value = field_of(snapshot, path)
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []
