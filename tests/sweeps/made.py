"""Records of sweeps that never ran: made of the events that a coordinator would have written."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from runstone_sweeps.config import parse_spec
from runstone_sweeps.record import SweepRecord
from runstone_sweeps.record.journal import Event, Journal
from runstone_sweeps.spec import SweepSpec

AT = 1_700_000_000.0
CONFIG: dict[str, Any] = {
    "name": "made",
    "script": "train.py",
    "metric": {"name": "loss", "goal": "minimize"},
    "trials": 40,
    "parallel": 4,
    "seed": 3,
    "sampler": "random",
    "parameters": {
        "lr": {"min": 1e-5, "max": 1e-1, "log": True},
        "hidden": {"min": 16, "max": 256},
        "optimizer": {"values": ["adam", "sgd", "lion"]},
    },
}


def spec_of(config: Mapping[str, Any]) -> SweepSpec:
    return parse_spec(dict(config), folder=Path("/"), is_for_reading=True)


def numbered(events: Iterable[Mapping[str, Any]]) -> list[Event]:
    """Return events with the numbers and times that they lack."""
    return [{"at": AT + seq, **event, "seq": seq} for seq, event in enumerate(events)]


def created(config: Mapping[str, Any] = CONFIG, *, sweep_id: str = "s1") -> list[Event]:
    """Return the events with which a sweep begins."""
    metrics = config.get("metrics") or [config["metric"]]
    return [
        {
            "event": "created",
            "sweep_id": sweep_id,
            "name": config["name"],
            "config": dict(config),
            "folder": "/",
            "identity": "i",
            "metric": metrics[0]["name"],
            "goal": metrics[0]["goal"],
            "metrics": [{"name": m["name"], "goal": m["goal"]} for m in metrics],
            "seed": 3,
            "at": AT,
        },
        {"event": "opened", "pid": 1, "at": AT},
        {
            "event": "budget",
            "trials": config.get("trials"),
            "parallel": config.get("parallel", 1),
            "timeout_s": None,
            "limits": {},
            "at": AT,
        },
    ]


def asked(number: int, params: Mapping[str, Any], **more: Any) -> Event:
    return {"event": "asked", "number": number, "run_id": f"{number:032x}", "params": dict(params), **more}


def told(number: int, *values: float, state: str = "complete", **more: Any) -> Event:
    found = {"value": values[0], "values": list(values)} if values else {"value": None}
    return {"event": "told", "number": number, "state": state, **found, **more}


def searched(
    trials: int, config: Mapping[str, Any] = CONFIG, *, running: int = 0, steps: int = 12, parallel: int = 4
) -> list[Event]:
    """Return the events of a whole search, with trials of every kind; the last `running` of them are at work."""
    rng = random.Random(1)
    events: list[Event] = created(config)
    metrics = config.get("metrics") or [config["metric"]]
    for number in range(trials):
        lr, hidden = 10 ** rng.uniform(-5, -1), rng.randint(16, 256)
        optimizer = rng.choice(["adam", "sgd", "lion"])
        begun = AT + 10 + number // parallel * 30 + number % parallel
        events.append(asked(number, {"lr": lr, "hidden": hidden, "optimizer": optimizer}, at=begun))
        events.append(
            {"event": "started", "number": number, "pid": 1, "gpus": 0.5, "host": ["a", "b"][number % 2], "at": begun}
        )
        floor = (math.log10(lr) + 3) ** 2 / 4 + (hidden - 128) ** 2 / 3e4 + (optimizer == "sgd") * 0.3
        kind = rng.random()
        count = steps if kind < 0.75 else steps // 3
        points = [[step, floor + 2 / (step + 1) + rng.gauss(0, 0.02)] for step in range(count)]
        events.append({"event": "reported", "number": number, "points": points, "at": begun + 5})
        if number >= trials - running:
            continue
        end = begun + 6 + rng.random() * 20
        used = {"gpu_s": (end - begun) / 2, "cpu_s": end - begun, "energy_j": 900.0, "max_rss_bytes": 1_200_000_000}
        more = {"at": end, "usage": used}
        if kind < 0.75:
            values = [points[-1][1], 1 / (1 + hidden / 50)][: len(metrics)]
            events.append(told(number, *values, **more))
        elif kind < 0.9:
            events.append({"event": "prune", "number": number, "step": count - 1, "at": end})
            events.append(told(number, points[-1][1], state="pruned", **more))
        else:
            reason = f"RuntimeError: shapes {hidden} and 7 do not match" if kind < 0.96 else "killed by SIGSEGV"
            events.append(told(number, state="failed", reason=reason, **more))
    return sorted(events, key=lambda event: event["at"])


def record_of(events: Iterable[Mapping[str, Any]]) -> SweepRecord:
    return SweepRecord.from_events(numbered(events))


def write(folder: Path, events: Iterable[Mapping[str, Any]]) -> Path:
    """Write events as the journal of a sweep."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    for event in numbered(events):
        journal.append(event)
    journal.close()
    return folder
