"""Finds secrets in names, arguments, addresses and text, and takes them out.

Three ways lead to a secret: its name (`api_key = ...`, `--token X`), its shape (`ghp_...`, `AKIA...`, a PEM block,
a password in a URL), and its randomness. Names are judged word by word, so that `--tokenizer gpt2` and
`pad_token = "<pad>"` stay. Text keeps its lines: a patch still applies after its secrets are gone.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

REDACTED = "<redacted>"

# --- names ---------------------------------------------------------------------------------------------------
_IN_VARIABLE_NAMES = ("KEY", "TOKEN", "SECRET", "PASS", "PWD", "CRED", "AUTH", "COOKIE")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_STRONG = frozenset(
    "secret secrets password passwords passwd passphrase passcode pwd credential credentials creds cred apikey apikeys "
    "authtoken accesskey secretkey privatekey accesstoken bearer cookie cookies".split()
)
_WEAK = frozenset("key keys token tokens pass auth authorization pat".split())
# In front of `key` or `token` these say that it opens something.
_OPENING = frozenset(
    "api access private secret auth oauth encryption signing service account refresh session bot deploy license client "
    "aws azure gcp google hf huggingface hub openai anthropic github gitlab wandb comet neptune mlflow clearml slack "
    "ssh registry pypi npm docker webhook master admin user jwt id bearer x".split()
)
# In front of `token` these are words of language models.
_VOCABULARY = frozenset("pad eos bos unk mask sep cls special image audio num max min new next start end".split())


def is_secret_variable(name: str) -> bool:
    """Return whether the value of an environment variable of this name is withheld."""
    return any(part in name.upper() for part in _IN_VARIABLE_NAMES)


def _weight(name: str) -> int:
    """Return 2 where a name surely means a secret, 1 where it may, 0 where it does not."""
    words = [word.lower() for word in _WORDS.findall(name)]
    weight = 0
    for before, word in zip(["", *words], words, strict=False):
        if word in _STRONG:
            return 2
        if word in _WEAK and before not in _VOCABULARY:
            opens = before in _OPENING or (name.isupper() and word != "tokens" and (before or word != "pass"))
            weight = max(weight, 2 if opens else 1)
    return weight


# --- shapes --------------------------------------------------------------------------------------------------
_SHAPES = re.compile(
    r"""(?x)
    \b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b                   # AWS
    | \bgh[pousr]_[A-Za-z0-9]{16,} | \bgithub_pat_\w{20,}     # GitHub
    | \bgl(?:pat|ptt|rt|dt)-[\w-]{16,}                        # GitLab
    | \b(?:sk|rk|pk)[-_][A-Za-z0-9_-]{16,}                    # OpenAI, Anthropic, Stripe
    | \bhf_[A-Za-z0-9]{16,} | \bapi_org_[A-Za-z0-9]{16,}      # Hugging Face
    | \bxox[abeoprs]-[\w-]{10,} | \bxapp-[\w-]{10,}           # Slack
    | \bhooks\.slack\.com/services/[\w/]+
    | \bAIza[\w-]{30,} | \bya29\.[\w-]{16,} | \bGOCSPX-[\w-]{16,}     # Google
    | \bnpm_[A-Za-z0-9]{30,} | \bpypi-[\w-]{16,} | \bdckr_(?:pat|oat)_[\w-]{16,}
    | \bSG\.[\w-]{16,}\.[\w-]{16,} | \bdop_v1_[a-f0-9]{32,} | \bwandb_v1_\w{16,} | \bnapi_\w{16,} | \br8_\w{30,}
    | \beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?                  # JSON web tokens
    """
)
# One of these is in whatever has a shape: asking for them first is much faster.
_SHAPE_STARTS = (
    "AKIA ASIA ABIA ACCA ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- glptt- glrt- gldt- sk- sk_ rk- rk_ pk- pk_ hf_ "
    "api_org_ xox xapp- slack.com AIza ya29. GOCSPX- npm_ pypi- dckr_ SG. dop_v1_ wandb_v1_ napi_ r8_ eyJ"
).split()
_has_start = re.compile("|".join(map(re.escape, _SHAPE_STARTS))).search
# And none is shorter than this (Slack's); most strings of a snapshot are.
_SHORTEST = 15
# `conda.example/t/<token>/channel`
_CONDA_TOKEN = re.compile(r"^(/t/)[^/]+")
_BEARER = re.compile(r"(?i)\b(bearer|basic|token)(\s+)(?=[\w.~+/=-]*\d)([\w.~+/=-]{12,})")
# Up to the last @ before a slash: a password may hold one itself.
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20}://)[^\s/'\"<>]*@")
_PEM_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----")
_PEM_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----")
_LONGEST_PEM_LINES = 200

# --- randomness ----------------------------------------------------------------------------------------------
_RUNS = re.compile(r"(?<![\w+/=-])(?P<digest>sha\d+[-:=])?(?P<run>[A-Za-z0-9_+/=-]{20,})")
_DENSE = re.compile(r"[A-Za-z0-9_+=-]{24,}|[A-Za-z0-9+/]{40}")
_LEAST_BITS = 4.0


def _is_random(text: str) -> bool:
    """Return whether text of letters and digits looks drawn at random.

    Hexadecimal does not count: commits, checksums and run ids are made of it. Long names do not
    either: in these, letters and digits seldom take turns.
    """
    if not (any(map(str.islower, text)) and any(map(str.isupper, text))) or sum(map(str.isdigit, text)) < 3:
        return False
    pairs = itertools.pairwise(text)
    turns = sum(a.isdigit() != b.isdigit() for a, b in pairs if a.isalnum() and b.isalnum())
    if turns < 4:
        return False
    bits = -sum(n / len(text) * math.log2(n / len(text)) for n in map(text.count, set(text)))
    return bits >= _LEAST_BITS


def _without_random(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        if match["digest"]:
            return match[0]
        return _DENSE.sub(lambda dense: REDACTED if _is_random(dense[0]) else dense[0], match[0])

    return _RUNS.sub(replace, text)


# --- names with values, inside text --------------------------------------------------------------------------
_NAME = r"[\w.-]*(?:key|token|secret|pass|pwd|cred|auth|cookie|bearer|pat)[\w.-]*"
_ASSIGNED = re.compile(
    rf"""(?xi)
    (?P<name>{_NAME}) (?P<quote>\\?["']?) \]? \)?
    (?P<between> \s* (?: : \s* [\w.\[\]|\ ]{{1,40}}? \s* = | => | [:=]{{1,2}} ) \s* | \s*,\s* | \s+ )
    (?P<prefix>[rbfuRBFU]{{0,2}})
    (?P<value> \\?"(?:[^"\\\n]|\\.)*\\?" | \\?'(?:[^'\\\n]|\\.)*\\?' | [^\s"',;)}}\]]+ )
    """
)
_HARMLESS = re.compile(r"(?i)[-+]?[\d._]+(e[-+]?\d+)?|true|false|yes|no|on|off|none|null|nil|auto|disabled|enabled|")
_REFERENCE = re.compile(r"\$\{?\w+.*|\{\{.*|<.*>|%\w+%|env[.:(].*")
# A bare word after `=` in these is a variable, elsewhere it is the value itself.
_CODE_SUFFIXES = frozenset(
    ".py .pyi .pyx .js .jsx .ts .tsx .c .cc .cpp .cu .cuh .h .hpp .rs .go .java .kt .scala .r .jl .swift .cs "
    ".rb .php".split()
)
_has_hint = re.compile("key|token|secret|pass|pwd|cred|auth|cookie|bearer|basic|pat").search


def _is_value_secret(weight: int, value: str, *, is_quoted: bool, is_code: bool) -> bool:
    if _HARMLESS.fullmatch(value) or _REFERENCE.fullmatch(value):
        return weight == 2 and is_quoted and value.isdigit()  # password = "1234"
    if any(character.isspace() for character in value) and weight < 2:
        return False
    if is_quoted:
        return len(value) >= 4 if weight == 2 else len(value) >= 16 and any(map(str.isdigit, value))
    if is_code or value[0] in "([{" or "(" in value:
        return False
    return len(value) >= 4 if weight == 2 else len(value) >= 12 and any(map(str.isdigit, value))


def _is_pair(match: re.Match[str], between: str) -> bool:
    """Return whether name and value belong together without a sign: `f("API_KEY", "x")` and `--api-key x`."""
    if "," in between:
        before = match.string[: match.start()].rstrip("\"'\\")
        return bool(match["quote"]) and before.endswith("(") and match["value"][0] in "\"'\\"
    return match["name"].startswith("-")


def _begins_line(match: re.Match[str]) -> bool:
    before = match.string[match.string.rfind("\n", 0, match.start()) + 1 : match.start()]
    return not before.strip(" \t-{,\"'")


def _without_assigned(text: str, *, is_code: bool) -> str:
    def replace(match: re.Match[str]) -> str:
        value, between = match["value"], match["between"]
        quote = re.match(r"\\?[\"']", value)
        bare = value[quote.end() : -quote.end()] if quote else value
        is_joined = ":" in between or "=" in between
        if not is_joined and not _is_pair(match, between):
            return match[0]
        # In prose a colon follows many words; in a configuration the name begins the line.
        is_prose = not quote and "=" not in between and ":" in between and not _begins_line(match)
        if is_prose:
            return match[0]
        weight = _weight(match["name"])
        if not weight or not _is_value_secret(weight, bare, is_quoted=bool(quote), is_code=is_code and is_joined):
            return match[0]
        mark = quote[0] if quote else ""
        return match[0][: match.start("value") - match.start()] + mark + REDACTED + mark

    return _ASSIGNED.sub(replace, text)


# --- what collectors call ------------------------------------------------------------------------------------
def url(address: str) -> str:
    """Return an address without user, password, query and fragment; what cannot be parsed but holds an @ is dropped."""
    if "://" not in address:
        # `git@host:path`, a local path, or something with a password that no rule knows.
        is_plain = address.count("@") <= 1 and ":" not in address.partition("@")[0]
        return text(address) if is_plain else REDACTED
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return REDACTED if "@" in address else text(address)
    if ":" in host:
        host = f"[{host}]"
    path = _CONDA_TOKEN.sub(rf"\1{REDACTED}", parts.path)
    return text(urlunsplit((parts.scheme, f"{host}:{port}" if port else host, path, "", "")))


def shapes(value: str) -> str:
    """Return text without what has the shape of a secret: cheap, and right for every string there is."""
    if len(value) >= _SHORTEST and _has_start(value):
        value = _SHAPES.sub(REDACTED, value)
    if "://" in value:
        value = _USERINFO.sub(rf"\1{REDACTED}@", value)
    return value


def text(value: str, *, is_code: bool = False) -> str:
    """Return text of one or more lines without secrets, with as many lines."""
    if "PRIVATE KEY" in value:
        value = "\n".join(_without_pem(value.split("\n")))
    value = shapes(value)
    if _has_hint(value.lower()):
        value = _BEARER.sub(rf"\1\2{REDACTED}", value)
        value = _without_assigned(value, is_code=is_code)
    return _without_random(value)


def arguments(argv: Sequence[str]) -> list[str]:
    """Return a command line without secrets: `--api-key X`, `--token=X`, `auth.token=X`, and what `text` finds."""
    clean: list[str] = []
    weight = 0  # of the flag before, whose value comes now
    for argument in argv:
        if weight and not argument.startswith("--"):
            is_harmless = weight < 2 and bool(_HARMLESS.fullmatch(argument))
            clean.append(argument if is_harmless else REDACTED)
            weight = 0
            continue
        name, equals, value = argument.partition("=")
        weight = _weight(name) if re.fullmatch(r"[-+~]{0,2}[\w.:/@-]+", name) else 0
        if equals and weight:
            is_harmless = not value or (weight < 2 and bool(_HARMLESS.fullmatch(value)))
            clean.append(argument if is_harmless else f"{name}={REDACTED}")
            weight = 0
            continue
        if not argument.startswith("-") or equals:
            weight = 0
        clean.append(text(argument))
    return clean


def patch(lines: Iterable[str], *, pause: Callable[[], None]) -> tuple[list[str], int]:
    """Return the lines of a patch without secrets, and how many lines had one. Line counts stay."""
    clean: list[str] = []
    changed = 0
    is_code = False
    given = list(lines)
    bodies = [line.removesuffix("\n") for line in given]
    for number, (line, body, without_pem) in enumerate(zip(given, bodies, _without_pem(bodies), strict=True)):
        if number % 32 == 0:
            pause()
        if body.startswith(("+++ ", "--- ")):
            is_code = PurePosixPath(body.strip().strip('"')).suffix.lower() in _CODE_SUFFIXES
            new = shapes(without_pem)
        else:
            # Behind the mark in the first column, so that the mark is never part of a name.
            new = without_pem[:1] + text(without_pem[1:], is_code=is_code)
        changed += new != body
        clean.append(new + line[len(body) :])
    return clean, changed


def _without_pem(lines: list[str]) -> Iterable[str]:
    left = 0
    for line in lines:
        if left:
            ended = _PEM_END.search(line)
            left = 0 if ended else left - 1
            yield line[:1] + REDACTED if line[:1] in "+- " else REDACTED
            continue
        begun = _PEM_BEGIN.search(line)
        if begun and not _PEM_END.search(line):
            left = _LONGEST_PEM_LINES
            yield line[: begun.start()] + REDACTED
        elif begun:
            yield line[: begun.start()] + REDACTED + line[list(_PEM_END.finditer(line))[-1].end() :]
        else:
            yield line


def tree(value: Any, *, home: str | None) -> Any:
    """Return a JSON value in which no string has a secret's shape, names the home folder, or is not text.

    The last net under every collector; keys of objects pass it too.
    """
    if isinstance(value, str):
        if not value.isascii():
            value = (
                value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if _encodes(value) else ascii(value)
            )
        return shapes(_without_home(value, home))
    if isinstance(value, dict):
        return {tree(str(key), home=home): tree(item, home=home) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tree(item, home=home) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number, and a snapshot no field that means one
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _encodes(value: str) -> bool:
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _without_home(value: str, home: str | None) -> str:
    """Write the user's home folder as `~`: it names the user."""
    home = (home or "").rstrip("/")
    if len(home) < 2 or home not in value:
        return value
    return re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w.-])", "~", value)
