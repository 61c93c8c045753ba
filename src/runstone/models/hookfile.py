"""`hooks.yaml` in the workspace: what is told of which events of the registry. Reads and checks, sends nothing.

```yaml
hooks:
  - name: deploy
    on: [promoted, rolled_back]
    model: credit-*                    # any model, if it is left out
    stage: production                  # any stage, if it is left out
    command: [./deploy.sh, --fast]     # the event as JSON on stdin, and in RUNSTONE_EVENT_* variables
    timeout_s: 120
  - name: tell-the-team
    on: [approved, rejected]
    url: https://ci.example.org/hook
    secret: {env: HOOK_SECRET}         # or {file: path}; never written anywhere
```

Only the workspace's own file is read, never one of a checkout: whoever can write it can run commands as you.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runstone.errors import InvalidConfig
from runstone.models.yamlfile import read_yaml

FILE = "hooks.yaml"
EVENTS = (
    "created",
    "registered",
    "approved",
    "rejected",
    "promoted",
    "rolled_back",
    "moved",
    "refused",
    "withdrawn",
    "revoked",
    "alias",
    "tagged",
    "deployed",
    "undeployed",
    "incident_opened",
    "incident_closed",
    "profiled",
)
DEFAULT_TIMEOUT_S = 10.0
_MOST_TIMEOUT_S = 3600.0
_KEYS = {"name", "on", "model", "stage", "command", "url", "secret", "timeout_s"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Hook:
    """One entry of the file.

    Attributes:
        name: What the history calls it; the only thing of it that is written there.
        on: The events that it is told of; some of `EVENTS`.
        model: Pattern of the names of models, as file names are matched.
        stage: The stage that a promotion, rollback or refusal is about; `None`: any.
        command: Program and arguments, started without a shell.
        url: Where the event is posted to, instead of a command.
        secret: `("env", variable)` or `("file", path)` of the key that signs it.
        timeout_s: How long one try may take.
    """

    name: str
    on: tuple[str, ...]
    model: str = "*"
    stage: str | None = None
    command: tuple[str, ...] = ()
    url: str | None = None
    secret: tuple[str, str] | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S

    def wants(self, word: str, model: str, stage: str | None) -> bool:
        """Tell whether it is to be told of an event."""
        return word in self.on and fnmatchcase(model, self.model) and self.stage in (None, stage)

    @property
    def target(self) -> str:
        """Where it goes, without what may be secret: the program, or the host."""
        if self.url is None:
            return self.command[0]
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}/…"


def read_hooks(workspace: Path) -> list[Hook]:
    """Return the hooks of a workspace; none where it has no `hooks.yaml`.

    Raises:
        InvalidConfig: the file has mistakes; each is one line of the message.
    """
    try:
        raw = read_yaml(workspace / FILE)
    except FileNotFoundError:
        return []
    return parse_hooks(raw)


def parse_hooks(raw: Any) -> list[Hook]:
    """Check hooks that are already a dict; as `read_hooks`."""
    entries = raw.get("hooks") if isinstance(raw, dict) else None
    if not isinstance(entries, list) or set(raw) != {"hooks"}:
        raise InvalidConfig(f"{FILE}: must be a mapping with the key hooks, and under it a list of hooks")
    entries = [_with_on(entry) for entry in entries]
    mistakes: list[str] = []
    names: set[str] = set()
    for index, entry in enumerate(entries):
        problems = _problems(entry)
        if not problems and entry["name"] in names:
            problems.append(f"the name {entry['name']!r} stands there twice")
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            names.add(entry["name"])
        mistakes += [f"{FILE}: hooks.{index}: {problem}" for problem in problems]
    if mistakes:
        raise InvalidConfig("\n".join(mistakes))
    return [_hook(entry) for entry in entries]


def _with_on(entry: Any) -> Any:
    """Return an entry with the key `on`, which YAML 1.1 takes for true."""
    return {"on" if key is True else key: value for key, value in entry.items()} if isinstance(entry, dict) else entry


def _hook(entry: Mapping[str, Any]) -> Hook:
    secret = entry.get("secret")
    return Hook(
        name=entry["name"],
        on=tuple(entry["on"]) if isinstance(entry["on"], list) else (entry["on"],),
        model=entry.get("model", "*"),
        stage=entry.get("stage"),
        command=tuple(entry.get("command", ())),
        url=entry.get("url"),
        secret=next(iter(secret.items())) if secret else None,
        timeout_s=float(entry.get("timeout_s", DEFAULT_TIMEOUT_S)),
    )


def _problems(entry: Any) -> list[str]:
    if not isinstance(entry, dict):
        return ["must be a mapping with name, on, and command or url"]
    found = [f"{key!s:.40} is not a key here; there is {', '.join(sorted(_KEYS))}" for key in entry if key not in _KEYS]
    if not isinstance(entry.get("name"), str) or not _NAME.fullmatch(entry["name"]):
        found.append("name must be 1 to 64 letters, digits, '_', '-' and '.'")
    on = entry.get("on")
    words = on if isinstance(on, list) else [on]
    if not words or not all(isinstance(word, str) and word in EVENTS for word in words):
        found.append(f"on must be some of {', '.join(EVENTS)}")
    found += [f"{key} must be text" for key in ("model", "stage") if not isinstance(entry.get(key, ""), str)]
    found += _where_problems(entry)
    timeout = entry.get("timeout_s", DEFAULT_TIMEOUT_S)
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and math.isfinite(timeout)
    if not is_number or not 0 < timeout <= _MOST_TIMEOUT_S:
        found.append(f"timeout_s must be a number of seconds, more than 0 and at most {_MOST_TIMEOUT_S:g}")
    return found


def _where_problems(entry: Mapping[str, Any]) -> list[str]:
    if ("command" in entry) == ("url" in entry):
        return ["needs either a command or a url"]
    if "command" in entry:
        command = entry["command"]
        if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
            return ["command must be a list of texts, the program first: no shell reads it"]
        return ["a command has no secret; only a url is signed"] if "secret" in entry else []
    found = []
    url = entry["url"]
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        is_right = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port if parts is not None else None
    except ValueError:
        is_right = False
    if not is_right:
        found.append("url must be one of http or https")
    secret = entry.get("secret")
    if secret is not None and not (
        isinstance(secret, dict)
        and len(secret) == 1
        and next(iter(secret)) in ("env", "file")
        and isinstance(next(iter(secret.values())), str)
    ):
        found.append("secret must be {env: VARIABLE} or {file: PATH}, never the secret itself")
    return found
