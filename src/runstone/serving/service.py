"""What all requests of one process share: the version, its batcher, counts and log; and the version's change."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from runstone.errors import RunstoneError
from runstone.server.logs import Log
from runstone.serving.batching import Answer, Batcher
from runstone.serving.config import ServingConfig
from runstone.serving.counts import Counts
from runstone.serving.predictionlog import PredictionLog
from runstone.serving.rows import Columns
from runstone.serving.sources import Served, Source

_RETRY_S = 60.0


class Service:
    """The served version.

    Attributes:
        served: The version; another one after a change.
        config: How it is served.
        batcher, counts, log: Shared by requests.
        predictions: The prediction log, between `start` and `close`, where one is kept.

    Args:
        source: Says which version is to be served, and loads it.
        config: As above.
        log: Where lines go.
        worker: Which process this is.
        counts: What it counts in; default: its own.
        on_change: Told of each version that took the place of another; may fail, which is told in the log.
    """

    def __init__(
        self,
        source: Source,
        config: ServingConfig,
        *,
        log: Log | None = None,
        worker: int = 0,
        counts: Counts | None = None,
        on_change: Callable[[Served], None] | None = None,
    ) -> None:
        self.config = config
        self.log = log or Log()
        self.counts = counts or Counts()
        self.batcher = Batcher(
            most_waiting=config.bounds.waiting,
            most_rows=config.bounds.batch_rows,
            called=lambda: self.counts.add("batches"),
        )
        self.predictions: PredictionLog | None = None
        self._source = source
        self._worker = worker
        self._on_change = on_change
        self._watch: asyncio.Task[None] | None = None
        self._failed: tuple[str, float] | None = None
        self.served = source.load()
        self._warm(self.served)

    @property
    def is_ready(self) -> bool:
        """Whether requests will be answered: the model is not stuck in a call."""
        return self.batcher.busy_s < self.config.bounds.predict_s

    async def start(self) -> None:
        """Begin to keep predictions, and to look where the reference points."""
        kept = self.config.log
        if kept.folder is not None and kept.sample > 0:
            self.predictions = PredictionLog(kept, kept.folder, self.counts, self._worker)
        if self.config.reload_s > 0:
            self._watch = asyncio.get_running_loop().create_task(self._follow())
        self.log("serving", model=str(self.served), hash=self.served.hash, worker=self._worker)

    async def close(self) -> None:
        """End what was begun."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self.batcher.close()
        if self.predictions is not None:
            await asyncio.to_thread(self.predictions.close)

    async def predict(self, served: Served, columns: Columns, rows: int) -> Answer:
        """Return what the model says; of a call by several requests, the part of this one.

        Raises:
            ApiError: it cannot take the values, or too many wait.
            ModelFailed: it broke.
            TimeoutError: it took too long.
        """
        async with asyncio.timeout(self.config.bounds.predict_s):
            return await self.batcher.submit(served, columns, rows)

    async def reload(self) -> bool:
        """Serve the version that is to be served now; return whether it is another.

        Requests that are begun are answered by the version that they began with.
        """
        wanted = await asyncio.to_thread(self._source.version)
        if wanted == self.served.version:
            return False
        if self._failed is not None and self._failed[0] == wanted and time.monotonic() < self._failed[1]:
            return False
        before = self.served
        try:
            found = await asyncio.to_thread(self._load)
        except Exception as error:  # whatever loading a model may raise: the old one goes on
            self._failed = (wanted, time.monotonic() + _RETRY_S)
            self.counts.add("reload_failures")
            self.log("reload_failed", model=before.name, version=wanted, serving=before.version, problem=str(error))
            return False
        self.served = found
        self.counts.add("reloads")
        self.log("reloaded", model=str(found), before=before.version, hash=found.hash)
        if self._on_change is not None:
            try:
                await asyncio.to_thread(self._on_change, found)
            except (RunstoneError, OSError) as error:
                self.log("not_recorded", model=str(found), problem=str(error))
        return True

    def _load(self) -> Served:
        found = self._source.load()
        self._warm(found)
        return found

    def _warm(self, served: Served) -> None:
        """Let the model answer its example, so that the first request is as quick as the others."""
        if served.example is None:
            return
        try:
            columns, _rows = served.reader.of_json(served.example)
            served.predict(columns)
        except Exception as error:  # its example is not what is asked for: told, and no reason not to serve
            self.log("warming_failed", model=str(served), problem=f"{type(error).__name__}: {error}"[:500])

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.config.reload_s)
            with contextlib.suppress(RunstoneError, OSError):  # the alias is gone, the share away: the old one goes on
                await self.reload()

    def metadata(self) -> dict[str, Any]:
        """Return what is served."""
        served, manifest = self.served, self.served.manifest
        return {
            "model": served.name,
            "version": served.version,
            "hash": served.hash,
            "flavour": manifest.flavour,
            "signature": served.signature.to_json(),
            "labels": None if manifest.labels is None else list(manifest.labels),
            "run": (manifest.run or {}).get("id"),
            "metrics": {name: value for name, value in manifest.metrics.items() if value - value == 0},
            "loaded_at": served.loaded_at,
        }
