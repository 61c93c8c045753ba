"""Makes the virtual environment of a restored run: the packages of then, and a Runstone that records the new run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from runstone._version import __version__
from runstone.errors import NotFound
from runstone.reproduce.packages import OWN
from runstone.reproduce.plan import field_of, text_of
from runstone.reproduce.restored import CONDA, LOCK, VENV, Restored

_OWN_PACKAGES = ("runstone", "runstone_integrations", "runstone_sweeps")
_ROUNDS = 10
_UNREACHED = "WARNING: Retrying"
_UNAVAILABLE = re.compile(
    r"Could not find a version that satisfies the requirement (?P<name>[\w.-]+).* "
    r"\(from versions: (?P<versions>[^)]*)\)"
)
_FORBIDDEN = re.compile(r"Cannot install (?P<name>[\w.-]+).* because these package versions have conflicting")
# Builds of torch and its companions, on an index of their own for each: download.pytorch.org/whl/cu128
_TORCH_BUILD = re.compile(r"(?:torch|torchvision|torchaudio)==[^+]+\+((?:cpu|cu\d+|rocm[\d.]+|xpu)\b)")


def install(
    restored: Restored,
    *,
    lock: Path | None = None,
    output: IO[bytes] | int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Make a virtual environment in the folder of a restored run, which its command runs in from then on.

    Args:
        restored: What `restore` made.
        lock: A requirements file to install instead of the recorded one, such as an edited copy.
        output: Where the standard output of pip goes; default: this process's.
        tell: Called with a line for each thing that is begun.

    Raises:
        NotFound: packages cannot be had, all of which the message names; or pip failed.
    """
    if lock is None and restored.packages.lost:
        lost = restored.packages.lost
        raise _refusal(restored, lost, len(lost) + len(_requirements(restored, lock)))
    lines = _requirements(restored, lock)
    variables = dict(restored.present)
    folder = restored.folder / VENV
    python = folder / "bin" / "python"
    if not python.exists():
        _make(restored, folder, variables, output, tell)
    pip = _Pip(str(python), restored.folder, variables, output)
    tell(f"installing {len(lines)} packages of {lock or LOCK}; pip takes its time with large ones")
    _install_recorded(pip, restored, lines)
    _install_own(pip, restored, folder, tell)
    if field_of(restored.environment, "conda.explicit"):
        restored.notes.append(
            f"the packages of then came from conda; pip installed those of Python. All of them: "
            f"conda create --prefix env --file {CONDA}"
        )
    restored.interpreter = str(python)


def _make(
    restored: Restored,
    folder: Path,
    variables: Mapping[str, str],
    output: IO[bytes] | int | None,
    tell: Callable[[str], None],
) -> None:
    base, version = _interpreter(restored)
    tell(f"making a virtual environment with Python {version}")
    code, _ = _call([base, "-m", "venv", str(folder)], restored.folder, variables, output)
    if code != 0:
        raise NotFound(
            f"{base} -m venv failed with {code}, see above; on Debian and Ubuntu it is in the package python3-venv"
        )


def _requirements(restored: Restored, lock: Path | None) -> list[str]:
    """Return what pip is to install; Runstone apart, which has its own rules."""
    lines = list(restored.packages.lines) if lock is None else lock.read_text().splitlines()
    lines = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if lock is not None:
        return lines
    return [line for line in lines if not re.match(rf"{OWN}(==| @ )", line)]


def _interpreter(restored: Restored) -> tuple[str, str]:
    """Return an interpreter of the same minor version, this one where there is none; and its version."""
    here = ".".join(map(str, sys.version_info[:2]))
    then = ".".join(text_of(restored.environment, "python.version").split(".")[:2])
    if not re.fullmatch(r"\d+\.\d+", then) or then == here:
        return sys.executable, here
    found = shutil.which(f"python{then}", path=restored.present.get("PATH"))
    if found is None:
        restored.lost.append(f"Python {then}: there is no python{then} on PATH, the environment has {here}")
        return sys.executable, here
    return found, then


class _Pip:
    """pip of one virtual environment."""

    def __init__(self, python: str, folder: Path, variables: Mapping[str, str], output: IO[bytes] | int | None) -> None:
        self._command = [python, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check", "--quiet"]
        self._folder = folder
        # A folder of other packages must not make pip believe that they are installed.
        self._variables = {name: value for name, value in variables.items() if name != "PYTHONPATH"}
        self._output = output

    def install(self, lines: Sequence[str], *options: str, is_shown: bool = True) -> tuple[int, str]:
        """Install what a requirements file of these lines names; return pip's exit code and messages."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt", dir=self._folder) as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            words = [*self._command, *options, "-r", file.name]
            return _call(words, self._folder, self._variables, self._output, is_shown=is_shown)


def _install_recorded(pip: _Pip, restored: Restored, lines: list[str]) -> None:
    code, said = pip.install(lines)
    if code == 0:
        return
    missing: dict[str, str] = {}
    left = list(lines)
    # pip stops at the first one that it cannot find; a user wants to know all of them at once.
    for _ in range(_ROUNDS):
        found = _UNAVAILABLE.search(said) or _FORBIDDEN.search(said)
        line = next((line for line in left if found and _is_named(line, found["name"])), None)
        if found is None or line is None or _UNREACHED in said:
            break
        missing[line] = _why(line, found.groupdict().get("versions"))
        left.remove(line)
        code, said = pip.install(left, "--dry-run", is_shown=False)
        if code == 0:
            break
    if missing:
        raise _refusal(restored, [f"{line}: {why}" for line, why in missing.items()], len(lines))
    if _UNREACHED in said:
        raise NotFound(
            "pip could not reach its index: is there a network, and do PIP_INDEX_URL and `pip config list` name the "
            "right one? PIP_FIND_LINKS can name a folder of wheels instead"
        )
    raise NotFound(f"pip could not install the packages: {_first_error(said)}\n{_what_now(restored)}")


def _is_named(line: str, name: str) -> bool:
    return re.split(r"[=<>~! @\[;]", line, maxsplit=1)[0].lower().replace("_", "-") == name.lower().replace("_", "-")


def _why(line: str, versions: str | None) -> str:
    """Return why pip has no such package, given the versions that it knows; `None` where it may not take this one."""
    if versions is None:  # without dependencies, only this is left to conflict with
        return "a constraint of pip here asks for another version (`pip config list`, PIP_CONSTRAINT)"
    build = _TORCH_BUILD.match(line)
    if build:
        return f"PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/{build[1]} is the index of this build"
    known = versions.split(", ") if versions not in ("", "none") else []
    if not known:
        return "no index has a package of this name for this Python"
    public, plus, local = line.partition("+")
    if plus and public.partition("==")[2] in known:
        return f"a build of its own ({local}), which no index has; {public} is there, without it"
    return f"no index has this version; there is {'…, ' if len(known) > 3 else ''}{', '.join(known[-3:])}"


def _refusal(restored: Restored, missing: Sequence[str], total: int) -> NotFound:
    listed = "\n".join(f"  {line}" for line in missing)
    what = "1 package" if len(missing) == 1 else f"{len(missing)} packages"
    return NotFound(f"{what} of {total} cannot be installed:\n{listed}\n{_what_now(restored)}")


def _what_now(restored: Restored) -> str:
    lock = restored.folder / LOCK
    return (
        "Tell pip where to look (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS), or edit "
        f"{lock} and install that: runstone reproduce {restored.run.id[-8:]} --install --lock {lock}"
    )


def _first_error(said: str) -> str:
    errors = [line.partition(":")[2].strip() for line in said.splitlines() if line.lower().startswith("error:")]
    return (errors or [line for line in said.splitlines() if line.strip()] or ["it gave no reason"])[0][:300]


# --- Runstone itself ------------------------------------------------------------------------------------------------
def _install_own(pip: _Pip, restored: Restored, folder: Path, tell: Callable[[str], None]) -> None:
    """Have the Runstone of then where an index has it, else the one that runs this."""
    packages = next((folder / "lib").glob("python*/site-packages"))
    if any(packages.glob(f"{OWN}-*.dist-info")):  # in place from the checkout, or named by the user's lock
        return
    then = restored.packages.own
    line = next((line for line in restored.packages.lines if re.match(rf"{OWN}(==| @ )", line)), "")
    if then != __version__ and line and pip.install([line], is_shown=False)[0] == 0:
        tell(f"installed {line}")
        return
    _copy_own(packages)
    why = f"instead of {then}, which cannot be had" if line and then != __version__ else "the one that runs this"
    if not line:
        recorded = next((line for line in restored.packages.lines if line.startswith(f"# {OWN} ")), "")
        why += f"; {recorded.removeprefix('# ')}" if recorded else "; then it was not installed"
    restored.notes.append(f"Runstone {__version__} records the new run: {why}")
    tell(f"copied Runstone {__version__}: {why}")


def _copy_own(packages: Path) -> None:
    for name in _OWN_PACKAGES:
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            shutil.copytree(place, packages / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    stated = packages / f"{OWN}-{__version__}.dist-info"
    stated.mkdir()
    (stated / "METADATA").write_text(_metadata())
    (stated / "INSTALLER").write_text("runstone reproduce\n")


def _metadata() -> str:
    try:
        text = importlib.metadata.distribution(OWN).read_text("METADATA")
    except importlib.metadata.PackageNotFoundError:  # imported from a folder on PYTHONPATH
        text = None
    return text or f"Metadata-Version: 2.1\nName: {OWN}\nVersion: {__version__}\n"


def _call(
    words: list[str],
    folder: Path,
    variables: Mapping[str, str],
    output: IO[bytes] | int | None,
    *,
    is_shown: bool = True,
) -> tuple[int, str]:
    """Run a program, passing on what it complains of; return its exit code and the complaints."""
    said: list[str] = []
    with subprocess.Popen(
        words,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=output if is_shown else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stderr is not None  # noqa: S101 - for the type checker: it is a pipe
        for line in process.stderr:
            said.append(line)
            if is_shown:
                sys.stderr.write(line)
    return process.returncode, "".join(said)
