"""Reads a repository of Aim and prints what is in it, one JSON object a line. Needs Aim, and nothing of Runstone.

Run by `runstone.importers.aim` in a process of its own, on a copy of the repository: `python -I aim_script.py FOLDER`.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

_BATCH = 10_000


def main(folder: str) -> int:
    """Print all runs of a repository; return 3 where Aim is not there."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    try:
        from aim import Repo  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return 3

    def say(**told: Any) -> None:
        out.write(json.dumps(told, default=str) + "\n")

    repo = Repo(folder)
    for run in repo.iter_runs():
        try:
            say(**_head(run))
            for item in _items(run):
                say(**item)
        except Exception as error:  # one damaged run must not keep the others out
            say(kind="trouble", message=f"{type(error).__name__}: {error}"[:500])
        say(kind="done", hash=run.hash)
    out.flush()
    return 0


def _head(run: Any) -> dict[str, Any]:
    params = run.get(..., {}, resolve_objects=False)
    system = params.pop("__system_params", None) if isinstance(params, dict) else None
    return {
        "kind": "run",
        "hash": run.hash,
        "name": run.name,
        "experiment": run.experiment,
        "description": run.description,
        "tags": [str(tag) for tag in run.tags],
        "archived": bool(run.archived),
        "created": run.creation_time,
        "ended": run.end_time,
        "active": bool(run.active),
        "params": params,
        "system": system,
    }


def _items(run: Any) -> Iterator[dict[str, Any]]:
    for name, context, _run in run.iter_metrics_info():
        metric = run.get_metric(name, context)
        if metric is None:
            yield {"kind": "lost", "what": "metric that cannot be read"}
            continue
        rows = [(int(step), float(value), float(at)) for step, (value, _epoch, at) in metric.data.items()]
        epochs = sum(epoch is not None for _step, (_value, epoch, _at) in metric.data.items())
        if epochs:
            yield {"kind": "lost", "what": "epoch of a point", "count": epochs}
        for start in range(0, len(rows), _BATCH):
            steps, values, times = zip(*rows[start : start + _BATCH], strict=True)
            told = {"step": steps, "value": values, "time": times}
            yield {"kind": "points", "name": name, "context": context.to_dict(), **told}
    readers = {
        "images": ("image", _image),
        "texts": ("text", lambda one: {"text": one.data}),
        "audios": ("audio", _audio),
        "distributions": ("histogram", _distribution),
        "figures": ("figure", lambda one: {"json": one.json()}),
    }
    infos = run.collect_sequence_info(tuple(readers))
    for kind, listed in infos.items():
        what, reader = readers[kind]
        for info in listed:
            yield from _sequence(run, kind, what, reader, info)
    logs = run.get_terminal_logs()
    if logs is not None:
        for step, (value, _epoch, at) in logs.data.items():
            yield {"kind": "line", "step": step, "text": getattr(value, "data", str(value)), "time": at}
    artifacts = run.artifacts
    if artifacts:
        yield {"kind": "lost", "what": "artifact, of which Aim keeps the address only", "count": len(artifacts)}


def _sequence(run: Any, kind: str, what: str, reader: Any, info: Any) -> Iterator[dict[str, Any]]:
    from aim.storage.context import Context  # type: ignore[import-not-found, unused-ignore]

    name, context = info["name"], Context(info["context"])
    sequence = run._get_sequence(kind, name, context)
    if sequence is None:
        yield {"kind": "lost", "what": f"{what} that cannot be read"}
        return
    for step, (value, _epoch, at) in sequence.data.items():
        for one in value if isinstance(value, list) else [value]:
            try:
                told = reader(one)
            except Exception as error:
                yield {"kind": "lost", "what": f"{what} that cannot be read ({type(error).__name__})"}
                continue
            yield {"kind": what, "name": name, "context": context.to_dict(), "step": step, "time": at, **told}


def _image(one: Any) -> dict[str, Any]:
    return {"data": _base64(one.storage["data"].load()), "caption": one.storage.get("caption", "")}


def _audio(one: Any) -> dict[str, Any]:
    return {"data": _base64(one.storage["data"].load()), "caption": one.storage.get("caption", "")}


def _distribution(one: Any) -> dict[str, Any]:
    counts, edges = one.to_np_histogram()
    return {"counts": counts.tolist(), "edges": edges.tolist()}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
