"""`kill -9` at random moments loses nothing that was acknowledged, and this check can fail: see the mutations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILL = Path(__file__).with_name("kill.py")
IS_SOAK = bool(os.environ.get("RUNSTONE_SOAK"))
FAULTS = ("lost", "wrong", "unnamed", "not_crashed", "params_lost", "live_differs", "live_twice", "bystander_disturbed")


def kill(*options: str, backend: str = "mmap") -> dict[str, int]:
    environment = {**os.environ, "RUNSTONE_LOG": backend}
    done = subprocess.run(
        [sys.executable, KILL, *options], env=environment, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    print(" ".join(options), backend, counts)
    return counts


def assert_nothing_lost(counts: dict[str, int], kills: int) -> None:
    assert {fault: counts[fault] for fault in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert counts["kills"] == kills
    assert counts["acknowledged"] > 1000 * kills
    # a point may be there whose `log` call never returned
    assert counts["found"] >= counts["acknowledged"]


@pytest.mark.soak
def test_killed_run_loses_nothing_that_was_acknowledged_and_a_live_reader_sees_each_point_once() -> None:
    kills = 1000 if IS_SOAK else 50
    assert_nothing_lost(kill("--kills", str(kills), "--live"), kills)


@pytest.mark.soak
def test_killed_run_of_four_threads_loses_nothing_and_a_live_reader_sees_each_point_once() -> None:
    kills = 1000 if IS_SOAK else 15
    assert_nothing_lost(kill("--kills", str(kills), "--threads", "4", "--live"), kills)


@pytest.mark.soak
def test_killed_run_on_a_file_system_without_maps_loses_nothing() -> None:
    kills = 300 if IS_SOAK else 15
    assert_nothing_lost(kill("--kills", str(kills), "--threads", "2", "--live", backend="append"), kills)


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["mmap", "append"])
def test_killed_run_loses_no_text_and_no_record_that_was_acknowledged(backend: str) -> None:
    kills = 300 if IS_SOAK else 15
    assert_nothing_lost(kill("--kills", str(kills), "--threads", "2", "--live", "--records", backend=backend), kills)


def test_a_slot_stored_before_its_text_is_found_out() -> None:
    counts = kill("--kills", "10", "--records", "--mutation", "slot-first")
    assert counts["lost"] + counts["wrong"] + counts["unnamed"] > 0


def test_a_commit_word_stored_first_is_found_out_after_the_kill_and_by_the_live_reader() -> None:
    counts = kill("--kills", "20", "--threads", "4", "--live", "--mutation", "commit-first")
    assert counts["wrong"] + counts["unnamed"] > 0
    assert counts["live_differs"] > 0


def test_a_reader_that_forgets_what_was_empty_is_found_out() -> None:
    assert kill("--kills", "15", "--threads", "4", "--live", "--mutation", "forget-holes")["live_differs"] > 0


def test_a_reader_that_gives_points_twice_is_found_out() -> None:
    assert kill("--kills", "2", "--live", "--mutation", "read-again")["live_twice"] > 0


def test_a_buffer_in_front_of_the_log_is_found_out() -> None:
    counts = kill("--kills", "10", "--mutation", "buffer")
    assert counts["lost"] > 0
