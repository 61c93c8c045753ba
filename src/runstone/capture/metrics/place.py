"""Which process of a distributed job this is, and so what it has to report.

Everything that belongs to a host is reported by one process of it, its local rank 0; each process reports itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_LOCAL_RANK = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
_LOCAL_SIZE = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process stands among those of a job on its host; `local_size` is `None` where nobody says."""

    local_rank: int = 0
    local_size: int | None = None

    @property
    def speaks_for_host(self) -> bool:
        """Whether this process reports what belongs to the whole host."""
        return self.local_rank == 0

    def reports_gpus(self, visible: int) -> bool:
        """Return whether this process reports the GPUs that it sees.

        Where all ranks of a host see the same list, each takes one of it, and local rank 0 reports them all: it may be
        the only one that records. Where each rank was given its own, each reports its own.
        """
        shared = visible >= self.local_size if self.local_size is not None else visible > self.local_rank
        return self.local_rank == 0 or not shared


def place_of(environment: Mapping[str, str]) -> Place:
    """Return what torchrun, Lightning, Slurm, Open MPI or MPICH say; else the place of a job of one."""
    return Place(_first(environment, _LOCAL_RANK) or 0, _first(environment, _LOCAL_SIZE))


def _first(environment: Mapping[str, str], variables: tuple[str, ...]) -> int | None:
    found = (environment.get(variable, "") for variable in variables)
    return next((int(value) for value in found if value.isdecimal()), None)
