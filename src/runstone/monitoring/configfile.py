"""`monitoring.yaml` in the workspace: what is watched how, and what is done about it. Reads and checks, runs nothing.

```yaml
monitoring:
  - model: credit-*                    # any model, if it is left out; the first entry that fits counts
    labels: default                    # columns of batches
    predictions: score
    ignore: [customer_id]
    sample_rows: 0                     # rows of the reference that a profile keeps; default 5,000
    incident: drift                    # from which verdict on: warning, drift (default), error, or never
    thresholds: {alpha: 0.01, effect: 0.1}
    on_incident:
      - sweep: retrain.yaml            # `sweep run retrain.yaml`, in the folder that holds the workspace
      - command: [./retrain.sh, --fast]
      - url: https://ci.example.org/hook
        secret: {env: HOOK_SECRET}
```

Only the workspace's own file is read, never one of a checkout: whoever can write it can run commands as you.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from runstone.errors import InvalidConfig
from runstone.models.hookfile import parse_hooks
from runstone.models.yamlfile import read_yaml
from runstone.monitoring.performance import TASKS
from runstone.monitoring.report import Thresholds

FILE = "monitoring.yaml"
LEVELS = ("warning", "drift", "error", "never")
_KEYS = {"model", "labels", "predictions", "ignore", "task", "sample_rows", "incident", "thresholds", "on_incident"}
_ACTIONS = ("sweep", "command", "url")


@dataclass(frozen=True, slots=True)
class Action:
    """What is done when an incident is opened: one of three.

    Attributes:
        sweep: The config that `sweep run` is called with.
        command: Program and arguments, started without a shell.
        url: Where the event is posted to.
        secret: As of `Hook`.
    """

    sweep: str | None = None
    command: tuple[str, ...] = ()
    url: str | None = None
    secret: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Watching:
    """How the versions of some models are watched.

    Attributes:
        model: Pattern of the names of models, as file names are matched.
        labels, predictions: Columns of batches; `None`: as in the reference, where a batch has these.
        ignore: Columns that are no features.
        task: As of `Performance`; `None`: by the values.
        sample_rows: How many rows of its data a profile keeps at most; `None`: the usual.
        incident: From which verdict on an incident is opened.
        thresholds: From when on something counts.
        actions: What is done then.
    """

    model: str = "*"
    labels: str | None = None
    predictions: str | None = None
    ignore: tuple[str, ...] = ()
    task: str | None = None
    sample_rows: int | None = None
    incident: str = "drift"
    thresholds: Thresholds = field(default_factory=Thresholds)
    actions: tuple[Action, ...] = ()


def read_watching(workspace: Path, model: str) -> Watching:
    """Return how a model is watched; the defaults where nothing is said of it.

    Raises:
        InvalidConfig: the file has mistakes; each is one line of the message.
    """
    try:
        raw = read_yaml(workspace / FILE)
    except FileNotFoundError:
        return Watching()
    return next((one for one in parse_watching(raw) if fnmatchcase(model, one.model)), Watching())


def parse_watching(raw: Any) -> list[Watching]:
    """Check entries that are already a dict; as `read_watching`."""
    entries = raw.get("monitoring") if isinstance(raw, dict) else None
    if not isinstance(entries, list) or set(raw) != {"monitoring"}:
        raise InvalidConfig(f"{FILE}: must be a mapping with the key monitoring, and under it a list of models")
    mistakes = [
        f"{FILE}: monitoring.{place}: {problem}" for place, entry in enumerate(entries) for problem in _problems(entry)
    ]
    if mistakes:
        raise InvalidConfig("\n".join(mistakes))
    return [_watching(entry) for entry in entries]


def _problems(entry: Any) -> list[str]:
    if not isinstance(entry, dict):
        return ["must be a mapping"]
    found = [f"there is no key {key!r:.60}; there are {', '.join(sorted(_KEYS))}" for key in entry if key not in _KEYS]
    for key in ("model", "labels", "predictions"):
        if key in entry and not isinstance(entry[key], str):
            found.append(f"{key} must be text")
    ignore = entry.get("ignore", [])
    if not isinstance(ignore, list) or not all(isinstance(one, str) for one in ignore):
        found.append("ignore must be a list of columns")
    if entry.get("task", TASKS[0]) not in TASKS:
        found.append(f"task must be one of {', '.join(TASKS)}")
    if entry.get("incident", "drift") not in LEVELS:
        found.append(f"incident must be one of {', '.join(LEVELS)}")
    rows = entry.get("sample_rows", 0)
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        found.append(f"sample_rows must be a whole number of 0 or more, not {rows!r:.40}")
    found += _threshold_problems(entry.get("thresholds", {}))
    actions = entry.get("on_incident", [])
    if not isinstance(actions, list):
        return [*found, "on_incident must be a list"]
    for place, action in enumerate(actions):
        found += [f"on_incident.{place}: {problem}" for problem in _action_problems(action)]
    return found


def _threshold_problems(given: Any) -> list[str]:
    if not isinstance(given, dict):
        return ["thresholds must be a mapping"]
    known = [one.name for one in fields(Thresholds)]
    found = []
    for name, value in given.items():
        if name not in known:
            found.append(f"thresholds: there is no {name!r:.60}; there are {', '.join(known)}")
        elif name == "correction":
            if value not in ("holm", "bh"):
                found.append("thresholds: correction must be holm or bh")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            found.append(f"thresholds: {name} must be a number of 0 or more, not {value!r:.40}")
        elif name == "alpha" and not 0 < value < 1:
            found.append(f"thresholds: alpha must lie between 0 and 1, not {value!r:.40}")
    return found


def _action_problems(action: Any) -> list[str]:
    kinds = [key for key in _ACTIONS if isinstance(action, dict) and key in action]
    if len(kinds) != 1:
        return [f"must be a mapping with one of {', '.join(_ACTIONS)}"]
    if kinds == ["sweep"]:
        is_text = isinstance(action["sweep"], str) and action["sweep"] and set(action) == {"sweep"}
        return [] if is_text else ["sweep must be the path of a config, and nothing else stands beside it"]
    try:
        parse_hooks({"hooks": [{"name": "action", "on": ["incident_opened"], **action}]})
    except InvalidConfig as error:
        return [line.rpartition("hooks.0: ")[2] for line in str(error).splitlines()]
    return []


def _watching(entry: Mapping[str, Any]) -> Watching:
    return Watching(
        model=entry.get("model", "*"),
        labels=entry.get("labels"),
        predictions=entry.get("predictions"),
        ignore=tuple(entry.get("ignore", ())),
        task=entry.get("task"),
        sample_rows=entry.get("sample_rows"),
        incident=entry.get("incident", "drift"),
        thresholds=Thresholds(**entry.get("thresholds", {})),
        actions=tuple(_action(one) for one in entry.get("on_incident", ())),
    )


def _action(raw: Mapping[str, Any]) -> Action:
    secret = raw.get("secret")
    return Action(
        sweep=raw.get("sweep"),
        command=tuple(raw.get("command", ())),
        url=raw.get("url"),
        secret=next(iter(secret.items())) if secret else None,
    )
