"""What frameworks find through entry points: callbacks for trainings that name none, where the user has asked for it.

Imports neither Runstone nor a framework before it is called.
"""

from __future__ import annotations

import sys
from typing import Any


def lightning_callbacks() -> list[Any]:
    """Return the callback for a new `Trainer` of Lightning: none unless `runstone autolog on`.

    Lightning calls this for each `Trainer`, and whatever it raised would end the user's program.
    """
    try:
        import runstone  # here: most programs that come by have autolog off

        if not runstone.is_autolog_on():
            return []
        from runstone_integrations.lightning import TrackingCallback

        return [TrackingCallback.for_autolog()]
    except Exception as error:  # whatever it is, the program must go on
        print(f"runstone: autolog is not possible: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return []
