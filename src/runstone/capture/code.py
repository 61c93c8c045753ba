"""The git checkout that the program comes from: commit, branch, and what was not committed, as a patch.

Reading somebody's repository must not run what its configuration names. Hooks, the file-system monitor, external
diffs, text conversions, clean filters and every transport are off, nothing asks for a password, nothing in the
repository is written, and each command is bounded in time and bytes.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from runstone.capture import redact
from runstone.capture.command import Output, run
from runstone.capture.context import Context
from runstone.capture.entry import entry_file
from runstone.capture.facts import Facts, Missing, absent
from runstone.values import JSON

PATCH_BYTES = 1 << 20
_LARGEST_DIFFED_FILE = 4 << 20
_LARGEST_UNTRACKED_FILE = 64 << 10
_UNTRACKED_BYTES = 256 << 10
_UNTRACKED_FILES = 200
_MOST_LISTED = 1000
_MOST_EXCLUDED = 200
_LIST_BYTES = 256 << 10
_COMMAND_S = 2.0
_SAFE = (
    "--no-optional-locks",
    "--no-pager",
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.attributesFile=/dev/null"),
    *("-c", "core.untrackedCache=false"),
    *("-c", "core.quotePath=false"),
    *("-c", f"core.bigFileThreshold={_LARGEST_DIFFED_FILE}"),
    *("-c", "diff.autoRefreshIndex=false"),  # it would write the index, optional locks or not
    *("-c", "diff.ignoreSubmodules=dirty"),  # a submodule has a configuration of its own
    *("-c", "submodule.recurse=false"),
    *("-c", "credential.helper="),
    *("-c", "protocol.allow=never"),
)
# Files whose whole content is a secret, as patterns of git.
_SECRET_FILES = (
    ".env .env.* *.env .envrc *.pem *.key *.p12 *.pfx *.jks *.keystore *.kdbx *.ppk *.asc *.gpg id_rsa* id_dsa* "
    "id_ecdsa* id_ed25519* .netrc _netrc .npmrc .pypirc .htpasswd .git-credentials .pgpass credentials credentials.* "
    "*credentials*.json secret secret.* secrets secrets.* *secrets*.yaml *secrets*.yml *service-account*.json "
    "*service_account*.json kubeconfig token token.* *.token kaggle.json"
).split()
# When there is more than fits, what a person wrote comes before what a program did.
_SOURCE_SUFFIXES = frozenset(
    ".py .pyx .ipynb .sh .yaml .yml .toml .cfg .ini .json .md .txt .c .cc .cpp .cu .h .hpp .rs .js .ts .sql .r "
    ".jl".split()
)


def read_git(facts: Facts, context: Context) -> None:
    """Commit, branch, changes, remote, submodules; the patch is stored beside the snapshot."""
    program = shutil.which("git", path=context.environment.get("PATH"))
    if program is None:
        raise absent("git is not installed")
    checkout = find_checkout(program, context)
    facts.put("root", str(checkout.root))
    facts.read("commit", lambda: checkout.head().commit, if_none="no commit yet")
    facts.read("branch", lambda: checkout.head().branch, if_none="detached HEAD")
    facts.read("describe", lambda: _describe(checkout))
    facts.read("changed", lambda: [*checkout.head().changed[:_MOST_LISTED]])
    facts.read("untracked", lambda: [*checkout.untracked()[:_MOST_LISTED]])
    facts.read("is_dirty", lambda: bool(checkout.head().changed or checkout.untracked()))
    facts.read("remote", lambda: _remote(checkout), if_none="no remote is set")
    facts.read("submodules", lambda: _submodules(checkout), if_none="no submodules")
    facts.read("superproject", lambda: checkout.superproject or None, if_none="not a submodule itself")
    facts.read("diff", lambda: _keep_patch(checkout, context), if_none="nothing is changed")


@dataclass(frozen=True, slots=True)
class _Head:
    commit: str | None
    branch: str | None
    changed: tuple[str, ...]


class Checkout:
    """A working tree, and questions to it; an answer that several fields need is asked for once."""

    def __init__(self, program: str, root: Path, superproject: str, context: Context) -> None:
        self.root = root
        self.superproject = superproject
        self._program = program
        self._environment = _environment(context)
        self._until = time.monotonic() + context.timeout_s
        self._filters_off: tuple[str, ...] = ()
        self._settings: dict[str, str] | Exception | None = None
        self._head: _Head | Exception | None = None
        self._untracked: tuple[str, ...] | Exception | None = None

    def git(
        self, *arguments: str, max_bytes: int = _LIST_BYTES, stdin: bytes = b"", accept: Sequence[int] = (0,)
    ) -> Output:
        """Run one command of git at the root of the checkout."""
        output = run(
            [self._program, *_SAFE, *self._filters_off, *arguments],
            cwd=self.root,
            environment=self._environment,
            timeout_s=max(0.05, min(_COMMAND_S, self._until - time.monotonic())),
            max_bytes=max_bytes,
            stdin=stdin,
        )
        if output.code is not None and output.code not in accept:
            raise _refusal(output)
        return output

    def settings(self) -> dict[str, str]:
        """Return the configured addresses of remotes, by key; and switch off every filter that is configured."""
        if self._settings is None:
            try:
                self._settings = self._read_settings()
            except Exception as error:  # kept, so that each field that needs it says why
                self._settings = error
        if isinstance(self._settings, Exception):
            raise self._settings
        return self._settings

    def _read_settings(self) -> dict[str, str]:
        pattern = r"^(remote\..*\.url|filter\..*\.(clean|smudge|process|required))$"
        # Status 1: nothing fits.
        output = self.git("config", "-z", "--get-regexp", pattern, accept=(0, 1))
        if output.is_truncated:
            raise Missing("denied", "the configuration of this repository is longer than any honest one")
        settings = {}
        for entry in output.data.decode(errors="replace").split("\0"):
            key, _, value = entry.partition("\n")
            settings[key] = value
        names = {key.split(".", 1)[1].rsplit(".", 1)[0] for key in settings if key.startswith("filter.")}
        if any("=" in name or "\n" in name for name in names):
            # A name with `=` cannot be overridden on the command line, and would be run.
            raise Missing("denied", "a filter of this repository cannot be switched off")
        off: list[str] = []
        for name in sorted(names):
            for key, value in {"clean": "", "smudge": "", "process": "", "required": "false"}.items():
                off += ["-c", f"filter.{name}.{key}={value}"]
        self._filters_off = tuple(off)
        return settings

    def head(self) -> _Head:
        """Return commit, branch and changed files."""
        if self._head is None:
            try:
                self.settings()  # filters must be off before anything looks at file contents
                self._head = _parse_status(
                    self.git("status", "--porcelain=v2", "--branch", "-z", "--untracked-files=no", "--no-renames")
                )
            except Exception as error:
                self._head = error
        if isinstance(self._head, Exception):
            raise self._head
        return self._head

    def untracked(self) -> tuple[str, ...]:
        """Return files that are neither tracked nor ignored."""
        if self._untracked is None:
            try:
                output = self.git("ls-files", "--others", "--exclude-standard", "-z")
                self._untracked = _whole_entries(output)
            except Exception as error:
                self._untracked = error
        if isinstance(self._untracked, Exception):
            raise self._untracked
        return self._untracked


def _environment(context: Context) -> dict[str, str]:
    # Inherited GIT_* name other repositories (in a hook), programs to run, and traces to write.
    kept = {name: value for name, value in context.environment.items() if not name.startswith("GIT_")}
    return kept | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "LC_ALL": "C",
    }


def _refusal(output: Output) -> Missing:
    error = output.error.strip()
    if "dubious ownership" in error:
        return Missing("denied", "git does not trust this folder: it belongs to another user (safe.directory)")
    if "not a git repository" in error:
        return absent("not a git repository")
    if "must be run in a work tree" in error:
        return absent("a repository without working tree")
    if "ermission denied" in error:
        return Missing("denied", error.splitlines()[0])
    return Missing("error", f"git ended with {output.code}: {error.splitlines()[0] if error else 'no message'}")


def find_checkout(program: str, context: Context) -> Checkout:
    """Return the checkout that the script lies in, else that of the working folder."""
    missing = absent("not a git repository")
    for folder in starting_points():
        asked = Checkout(program, folder, "", context)
        try:
            answer = asked.git(
                "rev-parse", "--is-inside-work-tree", "--show-toplevel", "--show-superproject-working-tree"
            )
        except Missing as error:
            missing = error
            continue
        is_inside, _, places = os.fsdecode(answer.data).partition("\n")
        root, _, superproject = places.partition("\n")
        if is_inside != "true" or not root:
            missing = absent("a repository without working tree")
            continue
        return Checkout(program, Path(root), superproject.strip(), context)
    raise missing


def starting_points() -> Iterator[Path]:
    """Yield the folders that a checkout is looked for in, the first that has one counts."""
    file = entry_file()
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is not None and main.name.partition(".")[0].startswith("runstone"):
        file = None  # our own program, which runs the user's function
    # An installed program (pytest, torchrun) says nothing of the user's code.
    if file and file.exists() and not any(file.is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix)):
        yield file.parent
    yield Path.cwd()


def _parse_status(output: Output) -> _Head:
    commit = branch = None
    changed: list[str] = []
    for entry in _whole_entries(output):
        if entry.startswith("# branch.oid "):
            commit = entry.removeprefix("# branch.oid ")
        elif entry.startswith("# branch.head "):
            branch = entry.removeprefix("# branch.head ")
        elif entry.startswith("1 "):
            changed.append(entry.split(" ", 8)[8])
        elif entry.startswith("u "):
            changed.append(entry.split(" ", 10)[10])
    return _Head(
        commit=None if commit == "(initial)" else commit,
        branch=None if branch == "(detached)" else branch,
        changed=tuple(changed),
    )


def _whole_entries(output: Output) -> tuple[str, ...]:
    entries = output.data.split(b"\0")
    # The last is empty, or cut in the middle.
    return tuple(os.fsdecode(entry) for entry in entries[:-1])


def _describe(checkout: Checkout) -> str:
    if checkout.head().commit is None:
        raise absent("no commit yet")
    return checkout.git("describe", "--tags", "--always").data.decode(errors="replace").strip()


def _remote(checkout: Checkout) -> str | None:
    """Return the address of `origin`, else of the first remote, without user and password."""
    remotes = {key: value for key, value in checkout.settings().items() if key.startswith("remote.")}
    if not remotes:
        return None
    return redact.url(remotes.get("remote.origin.url") or next(iter(remotes.values())))


def _submodules(checkout: Checkout) -> list[JSON] | None:
    """Return path, recorded commit and whether another one is checked out."""
    if not (checkout.root / ".gitmodules").is_file():
        return None
    listed = checkout.git(
        "config", "-z", "--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.path$", accept=(0, 1)
    )
    paths = [entry.partition("\n")[2] for entry in _whole_entries(listed)]
    if not paths:
        return None
    recorded = checkout.git("ls-files", "--stage", "-z", "--", *(f":(literal){path}" for path in paths[:_MOST_LISTED]))
    commits = {}
    for entry in _whole_entries(recorded):
        described, _, path = entry.partition("\t")
        mode, commit, _ = described.split(" ", 2)
        if mode == "160000":
            commits[path] = commit
    changed = set(checkout.head().changed)
    return [{"path": path, "commit": commit, "is_changed": path in changed} for path, commit in commits.items()]


# --- the patch -----------------------------------------------------------------------------------------------
@dataclass
class _Patch:
    """A patch that grows within its bound, and what had to stay out of it."""

    lines: list[str]
    size_bytes: int = 0
    is_truncated: bool = False


def _keep_patch(checkout: Checkout, context: Context) -> dict[str, JSON] | None:
    if not context.privacy.keep_code:
        raise Missing("redacted", "switched off by privacy.keep_code")
    head = checkout.head()
    patch = _Patch(lines=[])
    large = [path for path in head.changed if _is_large(checkout.root / path)]
    if len(head.changed) > len(large):
        _add_changes(patch, checkout, head, large[:_MOST_EXCLUDED])
    omitted = large + [path for path in head.changed if _is_secret_file(path)]
    try:
        untracked = checkout.untracked()
    except Exception as error:  # the changes of tracked files are worth having without them
        untracked, omitted = (), [*omitted, f"untracked files: {error}"]
    omitted += _add_untracked(patch, checkout.root, untracked, context)
    if not patch.lines and not omitted:
        return None
    lines, redactions = redact.patch(patch.lines, pause=context.pause)
    title = f"# Uncommitted changes on top of {head.commit or 'no commit'}; `git apply` takes this file.\n"
    notes = [title]
    if redactions:
        notes.append(
            f"# {redactions} lines held something that looks like a secret: it reads {redact.REDACTED} here.\n"
        )
    if patch.is_truncated:
        notes.append("# There were more changes than are kept.\n")
    data = "".join(notes + lines).encode("utf-8", "surrogateescape")
    kept: dict[str, JSON] = {"file": context.keep_patch(data)} if context.keep_patch and lines else {}
    return kept | {
        "size_bytes": len(data) if lines else 0,
        "is_truncated": patch.is_truncated,
        "redacted_lines": redactions,
        "omitted": [*omitted[:_MOST_LISTED]],
    }


def _is_large(path: Path) -> bool:
    """Return whether git would read more of a changed file than anybody reads in a patch."""
    try:
        return path.lstat().st_size > _LARGEST_DIFFED_FILE
    except OSError:  # deleted
        return False


def _add_changes(patch: _Patch, checkout: Checkout, head: _Head, large: list[str]) -> None:
    base = head.commit
    if base is None:
        # Before the first commit: against the tree without files, whose id depends on the hash in use.
        base = checkout.git("hash-object", "-t", "tree", "--stdin", stdin=b"").data.decode().strip()
    excluded = [f":(exclude,icase,glob)**/{pattern}" for pattern in _SECRET_FILES]
    excluded += [f":(exclude,literal,top){path}" for path in large]
    output = checkout.git(
        "diff",
        *("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--full-index", "--submodule=short"),
        *("--src-prefix=a/", "--dst-prefix=b/", "--no-relative", base, "--", ".", *excluded),
        max_bytes=PATCH_BYTES,
    )
    data = output.data
    if output.is_truncated:
        # Up to the last whole file, so that it still applies; of a single long one, up to the last whole line.
        patch.is_truncated = True
        cut = data.rfind(b"\ndiff --git ") + 1 or data.rfind(b"\n") + 1
        data = data[:cut]
    # Only \n ends a line: splitlines() would take form feeds and others for it.
    lines = [line + "\n" for line in data.decode("utf-8", "surrogateescape").split("\n")][:-1]
    # A title followed by another: a file that was touched, and is the same.
    patch.lines = [
        line
        for line, following in pairwise([*lines, "diff --git "])
        if not (line.startswith("diff --git ") and following.startswith("diff --git "))
    ]
    patch.size_bytes = sum(map(len, patch.lines))


def _add_untracked(patch: _Patch, root: Path, paths: tuple[str, ...], context: Context) -> list[str]:
    """Add small text files as new ones; return those that stay out."""
    omitted, kept, size_bytes = [], 0, 0
    for path in sorted(paths, key=lambda path: (PurePosixPath(path).suffix.lower() not in _SOURCE_SUFFIXES, path)):
        context.pause()
        text = None
        if kept < _UNTRACKED_FILES and not _is_secret_file(path):
            text = _small_text(root / path)
        if text is None or size_bytes + len(text) > min(_UNTRACKED_BYTES, PATCH_BYTES - patch.size_bytes):
            omitted.append(path)
            continue
        kept += 1
        size_bytes += len(text)
        patch.lines += _as_new_file(path, text)
    patch.size_bytes += size_bytes
    return omitted


def _is_secret_file(path: str) -> bool:
    name = PurePosixPath(path.lower())
    return any(name.match(pattern) for pattern in _SECRET_FILES) or ".ssh" in name.parts or ".aws" in name.parts


def _small_text(path: Path) -> str | None:
    """Return the content of a small regular text file; never of what a link points to, never of a pipe or device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode) or state.st_size > _LARGEST_UNTRACKED_FILE:
            return None
        data = file.read(_LARGEST_UNTRACKED_FILE + 1)
    if b"\0" in data or len(data) > _LARGEST_UNTRACKED_FILE:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _as_new_file(path: str, text: str) -> list[str]:
    name_a, name_b = _quoted(f"a/{path}"), _quoted(f"b/{path}")
    lines = [f"diff --git {name_a} {name_b}\n", "new file mode 100644\n"]
    if not text:
        return lines
    content = text.split("\n")
    is_ended = content[-1] == ""
    if is_ended:
        content.pop()
    lines += ["--- /dev/null\n", f"+++ {name_b}\n", f"@@ -0,0 +1,{len(content)} @@\n"]
    lines += [f"+{line}\n" for line in content]
    if not is_ended:
        lines.append("\\ No newline at end of file\n")
    return lines


def _quoted(path: str) -> str:
    """Write a path as git does in a patch: as it is, or in quotes with escapes where it must be."""
    named = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    if not any(character in named or ord(character) < 32 for character in path):
        return path
    escaped = (named.get(c) or (f"\\{ord(c):03o}" if ord(c) < 32 else c) for c in path)
    return f'"{"".join(escaped)}"'
