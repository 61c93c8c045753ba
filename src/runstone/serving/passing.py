"""What is served and how, as JSON that another process is given, and back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from runstone.serving.config import Bounds, LogConfig, ServingConfig
from runstone.serving.places import Place


def as_json(value: Any) -> Any:
    """Return a place or a config as JSON."""
    return json.loads(json.dumps(dataclasses.asdict(value), default=str))


def place_of(raw: dict[str, Any]) -> Place:
    """Return the place that `as_json` was given."""
    return Place(Path(raw["path"]), raw["ref"], raw["is_trusted"])


def config_of(raw: dict[str, Any]) -> ServingConfig:
    """Return the config that `as_json` was given."""
    log = dict(raw["log"])
    log["folder"] = None if log["folder"] is None else Path(log["folder"])
    fields = {**raw, "allowed_hosts": tuple(raw["allowed_hosts"]), "bounds": Bounds(**raw["bounds"])}
    return ServingConfig(**{**fields, "log": LogConfig(**log)})
