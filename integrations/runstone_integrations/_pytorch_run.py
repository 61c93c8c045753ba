"""Which run the helpers for plain loops record in, and in which process of a distributed job."""

from __future__ import annotations

import runstone
from runstone_integrations._pytorch_ranks import rank_and_size


def run_to_record_in(run: runstone.Run | None) -> runstone.Run | None:
    """Return the run that was given or is open; `None` on ranks other than 0 of a process group, which record nothing.

    Raises:
        RunNotFound: no run was given and none is open.
    """
    if rank_and_size()[0] > 0:
        return None
    found = run or runstone.current_run()
    if found is None:
        raise runstone.RunNotFound("no run is open here; call runstone.start_run() first, or give run=")
    return found
