"""The model's history: where a version works now, and where it does not any more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from runstone.errors import RunstoneError
from runstone.server.logs import Log
from runstone.serving.config import ServingConfig
from runstone.serving.places import Place
from runstone.serving.sources import Served


@contextlib.contextmanager
def deployed(place: Place, config: ServingConfig, url: str, version: str, log: Log) -> Iterator[None]:
    """Enter into the model's history that it works here, and that it does not any more."""
    record = recorder(place, config, url)
    model = place.registered() if record is not None else None
    if model is None or config.deployment is None:
        yield
        return
    model.record_deployment(version, config.deployment, url=url, replicas=config.workers, reason="serving began")
    try:
        yield
    finally:
        try:
            model.end_deployment(config.deployment, reason="serving ended")
        except (RunstoneError, OSError) as error:  # somebody else took the place: the end is no failure
            log("not_recorded", model=model.state().name, problem=str(error))


def recorder(place: Place, config: ServingConfig, url: str) -> Callable[[Served], None] | None:
    """Return what enters another version into the history."""
    target = config.deployment
    if target is None or place.ref is None:
        return None

    def record(served: Served) -> None:
        model = place.registered()
        if model is not None:
            model.record_deployment(
                served.version, target, url=url, replicas=config.workers, reason=f"{place.ref} points to it"
            )

    return record
