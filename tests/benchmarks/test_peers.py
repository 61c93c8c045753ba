"""The comparison with other trackers runs without any of them, and what it reads of them is read right."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from benchmarks.peers import measure, table
from benchmarks.peers.environments import PEERS, python_of
from benchmarks.peers.measure import QUICK, Subject
from benchmarks.peers.trackers import TRACKERS
from benchmarks.peers.wandb_log import BLOCK, HEADER, records

ROOT = Path(__file__).parents[2]

# Two records, "one" and "second", as LevelDB's log writes them: CRC-32, size, kind 1, bytes.
GOLDEN = HEADER + bytes.fromhex("9ae7d51c 0300 01 6f6e65  0064c63c 0600 01 7365636f6e64")


def as_log(payloads: list[bytes]) -> bytes:
    """Write records as the format says, cutting them at the ends of blocks."""
    data = bytearray(HEADER)
    for payload in payloads:
        rest, is_first = payload, True
        while is_first or rest:
            left = BLOCK - len(data) % BLOCK
            if left < 7:
                data += bytes(left)
                continue
            piece, rest = rest[: left - 7], rest[left - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[is_first, not rest]
            body = bytes([kind]) + piece
            data += struct.pack("<IH", zlib.crc32(body), len(piece)) + body
            is_first = False
    return bytes(data)


def test_comparison_runs_without_any_peer(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.peers", "--quick", "--venvs", str(tmp_path), "--json"]
    result = subprocess.run(
        [*command, str(tmp_path / "figures.json")], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stderr
    for name in PEERS:
        assert f"{name}: skipped" in result.stdout
    document = json.loads((tmp_path / "figures.json").read_text())
    assert list(document["trackers"]) == [name for name in TRACKERS if name.startswith(("floor", "runstone"))]
    assert document["trackers"]["runstone"]["missing"] == {}
    figures = document["trackers"]["runstone"]["figures"]
    assert {column.key for column in table.COLUMNS} <= figures.keys()
    assert figures["packed_bytes_a_point"] < figures["bytes_a_point"]
    assert figures["lost_at_200_hz"] == 0
    assert figures["acknowledged_at_200_hz"] > 0


def test_unknown_peer_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.peers", "nonesuch"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "no peer nonesuch; there are trackio" in result.stderr


def test_peer_without_environment_has_no_interpreter(tmp_path: Path) -> None:
    assert python_of("wandb", tmp_path) is None
    (tmp_path / "wandb" / "bin").mkdir(parents=True)
    (tmp_path / "wandb" / "bin" / "python").touch()
    assert python_of("wandb", tmp_path) == tmp_path / "wandb" / "bin" / "python"


def test_every_peer_has_its_trackers() -> None:
    rows = [row for name, peer in PEERS.items() for row in peer.trackers or (name,)]
    assert rows == [name for name in TRACKERS if not name.startswith(("floor", "runstone"))]
    assert all("==" in package for peer in PEERS.values() for package in peer.packages)


def test_missing_figure_is_shown_with_its_reason() -> None:
    subjects = [
        Subject("runstone", "", None, {"tight_cpu_s": 1e-6, "read_s": 0.25, "packed_bytes_a_point": 4.0}),
        Subject("wandb", "", "wandb", {"tight_cpu_s": 30e-6}, {"read_s": "it said nothing"}),
    ]
    text = table.render(subjects)
    assert "30.00" in text
    assert "- [2]" in text
    assert "it said nothing" in text
    assert table.NO_PACKING in text
    assert table.targets(subjects) == [
        "the fastest peer (wandb): 30.0 × the CPU time of run.log in a tight loop; target 20 ×: reached"
    ]


@pytest.mark.parametrize(("name", "lost_ratio"), [("floor: five list appends", 1), ("floor: five pack_into mmap", 0)])
def test_loss_is_counted_over_all_kills(name: str, lost_ratio: int) -> None:
    subject = Subject(name, sys.executable)
    measure.measure_kills(subject, 200, QUICK)
    once = subject.figures["acknowledged_at_200_hz"]
    measure.measure_kills(subject, 200, QUICK)
    assert subject.reasons == {}
    assert subject.figures["acknowledged_at_200_hz"] > once > 0
    assert subject.figures["lost_at_200_hz"] == lost_ratio * subject.figures["acknowledged_at_200_hz"]


def test_failed_process_gives_a_reason_and_no_figure() -> None:
    subject = Subject("aim", sys.executable, "aim")  # not installed beside Runstone
    measure.measure_prices(subject, QUICK)
    measure.measure_kills(subject, 20, QUICK)
    assert subject.figures == {}
    assert "aim" in subject.reasons["tight_cpu_s"]
    assert "aim" in subject.reasons["lost_at_20_hz"]


def test_figure_that_went_partly_wrong_says_so() -> None:
    subject = Subject("runstone", "", None, {"read_s": 0.25}, {"read_s": "one of two failed"})
    number = table.render([subject]).split("250.0 [")[1][0]
    assert f"[{number}] one of two failed" in table.render([subject])


def test_golden_log_is_read() -> None:
    assert as_log([b"one", b"second"]) == GOLDEN
    assert list(records(GOLDEN)) == [b"one", b"second"]


@pytest.mark.parametrize("first", [*range(BLOCK - 40, BLOCK + 10), 3 * BLOCK + 5])
def test_record_across_blocks_is_put_together(first: int) -> None:
    payloads = [bytes([1]) * first, b"", b"after", bytes(range(256)) * 300]
    assert list(records(as_log(payloads))) == payloads


def test_torn_log_gives_the_whole_records_before_the_tear() -> None:
    payloads = [bytes([number]) * size for number, size in enumerate((10, 40_000, 0, 20_000))]
    data = as_log(payloads)
    for end in [*range(len(HEADER), 60), *random.Random(5).sample(range(60, len(data)), 200)]:
        found = list(records(data[:end]))
        assert found == payloads[: len(found)]
    assert list(records(data[:-1])) == payloads[:3]


def test_damaged_log_ends_at_the_damage() -> None:
    data = bytearray(GOLDEN)
    data[-1] ^= 1
    assert list(records(bytes(data))) == [b"one"]
    assert list(records(GOLDEN + bytes(100))) == [b"one", b"second"]


def test_other_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a \.wandb file starts with"):
        list(records(b"SQLite format 3\x00"))
