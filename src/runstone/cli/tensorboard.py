"""`runstone tensorboard`: runs as TensorBoard event files."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runstone.cli._output import clean, counted, say
from runstone.cli.main import workspace_of, workspace_option
from runstone.errors import FormatError, RunNotFound
from runstone.runinfo import RunInfo
from runstone.workspace import Workspace

if TYPE_CHECKING:
    from runstone.tensorboard.mirror import RunMirror


@click.command("tensorboard")
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("-f", "--filter", "filter", metavar="FILTER", help="Also the runs that this filter describes.")
@click.option(
    "--logdir", type=click.Path(path_type=Path), help="Folder for TensorBoard. Default: tensorboard in the workspace."
)
@click.option("--follow/--once", default=True, help="Go on until all of the runs have ended (default), or look once.")
@workspace_option
@click.pass_context
def tensorboard_command(
    ctx: click.Context, runs: Sequence[str], filter: str | None, logdir: Path | None, follow: bool
) -> None:
    """Write runs as TensorBoard event files: metrics, media, texts, params, notes and tags.

    RUN is an id, its last 8 characters as lists show them, or a name. Without one, all runs of the workspace are
    written, and with --follow those too that start meanwhile. What is there already is not written again.

    \b
    runstone tensorboard --logdir tb &
    tensorboard --logdir tb
    """
    from runstone.tensorboard.mirror import POLL_S  # NumPy and tensorboardX, only here

    workspace = workspace_of(ctx)
    target = (logdir.expanduser() if logdir is not None else workspace.path / "tensorboard").absolute()
    chosen = None if not runs and filter is None else _chosen(workspace, runs, filter)
    say(f"see it with: tensorboard --logdir {clean(shlex.quote(str(target)))}", stderr=True)
    followed = _Followed(target)
    try:
        while followed.look(chosen if chosen is not None else _all(workspace)) and follow:
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        followed.say_total()
        raise
    finally:
        followed.close()
    followed.say_total()


def _chosen(workspace: Workspace, references: Sequence[str], filter: str | None) -> list[Path]:
    found = [workspace.run(reference).path for reference in references]
    if filter is not None:
        found += [info.path for info in workspace.runs(filter)]
    return list(dict.fromkeys(found))


def _all(workspace: Workspace) -> list[Path]:
    return sorted(workspace.run_folders())


class _Followed:
    """The runs that are written, until each has ended."""

    def __init__(self, logdir: Path) -> None:
        self._logdir = logdir
        self._mirrors: dict[Path, RunMirror] = {}
        self._ended: set[Path] = set()
        self._points = 0
        self._media = 0
        self._written = 0
        self._left_out: Counter[str] = Counter()

    def look(self, paths: Sequence[Path]) -> bool:
        """Write what came of each run since the last look; return whether one of them goes on."""
        from runstone.tensorboard.mirror import RunMirror

        for path in paths:
            if path in self._ended:
                continue
            mirror = self._mirrors.get(path)
            try:
                if mirror is None:
                    if RunInfo(path).is_deleted:
                        self._ended.add(path)
                        continue
                    mirror = self._mirrors[path] = RunMirror(path, self._logdir)
                if not mirror.update():
                    self._end(path)
            except (RunNotFound, FormatError) as error:  # half a run, or one of a newer version: the others go on
                say(f"warning: {clean(error)}", stderr=True)
                self._end(path)
        return bool(self._mirrors)

    def _end(self, path: Path) -> None:
        self._ended.add(path)
        mirror = self._mirrors.pop(path, None)
        if mirror is None:
            return
        self._count(mirror)
        if mirror.is_busy_elsewhere:
            say(f"{clean(path.name)} was written by another process", stderr=True)
        elif mirror.written or mirror.media_written:
            say(f"{clean(mirror.folder)}  {_told(mirror.written, mirror.media_written, '')}")

    def _count(self, mirror: RunMirror) -> None:
        mirror.close()
        self._points += mirror.written
        self._media += mirror.media_written
        self._written += 1
        self._left_out.update(mirror.left_out)

    def close(self) -> None:
        """Let go of all."""
        for mirror in self._mirrors.values():
            self._count(mirror)
            if mirror.written or mirror.media_written:
                say(f"{clean(mirror.folder)}  {_told(mirror.written, mirror.media_written, '')}  still running")
        self._mirrors.clear()

    def say_total(self) -> None:
        """Say what was done."""
        self.close()
        say(f"{counted(self._written, 'run')}, {_told(self._points, self._media, 'new ')}")
        for reason, count in sorted(self._left_out.items()):
            say(f"left out: {count:,} x {clean(reason)}", stderr=True)


def _told(points: int, media: int, new: str) -> str:
    told = counted(points, f"{new}point")
    return f"{told}, {media:,} {new}media and texts" if media else told
