"""A process's place in a distributed job, and what rank 0 tells the others. Imports no framework.

Rank 0 writes what it has to say into the store that its process group was made with, and the others look there. No
collective: a callback that only one of the ranks has must not make it wait for the others.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from typing import Any

import runstone
from runstone_integrations._shared import run_of_user

_LOOK_EVERY_S = 1.0
# The trainings of this process. The ranks of a job go through the same ones in the same order.
_numbers = itertools.count()


def rank_and_size() -> tuple[int, int]:
    """Return the rank of this process in its job and how many there are; `(0, 1)` where torch and JAX know of none."""
    distributed = _torch_distributed()
    if distributed is not None:
        return distributed.get_rank(), distributed.get_world_size()
    jax = sys.modules.get("jax")
    is_initialized = getattr(getattr(jax, "distributed", None), "is_initialized", None)
    if jax is not None and is_initialized is not None and is_initialized():
        return jax.process_index(), jax.process_count()
    return 0, 1


class Ranks:
    """One training, as the processes of its job see it.

    Attributes:
        rank: Of this process.
        size: How many there are.
    """

    def __init__(self) -> None:
        self.rank, self.size = rank_and_size()
        self._key = f"runstone/{next(_numbers)}"
        self._last_epoch: int | None = None
        self._reports: runstone.RankReports | None = None
        self._next_look_s = 0.0

    # --- rank 0 ------------------------------------------------------------------------------------------------------

    def invite(self, run: runstone.Run) -> None:
        """Let the other ranks report into the run."""
        if self.size > 1:
            invitation = runstone.RankReports.invitation_to(run)
            if invitation is not None:
                self._write("run", json.dumps(invitation))

    def stop_after(self, epoch: int) -> None:
        """Let all ranks stop when `epoch` has ended, which must be one that none of them is in yet."""
        if self._last_epoch is None and self._write("stop", str(epoch)):
            self._last_epoch = epoch

    # --- all of them -------------------------------------------------------------------------------------------------

    def is_last(self, epoch: int) -> bool:
        """Return whether all ranks stop now that `epoch` has ended."""
        if self.rank > 0 and self._last_epoch is None:
            told = self._read("stop")
            self._last_epoch = int(told) if told is not None else None
        return self._last_epoch is not None and epoch >= self._last_epoch

    # --- the others --------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Begin to report as soon as rank 0 has invited to. Cheap enough for every batch."""
        if self._reports is not None:
            return
        now = time.monotonic()
        if now < self._next_look_s:
            return
        self._next_look_s = now + _LOOK_EVERY_S
        told = self._read("run")
        if told is None:
            return
        invitation = tuple(json.loads(told))
        own = run_of_user()
        if own is not None and str(own.path) == invitation[0]:
            self._next_look_s = float("inf")  # the script has joined the run in this rank too, and reports by itself
            return
        local_rank = _torch_distributed().get_node_local_rank(fallback_rank=self.rank)
        self._reports = runstone.RankReports(invitation, rank=self.rank, world_size=self.size, local_rank=local_rank)
        self._reports.start()

    def end(self) -> None:
        """Report no longer: the training has ended."""
        if self._reports is not None:
            self._reports.stop()
            self._reports = None

    def _write(self, what: str, value: str) -> bool:
        distributed = _torch_distributed()
        if distributed is None:
            return False
        distributed.distributed_c10d._get_default_store().set(f"{self._key}/{what}", value)
        return True

    def _read(self, what: str) -> bytes | None:
        distributed = _torch_distributed()
        if distributed is None:
            return None
        store, key = distributed.distributed_c10d._get_default_store(), f"{self._key}/{what}"
        return store.get(key) if store.check([key]) else None


def _torch_distributed() -> Any:
    """Return `torch.distributed` where a process group is initialised, else `None`."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)  # without torch loaded there is no group
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed
