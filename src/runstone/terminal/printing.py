"""Curves drawn once, as plain text: for pipes, logs and a short look."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from runstone.cli._output import clean
from runstone.errors import InvalidConfig, RunNotFound
from runstone.terminal.curves import RunCurves, shared_names
from runstone.terminal.drawing import Line, Look, draw

if TYPE_CHECKING:
    from runstone.workspace import Workspace

_MOST_PLOTS = 4
_HEIGHT = 15
_WIDEST = 120


def print_curves(
    workspace: Workspace, run_ids: Sequence[str], metrics: Sequence[str], *, is_log: bool, say: Callable[[str], Any]
) -> int:
    """Draw metrics of runs below each other and return how many were drawn.

    Args:
        workspace: Where the runs are.
        run_ids: The runs; their curves of a metric are drawn into one figure.
        metrics: Which; default: the first four that most of them have.
        is_log: Whether logarithms are drawn.
        say: Takes each figure.

    Raises:
        RunNotFound: a run is gone.
        InvalidConfig: the library that draws is not installed.
    """
    runs = []
    for run_id in run_ids:
        folder = workspace.find_run_folder(run_id)
        if folder is None:
            raise RunNotFound(f"no run has the id {run_id!r}")
        runs.append(RunCurves(folder))
        runs[-1].poll()
    names = [name for name in metrics if any(run.curve(name) for run in runs)]
    names = names if metrics else shared_names(runs, system=False)[:_MOST_PLOTS]
    plot = _figure()
    width = min(_WIDEST, shutil.get_terminal_size((80, 24)).columns)
    for name in names:
        curves = [(run, run.curve(name)) for run in runs]
        lines = [
            Line(clean(run.journal.name), curve, place)
            for place, (run, curve) in enumerate(curves)
            if curve is not None
        ]
        draw(plot, clean(name), lines, Look(is_log=is_log), width)
        plot.theme("clear")
        plot.plotsize(width, _HEIGHT)
        say(plot.build())
        for line in lines:
            say(f"  {line.label}: {line.curve.last:.6g}, {line.curve.count:,} points")
    return len(names)


def _figure() -> Any:
    try:
        import plotext  # type: ignore[import-untyped]  # an extra, only here
    except ModuleNotFoundError:
        raise InvalidConfig(
            "curves in the terminal need plotext; install it: pip install 'runstone[terminal]'"
        ) from None
    return plotext
