"""The folder of a sweep's script as an archive: what goes into it, and how a worker unpacks it safely."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from runstone import RunstoneError

# More than any source; what is larger is data, which belongs where every host sees it.
MOST_FILE_BYTES = 10 << 20
MOST_BYTES = 100 << 20
MOST_FILES = 10_000
_GIT_TIMEOUT_S = 60.0
# The checkout may be anyone's: its settings must not name programs that are run.
_SAFE = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
_PASSED_OVER = frozenset({"__pycache__", "node_modules", "venv"})


class CodeNotShipped(RunstoneError):
    """The folder of the script cannot be sent, or what came is not safe to unpack."""


class Archive:
    """The code of a sweep, packed.

    Attributes:
        data: A compressed tar file.
        digest: SHA-256 of it, as 64 hex digits.
        left_out: Files that were too large.
    """

    def __init__(self, data: bytes, left_out: tuple[str, ...]) -> None:
        self.data = data
        self.digest = hashlib.sha256(data).hexdigest()
        self.left_out = left_out


def pack_code(folder: Path, environment: Mapping[str, str]) -> Archive:
    """Pack what git tracks in a folder and what it does not ignore; without git, all but hidden files.

    Files above 10 MiB are left out, and so are links that lead out of the folder.

    Raises:
        CodeNotShipped: it is more than 100 MiB or 10,000 files.
    """
    folder = folder.resolve()
    names = _listed_by_git(folder, environment)
    names = sorted(_walked(folder)) if names is None else names
    if len(names) > MOST_FILES:
        raise CodeNotShipped(f"ship_code: {folder} has {len(names)} files, at most {MOST_FILES} can be sent")
    target = io.BytesIO()
    left_out = []
    total = 0
    with tarfile.open(fileobj=target, mode="w:gz", compresslevel=3) as archive:
        for name in names:
            path = folder / name
            if not path.is_file() or not path.resolve().is_relative_to(folder):
                continue
            size = path.stat().st_size
            if size > MOST_FILE_BYTES:
                left_out.append(name)
                continue
            total += size
            if total > MOST_BYTES:
                raise CodeNotShipped(
                    f"ship_code: the files in {folder} are more than {MOST_BYTES >> 20} MiB; "
                    "let .gitignore name those that are no code"
                )
            member = tarfile.TarInfo(name)  # without owner and time: equal code gives equal bytes
            data = path.read_bytes()
            member.size = len(data)
            member.mode = 0o700 if os.access(path, os.X_OK) else 0o600
            archive.addfile(member, io.BytesIO(data))
    # The time in the header of gzip is the one thing that would differ.
    packed = bytearray(target.getvalue())
    packed[4:8] = bytes(4)
    return Archive(bytes(packed), tuple(left_out))


def unpack_code(data: bytes, digest: str, folder: Path) -> None:
    """Unpack an archive into a new folder; nothing is left where it is refused.

    Raises:
        CodeNotShipped: it is damaged, or holds anything but files below the folder.
    """
    if hashlib.sha256(data).hexdigest() != digest:
        raise CodeNotShipped("the code that came is not what was announced")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|gz") as archive:
            files = total = 0
            for member in archive:
                files, total = files + 1, total + member.size
                if files > MOST_FILES or total > MOST_BYTES or member.size > MOST_FILE_BYTES:
                    raise CodeNotShipped("the code that came is larger than is allowed")
                if not member.isreg() or not _is_inside(member.name):
                    raise CodeNotShipped(
                        f"the code that came holds {member.name!r:.80}, which is no file of its folder"
                    )
                source = archive.extractfile(member)
                path = partial / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                if source is not None:
                    with path.open("xb") as file:
                        shutil.copyfileobj(source, file)
                    path.chmod(0o700 if member.mode & 0o100 else 0o600)
        partial.replace(folder)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise CodeNotShipped(f"the code that came cannot be unpacked: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\0" not in name and "\\" not in name


def _listed_by_git(folder: Path, environment: Mapping[str, str]) -> list[str] | None:
    program = shutil.which("git", path=environment.get("PATH"))
    if program is None:
        return None
    kept = {name: value for name, value in environment.items() if not name.startswith("GIT_")}
    try:
        listed = subprocess.run(
            [program, *_SAFE, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=folder,
            env=kept | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return sorted({os.fsdecode(name) for name in listed.split(b"\0") if name})


def _walked(folder: Path) -> Iterator[str]:
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _PASSED_OVER]
        for name in files:
            if not name.startswith("."):
                yield str((Path(here) / name).relative_to(folder))
