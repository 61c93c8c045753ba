"""One trial of a Python function, in its own process: opens the trial's run around the call.

`python -m runstone_sweeps.trial module:function metric` calls the function with the trial's params.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import runstone
from runstone_sweeps.environment import process_environment

Objective = Callable[[dict[str, Any]], Any]


def run_objective(objective: Objective, metric: str) -> int:
    """Call the objective with this trial's params and record what it returns.

    A number is logged as the sweep's metric, a mapping as several metrics, `None` as nothing: then the
    objective has logged the metric itself.

    Returns:
        The exit code of the trial's process.
    """
    run_id = process_environment()["RUNSTONE_RUN_ID"]
    try:
        # By its id, so that a start_run inside the objective may join the same run once more.
        with runstone.start_run(run_id=run_id) as run:
            result = objective(runstone.trial_params())
            if result is not None:
                run.log(_metrics(result, metric))
    except Exception:
        traceback.print_exc()
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _metrics(result: Any, metric: str) -> Mapping[str, Any]:
    if isinstance(result, Mapping):
        return result
    try:
        return {metric: float(result)}
    except (TypeError, ValueError):
        raise TypeError(
            f"the objective returned {type(result).__name__} {result!r:.80}; "
            "return a number, a dict of metrics or nothing"
        ) from None


def load_function(target: str) -> Objective:
    """Return the function that `module:name` stands for; modules in the current folder come first.

    Raises:
        ImportError: there is no such module or function.
    """
    module_name, _, name = target.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found: Any = importlib.import_module(module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ImportError(f"module {module_name} has no {name}")
        found = getattr(found, part)
    if not callable(found):
        raise ImportError(f"{target} is {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]  # callable, as just seen


def main(target: str, metric: str) -> int:
    """Run one trial of an importable function."""
    try:
        objective = load_function(target)
    except Exception:
        traceback.print_exc()
        return 1
    return run_objective(objective, metric)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
