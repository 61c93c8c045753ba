"""What a trial on a worker records arrives in the coordinator's workspace: all of it, once, in a safe order."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest

from runstone import LaunchedRun, RunInfo, Status, ensure_workspace
from runstone_sweeps.workers.landing import BlobLanding, Landing
from runstone_sweeps.workers.link import LinkBroken
from runstone_sweeps.workers.runfiles import Kind, earlier_writers, kind_of, names_in, seeds, writer_of
from runstone_sweeps.workers.shipping import RunShipper

WRITER = "0123456789abcdef" * 2
PROGRAM = """\
import sys, os, time, threading
import runstone
run = runstone.start_run(run_id="a-run", workspace=sys.argv[1], environment=False, system_metrics=False)
def work(number):
    for step in range(int(sys.argv[2])):
        run.log({f"m{number}": step * 1.0, "count": step}, step=step)
        if step % 50 == 0:
            run.log({f"said{number}": "word " * (step % 7)}, step=step)
            time.sleep(float(sys.argv[3]))
threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
if sys.argv[4] == "die":
    os.kill(os.getpid(), 9)
run.finish()
"""


class Both:
    """A run in the coordinator's workspace and its copy on a worker."""

    def __init__(self, path: Path, *, attempt: int = 1) -> None:
        self.home = ensure_workspace(path / "home")
        self.away = ensure_workspace(path / "away")
        self.launched: LaunchedRun = self.home.create_run(project="p", run_id="a-run", params={"x": 1})
        self.there = self.launched.path
        self.here = self.away.path / "runs" / "p" / "a-run"
        self.attempt = attempt
        self.seed()

    def seed(self) -> None:
        self.here.mkdir(parents=True)
        for name, offset, data in seeds(self.there):
            with (self.here / name).open("r+b" if offset else "wb") as file:
                file.seek(offset)
                file.write(data)
        self.landing = Landing(self.there, self.attempt)
        self.shipper = RunShipper(self.here, frozenset(earlier_writers(self.here, self.attempt)))

    def ship(self, *, is_last: bool = False) -> int:
        pieces, gone = self.shipper.poll(is_last=is_last)
        for piece in pieces:
            self.landing.write(*piece)
        for name in gone:
            self.landing.remove(name)
        return sum(len(piece.data) for piece in pieces)

    def start(self, steps: int, *, pause: float = 0.0, end: str = "finish") -> subprocess.Popen[bytes]:
        words = [str(self.away.path), str(steps), str(pause), end]
        return subprocess.Popen([sys.executable, "-c", PROGRAM, *words])


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a run as a reader sees them: what was never written into a segment does not count."""
    found = {}
    for name in names_in(folder):
        if kind_of(name) is not Kind.STATUS:
            data = (folder / name).read_bytes()
            found[name] = data.rstrip(b"\0") if kind_of(name) is Kind.SLOTS else data
    return found


@pytest.mark.parametrize("end", ["finish", "die"])
def test_what_a_trial_records_is_the_same_on_both_sides(both: Both, end: str) -> None:
    process = both.start(2000, pause=0.002, end=end)
    tail = both.home.follow("a-run")
    seen: dict[str, int] = {}
    while process.poll() is None:
        both.ship()
        for name, series in tail.poll().items():
            seen[name] = seen.get(name, 0) + len(series)
        time.sleep(0.01)
    both.ship(is_last=True)
    both.landing.finish()
    for name, series in tail.poll().items():
        seen[name] = seen.get(name, 0) + len(series)
    assert contents(both.there).keys() >= contents(both.here).keys()
    assert {name: contents(both.there)[name] for name in contents(both.here)} == contents(both.here)
    assert seen == {"m0": 2000, "m1": 2000, "m2": 2000, "count": 6000}
    assert tail.unnamed == 0
    info = RunInfo(both.there)
    assert info.flat_params == {"x": 1}
    assert len(info.series("said1")) == 40
    both.launched.close()
    assert RunInfo(both.there).status is (Status.FINISHED if end == "finish" else Status.CRASHED)


def test_nothing_is_sent_twice_while_nothing_changes(both: Both) -> None:
    process = both.start(500)
    process.wait()
    assert both.ship() > 10_000
    assert both.ship() == 0
    assert both.ship(is_last=True) == 0


def test_a_segment_is_sent_as_far_as_it_is_used(both: Both) -> None:
    both.start(10, end="die").wait()
    sent = both.ship(is_last=True)
    assert sent < 16_000  # a header of 4096 bytes and about 60 slots, of a file of 64 KiB


def test_a_hole_that_is_filled_later_is_sent_later(both: Both) -> None:
    both.start(50, end="die").wait()
    (wal,) = both.here.glob("*-00000000.wal")
    whole = wal.read_bytes()
    last = 3 * (2 * 50 + 1) - 1  # a number whichever thread was last: texts are said at the first step
    hole = slice(4096 + last * 32, 4096 + (last + 1) * 32)
    wal.write_bytes(whole[: hole.start] + bytes(32) + whole[hole.stop :])
    tail = both.home.follow("a-run")
    both.ship()
    before = sum(len(series) for series in tail.poll().values())
    wal.write_bytes(whole)
    both.ship()
    after = sum(len(series) for series in tail.poll().values())
    assert (before, after) == (299, 1)


def test_a_slot_that_is_not_whole_is_not_sent(both: Both) -> None:
    both.start(50, end="die").wait()
    (wal,) = both.here.glob("*-00000000.wal")
    data = bytearray(wal.read_bytes())
    data[4096 + 5 * 32 + 28 : 4096 + 5 * 32 + 32] = b"\1\2\3\4"  # another commit word: torn
    wal.write_bytes(data)
    both.ship(is_last=True)
    landed = (both.there / wal.name).read_bytes()
    assert landed[4096 + 5 * 32 : 4096 + 6 * 32] == bytes(32)
    assert landed[4096 + 6 * 32 : 4096 + 7 * 32] == data[4096 + 6 * 32 : 4096 + 7 * 32]


def test_names_come_before_their_points_and_the_end_comes_last(both: Both) -> None:
    both.start(50).wait()
    pieces, _ = both.shipper.poll()
    order = [piece.name for piece in pieces]
    kinds = [kind_of(name) for name in order]
    assert kinds == sorted(kinds, key=lambda kind: kind.value if kind else -1)
    assert kinds.index(Kind.SLOTS) > max(i for i, name in enumerate(order) if name.endswith((".keys", ".blob")))
    assert kinds[-1] is Kind.STATUS


def test_after_a_break_only_what_is_missing_is_sent_again(both: Both) -> None:
    process = both.start(3000)
    process.wait()
    pieces, _ = both.shipper.poll()
    total = sum(len(piece.data) for piece in pieces)
    for piece in pieces[: len(pieces) // 2]:
        both.landing.write(*piece)  # the rest was on its way when the connection broke
    landed = sum((both.there / name).stat().st_size for name in both.landing.sums())
    both.shipper.check(both.landing.sums())
    again = both.ship(is_last=True)
    assert contents(both.there).items() >= contents(both.here).items()
    assert again <= total - landed + 4096


def test_what_differs_on_the_other_side_is_sent_again(both: Both) -> None:
    both.start(300).wait()
    both.ship()
    (wal,) = both.there.glob("*-00000000.wal")
    with wal.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(64))  # the machine went down before these came to its disk
    both.shipper.check(both.landing.sums())
    both.ship(is_last=True)
    assert contents(both.there).items() >= contents(both.here).items()


def test_a_new_attempt_goes_on_with_what_earlier_ones_recorded(both: Both, tmp_path: Path) -> None:
    both.start(20, end="die").wait()
    both.ship(is_last=True)
    both.landing.finish()
    both.landing.close()
    both.launched.close()
    both.launched = both.home.launched_run("a-run")
    assert both.launched.attempt == 2
    both.attempt = 2
    both.here = tmp_path / "elsewhere" / "runs" / "p" / "a-run"
    both.away = ensure_workspace(tmp_path / "elsewhere")
    both.seed()
    both.start(30).wait()
    both.ship(is_last=True)
    both.launched.close()
    info = RunInfo(both.there)
    assert [attempt.number for attempt in info.attempts] == [1, 2]
    assert info.status is Status.FINISHED
    assert len(info.series("m0", attempt=1)) == 20
    assert len(info.series("m0", attempt=2)) == 30


def test_a_run_that_is_sealed_on_the_worker_arrives_sealed(both: Both) -> None:
    both.start(500).wait()
    both.ship()
    tail = both.home.follow("a-run")
    before = sum(len(series) for series in tail.poll().values())
    both.away.seal("a-run")
    both.ship(is_last=True)
    assert (both.there / "metrics.parquet").is_file()
    assert not any(name.endswith(".wal") for name in contents(both.there))
    assert before == 3000
    assert tail.poll() == {}
    assert len(RunInfo(both.there).series("count")) == 1500


def test_a_console_that_is_written_over_at_its_end_arrives_as_it_is(both: Both) -> None:
    name = f"console.{WRITER}.log"
    console = both.here / name
    drawn = random.Random(1)
    text = b""
    for _ in range(50):
        text = text[: max(0, len(text) - drawn.randrange(200))] + drawn.randbytes(drawn.randrange(4000))
        console.write_bytes(text)
        both.ship()
        assert (both.there / name).read_bytes() == text
    assert (both.there / name).stat().st_mode & 0o777 == 0o600


def test_the_snapshot_of_the_machine_arrives_whole_and_private(both: Both) -> None:
    name = f"environment.{WRITER}.json"
    data = os.urandom(600_000)
    (both.here / name).write_bytes(data)
    pieces, _ = both.shipper.poll()
    assert len(pieces) == 3
    for piece in pieces[:-1]:
        both.landing.write(*piece)
    assert not (both.there / name).exists()
    both.landing.write(*pieces[-1])
    assert (both.there / name).read_bytes() == data
    assert (both.there / name).stat().st_mode & 0o777 == 0o600


def test_a_trial_that_lives_elsewhere_reads_as_running_here(both: Both) -> None:
    process = both.start(2000, pause=0.05)
    both.launched.close()
    limit = time.monotonic() + 120
    while "m0" not in RunInfo(both.there).metrics:
        both.ship()
        assert time.monotonic() < limit
        time.sleep(0.02)
    assert RunInfo(both.there).status is Status.RUNNING
    process.kill()
    process.wait()
    both.ship(is_last=True)
    both.landing.finish()
    assert RunInfo(both.there).status is Status.CRASHED


# --- what may not land ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "/etc/passwd", "..", ".", "", "a/b", "control", "seal.lock", "levels.parquet", "index.sqlite"),
        *(f"../{WRITER}.keys", f"{WRITER}.keys/..", f"{WRITER}.keys\0", f"{WRITER}.keys\n", f"{WRITER.upper()}.keys"),
        *(f"{WRITER}-1.wal", f"journal.{WRITER}.jsonl.partial", "console.2.log", "console.1.log ", "CON", "x" * 5000),
        "console.١.log",
    ],
)
def test_a_name_that_no_run_has_is_refused(both: Both, name: str) -> None:
    before = sorted(both.there.parent.parent.parent.rglob("*"))
    with pytest.raises(LinkBroken):
        both.landing.write(name, 0, b"x", 1)
    with pytest.raises(LinkBroken):
        both.landing.remove(name)
    assert sorted(both.there.parent.parent.parent.rglob("*")) == before


def test_what_belongs_to_the_launcher_or_an_earlier_attempt_is_left_alone(both: Both) -> None:
    for name in names_in(both.there):
        before = (both.there / name).read_bytes()
        with pytest.raises(LinkBroken, match="may write"):
            both.landing.write(name, 0, b"x", None)
        assert (both.there / name).read_bytes() == before


def test_a_link_in_the_folder_is_not_followed(both: Both, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (both.there / f"{WRITER}.keys").symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        both.landing.write(f"{WRITER}.keys", 0, b"x", None)
    assert target.read_text() == "precious"


def test_a_piece_behind_the_end_of_a_file_is_refused(both: Both) -> None:
    both.landing.write(f"{WRITER}.keys", 0, b"abc", None)
    with pytest.raises(LinkBroken, match="behind its end"):
        both.landing.write(f"{WRITER}.keys", 1 << 40, b"x", None)
    with pytest.raises(LinkBroken, match="not written like this"):
        both.landing.write(f"{WRITER}.status", 0, bytes(65), None)


@pytest.mark.parametrize("name", [f"journal.{WRITER}.jsonl", f"{WRITER}.status", "metrics.parquet"])
def test_what_no_trial_removes_stays(both: Both, name: str) -> None:
    with pytest.raises(LinkBroken, match="removes"):
        both.landing.remove(name)


def test_a_content_is_what_its_hash_says_or_is_refused(both: Both, tmp_path: Path) -> None:
    blobs = BlobLanding(both.home, tmp_path / "parts")
    data = os.urandom(300_000)
    entry = both.away.blobs.put_bytes(data, "x")
    assert not blobs.has(entry.hash)
    assert not blobs.write("w", entry.hash, 0, len(data), data[:100_000])
    with pytest.raises(LinkBroken, match="does not follow"):
        blobs.write("w", entry.hash, 200_000, len(data), data[200_000:])
    assert blobs.write("w", entry.hash, 100_000, len(data), data[100_000:])
    assert (both.home.path / "blobs" / entry.hash[:2] / entry.hash).read_bytes() == data
    with pytest.raises(LinkBroken, match="not what its hash says"):
        blobs.write("w", "0" * 64, 0, 3, b"abc")
    assert not blobs.has("0" * 64)
    for name in ("../" + "0" * 61, "0" * 63, "0" * 63 + "G", ""):
        with pytest.raises(LinkBroken, match="not a content hash"):
            blobs.write("w", name, 0, 3, b"abc")
    assert list((tmp_path / "parts").iterdir()) == []


def test_every_name_in_a_run_folder_has_a_kind_or_is_derived(both: Both) -> None:
    both.start(50).wait()
    rest = {path.name for path in both.here.iterdir() if kind_of(path.name) is None}
    assert rest <= {"control"}
    assert {writer_of(name) for name in names_in(both.here)} - {None}


def test_segments_that_grow_while_they_are_read_stay_equal(both: Both) -> None:
    """Slots are filled out of order by threads while another one ships."""
    name = f"{WRITER}-00000000.wal"
    header = bytearray(4096)
    header[24:28] = b"salt"
    path = both.here / name
    path.write_bytes(bytes(header) + bytes(32 * 4000))
    order = list(range(4000))
    drawn = random.Random(5)
    for start in range(0, 4000, 16):
        part = order[start : start + 16]
        drawn.shuffle(part)
        order[start : start + 16] = part

    def fill() -> None:
        with path.open("r+b", buffering=0) as file:
            for number in order:
                os.pwrite(file.fileno(), zlib.crc32(bytes([number % 251])).to_bytes(4) * 7, 4096 + 32 * number)
                os.pwrite(file.fileno(), b"salt", 4096 + 32 * number + 28)

    thread = threading.Thread(target=fill)
    thread.start()
    while thread.is_alive():
        both.ship()
        if (both.there / name).exists():
            for match in re.finditer(rb"(?s)(.{28})salt", (both.there / name).read_bytes()[4096:]):
                assert match[1] != bytes(28)
    thread.join()
    both.ship()
    assert (both.there / name).read_bytes() == path.read_bytes()
