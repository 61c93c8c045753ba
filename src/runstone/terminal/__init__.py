"""Curves of runs in a terminal, while they go on: for ssh, where no page can be opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runstone.errors import InvalidConfig

if TYPE_CHECKING:
    from runstone.workspace import Workspace


def run_terminal(
    workspace: Workspace, *, runs: Sequence[str] = (), metrics: Sequence[str] = (), filter: str = ""
) -> None:
    """Show the runs of a workspace in the terminal until the user leaves.

    Args:
        workspace: Where they are.
        runs: Ids of the runs to show; default: a list to choose from, newest first.
        metrics: Which metrics to show at first, at most four below each other; default: the one that most runs have.
        filter: Which runs the list shows at first.

    Raises:
        InvalidConfig: the libraries that draw are not installed.
    """
    try:
        from runstone.terminal.app import TerminalApp  # textual, an extra, only here
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("textual", "textual_plotext", "plotext"):
            raise
        raise InvalidConfig(
            "curves in the terminal need textual; install it: pip install 'runstone[terminal]'"
        ) from None
    TerminalApp(workspace, runs=runs, metrics=metrics, filter=filter).run()


__all__ = ["run_terminal"]
