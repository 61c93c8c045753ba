"""Flipped bits, zeroed sectors and zeroed pages in each kind of file (F7): see `damage.py`, which does the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("damage.py")
IS_SOAK = bool(os.environ.get("RUNSTONE_SOAK"))
# what is slow to read gets fewer rounds where time is short
ROUNDS = {"wal": 40, "keys": 40, "blob": 40, "jsonl": 40, "sealed": 120}
FAULTS = ("wrong", "cost_too_much", "refused_too_much", "raised", "slow", "not_as_before")


def damaged(kind: str, *options: str) -> tuple[dict[str, int], str]:
    done = subprocess.run(
        [sys.executable, SCRIPT, kind, *options], capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    print(kind, *options, counts)
    return counts, done.stderr


@pytest.mark.soak
@pytest.mark.parametrize(
    "kind", ["wal", "keys", "blob", "jsonl", "status", "control", "environment", "sealed", "levels", "index"]
)
def test_damage_costs_what_it_hits_and_no_reader_falls_hangs_or_tells_what_was_never_logged(kind: str) -> None:
    rounds = 10_000 if IS_SOAK else ROUNDS.get(kind, 15)
    counts, told = damaged(kind, "--rounds", str(rounds))
    assert {fault: counts[fault] for fault in FAULTS} == dict.fromkeys(FAULTS, 0), told
    assert counts["rounds"] == rounds
    if kind in ("wal", "keys", "blob"):
        assert counts["changed"] > rounds // 2  # what was damaged is what is read
    if kind == "sealed":
        assert counts["refused"] > rounds // 2


def test_texts_that_are_read_without_their_checksums_are_found_out() -> None:
    counts, _ = damaged("blob", "--rounds", "10", "--no-checksums")
    assert counts["wrong"] > 0


def test_points_in_a_segment_whose_header_is_damaged_cost_no_other_segment(tmp_path: Path) -> None:
    from tests.faults.damage import points_of, record

    folder = record(tmp_path / "w", is_sealed=False)
    before = points_of(folder)
    for segment in sorted(folder.glob("*.wal")):
        whole = segment.read_bytes()
        segment.write_bytes(bytes(512) + whole[512:])
        found = points_of(folder)
        assert 0 < sum(map(len, found.values())) < sum(map(len, before.values()))
        for name, points in found.items():
            assert set(points) <= set(before[name])
        segment.write_bytes(whole)
    assert points_of(folder) == before
