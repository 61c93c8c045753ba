"""Prints what was measured: one table, one of ratios to Runstone, footnotes for what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers.measure import RATES, Subject

FLOOR = "floor: "
OURS = "runstone"


@dataclass(frozen=True, slots=True)
class Column:
    """A figure, its heading in two lines, what it is divided by to be shown, and its digits."""

    key: str
    heading: tuple[str, str]
    unit: float
    digits: int
    is_ratio: bool = True  # whether a ratio to Runstone says something


COLUMNS = (
    Column("tight_cpu_s", ("tight", "CPU µs"), 1e-6, 2),
    Column("tight_wall_s", ("tight", "wall µs"), 1e-6, 2),
    Column("cold_cpu_s", ("cold", "CPU µs"), 1e-6, 1),
    Column("cold_wall_s", ("cold", "wall µs"), 1e-6, 1),
    Column("points_a_second", ("points", "a second"), 1, 0),
    Column("bytes_a_point", ("bytes", "a point"), 1, 1),
    Column("packed_bytes_a_point", ("packed", "bytes"), 1, 1, is_ratio=False),
    Column("empty_run_s", ("empty", "run ms"), 1e-3, 2),
    Column("import_s", ("import", "ms"), 1e-3, 0),
    Column("read_s", ("read", "ms"), 1e-3, 1),
    *(Column(f"lost_at_{rate}_hz", ("lost at", f"{rate} Hz"), 1, 0, is_ratio=False) for rate in RATES),
)
# What the figures of a tracker do not say by themselves.
REMARKS = {
    ("wandb", "read_s"): "wandb has no reader for offline runs: read by benchmarks/peers/wandb_log.py",
    ("aim", "read_s"): "after `aim storage reindex` (not timed), without which its reader finds no point",
    ("tensorboardX", "read_s"): "read by tensorboard with size_guidance 0; its default keeps 10,000 points",
}
NO_PACKING = "it has no command that packs an ended run"
FLOOR_REASON = "a floor only stores numbers: it has no format, no import, and reading it back would mean nothing"


def render(subjects: Sequence[Subject]) -> str:
    """Return the tables and footnotes as text."""
    notes: list[str] = []
    rows = [["", *(column.heading[0] for column in COLUMNS)], ["tracker", *(column.heading[1] for column in COLUMNS)]]
    rows += [[subject.name, *(_cell(subject, column, notes) for column in COLUMNS)] for subject in subjects]
    parts = [_aligned(rows)]
    ours = next((subject for subject in subjects if subject.name == OURS), None)
    others = [subject for subject in subjects if subject.name != OURS]
    if ours is not None and others:
        columns = [column for column in COLUMNS if column.is_ratio]
        ratios = [["", *(column.heading[0] for column in columns)], ["× Runstone", *(c.heading[1] for c in columns)]]
        ratios += [[other.name, *(_ratio(other, ours, column) for column in columns)] for other in others]
        parts.append(_aligned(ratios))
    parts.append("\n".join(f"[{number}] {note}" for number, note in enumerate(notes, 1)))
    return "\n\n".join(part for part in parts if part)


def targets(subjects: Sequence[Subject]) -> list[str]:
    """Return, in words, whether the promises of speed hold."""
    cost = {subject.name: subject.figures["tight_cpu_s"] for subject in subjects if "tight_cpu_s" in subject.figures}
    ours = cost.pop(OURS, None)
    peers = {name: seconds for name, seconds in cost.items() if not name.startswith(FLOOR)}
    if ours is None or not peers:
        return []
    fastest = min(peers, key=lambda name: peers[name])
    lines = [_verdict(f"the fastest peer ({fastest})", peers[fastest] / ours, 20)]
    lines += [_verdict(name, peers[name] / ours, 500) for name in peers if name.startswith("mlflow")]
    return lines


def _verdict(name: str, ratio: float, target: float) -> str:
    answer = "reached" if ratio >= target else "not reached"
    return f"{name}: {ratio:,.1f} × the CPU time of run.log in a tight loop; target {target:.0f} ×: {answer}"


def _cell(subject: Subject, column: Column, notes: list[str]) -> str:
    value = subject.figures.get(column.key)
    if value is None:
        reason = subject.reasons.get(column.key)
        if reason is None and subject.name.startswith(FLOOR):
            reason = FLOOR_REASON
        elif reason is None and column.key == "packed_bytes_a_point":
            reason = NO_PACKING
        return f"- [{_note(notes, reason or 'not measured')}]"
    text = f"{value / column.unit:,.{column.digits}f}"
    if column.key.startswith("lost_at"):
        text += f" of {subject.figures[column.key.replace('lost', 'acknowledged')]:,.0f}"
    for remark in (REMARKS.get((subject.name, column.key)), subject.reasons.get(column.key)):
        if remark is not None:
            text += f" [{_note(notes, remark)}]"
    return text


def _ratio(subject: Subject, ours: Subject, column: Column) -> str:
    theirs, mine = subject.figures.get(column.key), ours.figures.get(column.key)
    if theirs is None or not mine:
        return "-"
    ratio = theirs / mine
    return f"{ratio:,.3g}" if ratio < 100 else f"{ratio:,.0f}"


def _note(notes: list[str], text: str) -> int:
    if text not in notes:
        notes.append(text)
    return notes.index(text) + 1


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
