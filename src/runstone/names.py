"""Which names are legal, how a name becomes a folder, and how a run is named when the user did not.

A name is any text. It is never a path: folders are derived from it so that no name can reach outside
its place, clash by letter case, or be too long for a file system.
"""

from __future__ import annotations

import os
import re
import time
import zlib

from runstone.errors import InvalidName

SYSTEM = "system/"
"""How the names of system metrics begin. Their steps are seconds, so they take no part in what is said of steps."""

MAX_NAME_LENGTH = 1024
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_UNSAFE = re.compile(r"[^a-z0-9_-]+")
# Windows keeps these for devices, whatever their ending.
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))})


def check_name(name: object, what: str) -> str:
    """Return `name` if it can be kept, exactly as it is.

    Args:
        name: Any text of 1 to 1,024 characters without NUL and lone surrogates.
        what: What is being named, for the message, such as `"metric"`.

    Raises:
        InvalidName: it is not text, empty, too long, or cannot be written as UTF-8.
    """
    if not isinstance(name, str):
        raise InvalidName(f"the name of a {what} must be text, got {shown(name)}")
    if not name or name.isspace():
        raise InvalidName(f"the name of a {what} is empty; give it at least one visible character")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidName(
            f"the name of a {what} has {len(name)} characters, at most {MAX_NAME_LENGTH} are kept: {name[:40]!r}…"
        )
    if "\0" in name:
        raise InvalidName(f"the name of a {what} contains a NUL character: {name[:80]!r}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidName(
            f"the name of a {what} contains half of a surrogate pair at character {error.start}: {name[:80]!r}"
        ) from None
    return name


def shown(value: object) -> str:
    """Return the type of a value and the beginning of its `repr`, for a message; foreign code may raise in it."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"(its repr raises {type(error).__name__})"
    return f"{type(value).__name__} {text[:80]}"


def check_run_id(run_id: object) -> str:
    """Return `run_id` if it is legal: 1 to 64 of `a-z 0-9 _ -`, starting with a letter or digit.

    Raises:
        InvalidName: it has another form. Ids name folders; free text belongs in `name=`.
    """
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id) or run_id in _DEVICES:
        raise InvalidName(
            f"run id {run_id!r:.80} is not legal: use 1 to 64 of the characters a-z, 0-9, '_' and '-', "
            "starting with a letter or digit (put free text into name=)"
        )
    return run_id


def folder_name(name: str) -> str:
    """Return the folder that stands for `name`: the name itself where that is safe, else a slug and a hash.

    Two different names never share a folder, on file systems that ignore letter case too: only
    lower-case names stand for themselves, and `~` occurs in no such name.
    """
    if _PLAIN.fullmatch(name) and name not in _DEVICES:
        return name
    import hashlib  # loads OpenSSL, and most names need no hash

    slug = _UNSAFE.sub("-", name.lower()).strip("-")[:32] or "x"
    return f"{slug}~{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"


def new_run_id() -> str:
    """Return a new run id: a UUID of version 7 (RFC 9562) as 32 hex digits, so ids sort by time."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


def id_time(run_id: str) -> float | None:
    """Return when a run id was made, in seconds since the epoch, as `new_run_id` put it in; `None` for another's."""
    if re.fullmatch(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", run_id) is None:
        return None
    return int(run_id[:12], 16) / 1000


def new_run_name(run_id: str | None = None) -> str:
    """Return a readable name, two words and a number, such as `amber-falcon-417`.

    Args:
        run_id: Id that the name is derived from, so that processes which start one run at once agree.
    """
    if run_id is None:  # not `random`: the user's generators must not move
        chance = int.from_bytes(os.urandom(8))
    else:
        chance = zlib.crc32(run_id.encode()) << 32 | zlib.crc32(run_id[::-1].encode())
    chance, first = divmod(chance, len(_ADJECTIVES))
    chance, second = divmod(chance, len(_NOUNS))
    return f"{_ADJECTIVES[first]}-{_NOUNS[second]}-{chance % 999 + 1}"


_ADJECTIVES = (
    "able amber ample azure bold brave brief bright brisk broad calm candid cheerful civil clear clever cosy crisp "
    "daring deep deft eager early earnest fair fast fine firm fleet fond frank free fresh gentle glad golden grand "
    "happy hardy honest humble jolly keen kind lively loyal lucid lucky mellow merry mild modest neat nimble noble "
    "patient plain polite prime proud pure quick quiet rapid ready rosy royal sage serene sharp silent silver smooth "
    "snowy solid spry steady stout sunny sure swift tidy tranquil trusty upbeat vivid warm wise witty young zesty"
).split()
_NOUNS = (
    "acorn anchor aspen badger basin beacon birch bison breeze brook canyon cedar cliff cloud comet condor coral crane "
    "creek dawn delta dune eagle ember falcon fern finch fjord forest fox garnet glacier granite grove harbor hawk "
    "hazel heron hill island ivy jasper juniper kestrel lagoon lake larch lark lotus lynx maple marble meadow mesa "
    "mountain oak oasis ocean opal orchid osprey otter owl pebble pine plateau quartz raven reef ridge river robin "
    "rowan sage sparrow spring spruce star stone stream summit swallow swan thicket tide topaz trail valley violet "
    "walnut willow wolf wren"
).split()
