"""What is watched for and who is told: `alerts.yaml` of a workspace, or the same as values in Python. Sends nothing.

```yaml
alerts:
  - when: nan                               # a metric became NaN or Inf; metric: pattern
  - when: diverged                          # a loss got worse than 3 times its best; metric: "*loss*", factor: 3
  - {when: no_improvement, metric: val/loss, goal: minimize, after: 30m}    # or points: 500
  - {when: stalled, after: 10m}             # no point came, though the process lives
  - {when: gpu_idle, below: 10, after: 10m} # percent, mean over that time and all GPUs
  - {when: disk_full, below: 5GB}           # or 5%: free where the run is written
  - {when: metric, metric: val/acc, above: 0.95, level: info}
  - {when: ended, status: [failed, crashed]}
deliver:
  - {name: team, url: "https://hooks.example.org/…", format: slack, level: warning}
  - {name: pager, command: [./page.sh], level: error}
  - {name: me, desktop: true}
  - name: post
    mail: {to: [me@example.org], from: runs@example.org, server: "mail.example.org:587", user: runs,
           password: {env: MAIL_PASSWORD}}
trials: false                               # whether trials of sweeps are watched, too
```
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runstone.errors import InvalidConfig
from runstone.models.yamlfile import read_yaml
from runstone.status import Status

FILE = "alerts.yaml"
LEVELS = ("info", "warning", "error")
FORMATS = ("json", "slack", "discord")
_SECURITY = ("starttls", "tls", "none")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,63}")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_UNITS_BYTES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
# Of each kind: its keys, and the level and values that stand where none are given.
_KINDS: dict[str, dict[str, Any]] = {
    "nan": {"level": "error", "metric": "*"},
    "diverged": {"level": "error", "metric": "*loss*", "factor": 3.0},
    "no_improvement": {"level": "warning", "metric": None, "goal": "minimize", "after": None, "points": None},
    "stalled": {"level": "warning", "after": "10m"},
    "gpu_idle": {"level": "warning", "below": 10.0, "after": "10m"},
    "disk_full": {"level": "error", "below": "5%"},
    "metric": {"level": "warning", "metric": None, "above": None, "below": None, "points": 1},
    "ended": {"level": "error", "status": ("failed", "crashed")},
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing to watch for.

    Attributes:
        name: What the alert is called; default: the kind, and the metric where there is one.
        when: Its kind, one of those in docs/alerts.md.
        level: `info`, `warning` or `error`.
        metric: Pattern of metric names, as file names are matched.
        above, below: Limits of a metric; `below` also of the load of the GPUs in percent.
        goal: `minimize` or `maximize`.
        points: So many points in a row.
        after_s: So many seconds.
        factor: How many times its best a loss may be.
        free_bytes, free_share: How much of the disk must be free.
        statuses: Ends that are told of.
    """

    name: str
    when: str
    level: str
    metric: str = "*"
    above: float | None = None
    below: float | None = None
    goal: str = "minimize"
    points: int | None = None
    after_s: float | None = None
    factor: float = 3.0
    free_bytes: int | None = None
    free_share: float | None = None
    statuses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mail:
    """Where a mail goes, and through which server; `password` is `("env", variable)` or `("file", path)`."""

    to: tuple[str, ...]
    sender: str
    host: str
    port: int
    security: str = "starttls"
    user: str | None = None
    password: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Who is told of alerts from a level on: by one of a command, a web address, the desktop, a mail."""

    name: str
    level: str = "info"
    command: tuple[str, ...] = ()
    url: str | None = None
    format: str = "json"
    secret: tuple[str, str] | None = None
    desktop: bool = False
    mail: Mail | None = None
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Alerting:
    """Rules, targets, and the plain values that they were read from.

    Attributes:
        rules: What is watched for.
        targets: Who is told.
        trials: Whether trials of sweeps are watched, too.
    """

    rules: tuple[Rule, ...] = ()
    targets: tuple[Target, ...] = ()
    trials: bool = False
    source: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.rules or self.targets)

    def to_json(self) -> str:
        """Return what `parse_alerting` takes, for another process."""
        return json.dumps(self.source)


EMPTY = Alerting()


def read_alerting(workspace: Path, given: Sequence[Any] | None = None) -> Alerting:
    """Return the rules of a workspace, with those given in code before them.

    Raises:
        InvalidConfig: they have mistakes; each is one line of the message.
    """
    try:
        raw = read_yaml(workspace / FILE)
    except FileNotFoundError:
        raw = {}
    standing = parse_alerting(raw) if raw else EMPTY
    if not given:
        return standing
    own = parse_alerting({"alerts": list(given)}, "alerts")
    mine = list(own.source.get("alerts", ())) + list(standing.source.get("alerts", ()))
    return parse_alerting({**standing.source, "alerts": mine}, f"alerts and {FILE}")


def parse_alerting(raw: Any, where: str = FILE) -> Alerting:
    """Check rules and targets that are plain values already; as `read_alerting`."""
    if not isinstance(raw, dict) or not set(raw) <= {"alerts", "deliver", "trials"}:
        raise InvalidConfig(f"{where}: must be a mapping with the keys alerts, deliver and trials")
    mistakes: list[str] = []
    rules = _each(raw, "alerts", _rule, where, mistakes)
    targets = _each(raw, "deliver", _target, where, mistakes)
    trials = raw.get("trials", False)
    if not isinstance(trials, bool):
        mistakes.append(f"{where}: trials must be true or false, got {trials!r:.80}")
    for what, names in (("alerts", [rule.name for rule in rules]), ("deliver", [target.name for target in targets])):
        for name in sorted({name for name in names if names.count(name) > 1}):
            mistakes.append(f"{where}: {what}: the name {name!r} stands there twice; give one of them another")
    if mistakes:
        raise InvalidConfig("\n".join(mistakes))
    return Alerting(tuple(rules), tuple(targets), trials, raw)


class _Wrong(Exception):
    """A value that is not legal; its text says why."""


def _each(raw: dict[str, Any], key: str, parse: Any, where: str, mistakes: list[str]) -> list[Any]:
    entries = raw.get(key) or []
    if not isinstance(entries, list):
        mistakes.append(f"{where}: {key} must be a list")
        return []
    found = []
    for index, entry in enumerate(entries):
        try:
            found.append(parse(entry))
        except _Wrong as error:
            mistakes.append(f"{where}: {key}.{index}: {error}")
    return found


# --- rules ----------------------------------------------------------------------------------------------------------


def _rule(entry: Any) -> Rule:
    entry = {"when": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict):
        raise _Wrong("must be a kind, or a mapping with the key when")
    kind = entry.get("when")
    if kind not in _KINDS:
        raise _Wrong(f"when must be one of {', '.join(_KINDS)}, got {kind!r:.80}")
    known = {"when", "name", *_KINDS[kind]}
    for key in entry:
        if key not in known:
            raise _Wrong(f"{key!s:.40} is not a key of {kind}; there is {', '.join(sorted(known))}")
    told = {**_KINDS[kind], **entry}
    metric = told.get("metric", "*")
    if not isinstance(metric, str) or not metric:
        raise _Wrong("metric must be the name of a metric, or a pattern")
    name = told.get("name", kind if metric == _KINDS[kind].get("metric", "*") else f"{kind} {metric}")
    if not isinstance(name, str) or not 0 < len(name) <= 200:
        raise _Wrong("name must be text of 1 to 200 characters")
    if told["level"] not in LEVELS:
        raise _Wrong(f"level must be one of {', '.join(LEVELS)}, got {told['level']!r:.80}")
    values: dict[str, Any] = {"name": name, "when": kind, "level": told["level"], "metric": metric}
    if kind == "disk_full":
        values |= _space(told["below"])
    else:
        values |= {key: _number(key, told[key]) for key in ("above", "below") if told.get(key) is not None}
    if "factor" in told:
        values["factor"] = _number("factor", told["factor"], above=1.0)
    if "goal" in told and told["goal"] not in ("minimize", "maximize"):
        raise _Wrong(f"goal must be minimize or maximize, got {told['goal']!r:.80}")
    values |= {key: told[key] for key in ("goal",) if key in told}
    if told.get("after") is not None:
        values["after_s"] = seconds(told["after"])
    if told.get("points") is not None:
        values["points"] = _count(told["points"])
    if kind == "ended":
        values["statuses"] = _statuses(told["status"])
    if kind == "metric" and (("above" in values) == ("below" in values)):
        raise _Wrong("a metric needs either above or below")
    if kind == "no_improvement" and (("after_s" in values) == ("points" in values)):
        raise _Wrong("no_improvement needs either after, such as 30m, or points")
    return Rule(**values)


def _number(key: str, value: Any, above: float = -math.inf) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= above:
        raise _Wrong(f"{key} must be a number{f' above {above:g}' if above > -math.inf else ''}, got {value!r:.80}")
    return float(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _Wrong(f"points must be a whole number from 1 on, got {value!r:.80}")
    return value


def _statuses(value: Any) -> tuple[str, ...]:
    words = [value] if isinstance(value, str) else value
    legal = [status.value for status in Status if status is not Status.RUNNING]
    if not isinstance(words, list | tuple) or not words or not all(word in legal for word in words):
        raise _Wrong(f"status must be some of {', '.join(legal)}, got {value!r:.80}")
    return tuple(words)


def seconds(value: Any) -> float:
    """Return a duration such as `90`, `"90s"`, `"1h30m"` in seconds."""
    if isinstance(value, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", value.replace(" ", ""))
        if parts and "".join(number + unit for number, unit in parts) == value.replace(" ", ""):
            value = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    return _positive_s(value)


def _positive_s(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return float(value)
    raise _Wrong(f"after must be a duration such as 90s, 10m or 1h30m, got {value!r:.80}")


def _space(value: Any) -> dict[str, Any]:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|[a-z]+)", str(value).strip().lower())
    if match and match[2] == "%" and 0 < float(match[1]) < 100:
        return {"free_share": float(match[1]) / 100}
    if match and match[2] in _UNITS_BYTES and float(match[1]) > 0:
        return {"free_bytes": int(float(match[1]) * _UNITS_BYTES[match[2]])}
    raise _Wrong(f"below must be a share or a size such as 5% or 5GB, got {value!r:.80}")


# --- targets --------------------------------------------------------------------------------------------------------


def _target(entry: Any) -> Target:
    if not isinstance(entry, dict):
        raise _Wrong("must be a mapping with name, and command, url, desktop or mail")
    known = {"name", "level", "command", "url", "format", "secret", "desktop", "mail", "timeout_s"}
    for key in entry:
        if key not in known:
            raise _Wrong(f"{key!s:.40} is not a key here; there is {', '.join(sorted(known))}")
    ways = [key for key in ("command", "url", "desktop", "mail") if entry.get(key)]
    if len(ways) != 1:
        raise _Wrong("needs one of command, url, desktop and mail")
    name = entry.get("name", ways[0])
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _Wrong("name must be 1 to 64 letters, digits, ' ', '_', '-' and '.'")
    values: dict[str, Any] = {"name": name, "level": entry.get("level", "info")}
    if values["level"] not in LEVELS:
        raise _Wrong(f"level must be one of {', '.join(LEVELS)}, got {values['level']!r:.80}")
    if "timeout_s" in entry:
        values["timeout_s"] = _number("timeout_s", entry["timeout_s"], above=0.0)
    if ways == ["command"]:
        command = entry["command"]
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            raise _Wrong("command must be a list of texts, the program first: no shell reads it")
        values["command"] = tuple(command)
    elif ways == ["url"]:
        values |= _address(entry)
    elif ways == ["desktop"]:
        if entry["desktop"] is not True:
            raise _Wrong("desktop must be true")
        values["desktop"] = True
    else:
        values["mail"] = _mail(entry["mail"])
    if "secret" in entry and ways != ["url"]:
        raise _Wrong("only a url is signed with a secret")
    if "format" in entry and ways != ["url"]:
        raise _Wrong("only a url has a format")
    return Target(**values)


def _address(entry: dict[str, Any]) -> dict[str, Any]:
    url = entry["url"]
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        is_right = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_right = False
    if not is_right:
        raise _Wrong("url must be one of http or https")
    form = entry.get("format", "json")
    if form not in FORMATS:
        raise _Wrong(f"format must be one of {', '.join(FORMATS)}, got {form!r:.80}")
    return {"url": url, "format": form, "secret": _secret("secret", entry.get("secret"))}


def _secret(key: str, value: Any) -> tuple[str, str] | None:
    if value is None:
        return None
    if isinstance(value, dict) and len(value) == 1:
        kind, place = next(iter(value.items()))
        if kind in ("env", "file") and isinstance(place, str) and place:
            return kind, place
    raise _Wrong(f"{key} must be {{env: VARIABLE}} or {{file: PATH}}, never the secret itself")


def _mail(value: Any) -> Mail:
    known = {"to", "from", "server", "security", "user", "password"}
    if not isinstance(value, dict) or not set(value) <= known:
        raise _Wrong(f"mail must be a mapping; its keys are {', '.join(sorted(known))}")
    to = [value["to"]] if isinstance(value.get("to"), str) else value.get("to")
    addresses = [*(to or []), value.get("from")] if isinstance(to, list) else [None]
    if not to or not all(isinstance(one, str) and re.fullmatch(r"[^\s@,<>]+@[^\s@,<>]+", one) for one in addresses):
        raise _Wrong("mail needs to and from, each an address such as me@example.org")
    host, _colon, port = str(value.get("server", "localhost:25")).rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise _Wrong(f"server must be host:port, got {value.get('server')!r:.80}")
    security = value.get("security", "none" if host in ("localhost", "127.0.0.1") else "starttls")
    if security not in _SECURITY:
        raise _Wrong(f"security must be one of {', '.join(_SECURITY)}, got {security!r:.80}")
    user = value.get("user")
    if user is not None and not isinstance(user, str):
        raise _Wrong("user must be text")
    return Mail(tuple(to), value["from"], host, int(port), security, user, _secret("password", value.get("password")))
