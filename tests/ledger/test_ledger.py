"""The append-only history under the registries: exclusive numbers, whole files, a chain that tells what was changed."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from runstone.errors import FormatError, InvalidValue
from runstone.ledger import Ledger, LedgerDamaged, LedgerEvent, ledgers

SPAWN = multiprocessing.get_context("spawn")


def numbered(before: Sequence[LedgerEvent]) -> Mapping[str, Any]:
    """Say how many events there were: wrong in every history that was not looked at again."""
    return {"count": len(before)}


def write_many(folder: Path, count: int) -> None:
    ledger = Ledger(folder)
    for _ in range(count):
        ledger.append("counted", numbered)


def write_for_ever(folder: Path) -> None:
    write_many(folder, 1_000_000)


def filled(folder: Path, count: int = 5) -> Ledger:
    ledger = Ledger(folder)
    for index in range(count):
        ledger.append("noted", {"text": f"Größe {index}"})
    return ledger


def test_what_was_written_is_read_by_another(tmp_path: Path) -> None:
    event = Ledger(tmp_path / "events").append("noted", {"nested": {"a": [1, None, "é"]}}, run_id="r1")
    (found,) = Ledger(tmp_path / "events").events()
    assert found == event
    assert (found.seq, found.kind, found.fields) == (1, "noted", {"nested": {"a": [1, None, "é"]}})
    assert found.by.keys() == {"user", "host", "run"}
    assert found.by["run"] == "r1"
    assert abs(found.at - time.time()) < 60


def test_a_ledger_sees_what_others_write_between(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path), Ledger(tmp_path)
    one.append("a", {})
    other.append("b", {})
    one.append("c", {})
    assert [event.kind for event in other.events()] == ["a", "b", "c"]
    assert one.head == other.head == other.events()[-1].hash


def test_an_event_that_the_history_does_not_allow_leaves_no_trace(tmp_path: Path) -> None:
    ledger = filled(tmp_path, 1)

    def refuse(before: Sequence[LedgerEvent]) -> Mapping[str, Any]:
        raise InvalidValue(f"no more after {len(before)}")

    with pytest.raises(InvalidValue, match="no more after 1"):
        ledger.append("noted", refuse)
    with pytest.raises(ValueError, match="JSON"):
        ledger.append("noted", {"value": float("nan")})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001.json"]


def test_times_never_go_back_whatever_the_clocks_say(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    late = ledger.append("noted", {}, at=time.time() + 3600)
    assert ledger.append("noted", {}).at == late.at
    assert ledger.verify() == []


def test_1000_events_from_16_processes_are_all_there_and_each_saw_those_before_it(tmp_path: Path) -> None:
    writers = [SPAWN.Process(target=write_many, args=(tmp_path, 63)) for _ in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    events = Ledger(tmp_path).events()
    assert len(events) == 16 * 63
    assert [event.fields["count"] for event in events] == list(range(16 * 63))
    assert Ledger(tmp_path).verify() == []
    assert len(list(tmp_path.iterdir())) == 16 * 63


def test_kill_9_of_writers_leaves_a_history_that_holds(tmp_path: Path) -> None:
    chance = random.Random(7)
    for _ in range(3):
        writers = [SPAWN.Process(target=write_for_ever, args=(tmp_path,)) for _ in range(3)]
        for writer in writers:
            writer.start()
        seen = len(list(tmp_path.glob("*.json")))
        while len(list(tmp_path.glob("*.json"))) < seen + 30:
            assert all(writer.is_alive() for writer in writers)
            time.sleep(0.005)
        time.sleep(chance.random() * 0.05)
        for writer in writers:
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
        assert Ledger(tmp_path).verify() == []
    count = len(list(tmp_path.glob("*.json")))
    Ledger(tmp_path).append("counted", numbered)
    events = Ledger(tmp_path).events()
    assert len(events) == count + 1
    assert [event.fields["count"] for event in events] == list(range(count + 1))


@pytest.mark.parametrize("number", [1, 3, 5])
def test_any_changed_byte_is_found_and_the_file_named(tmp_path: Path, number: int) -> None:
    filled(tmp_path)
    path = tmp_path / f"{number:08d}.json"
    whole = path.read_bytes()
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= 1
        path.write_bytes(changed)
        found = Ledger(tmp_path).verify()
        assert [damage.path for damage in found] == [path], (index, found)
    path.write_bytes(whole)
    assert Ledger(tmp_path).verify() == []


def test_an_event_that_was_taken_out_or_replaced_is_found(tmp_path: Path) -> None:
    filled(tmp_path)
    third = tmp_path / "00000003.json"
    whole = third.read_bytes()
    third.unlink()
    assert [damage.what for damage in Ledger(tmp_path).verify()] == ["the event is missing"]
    with pytest.raises(LedgerDamaged, match=r"00000003\.json is missing"):
        Ledger(tmp_path).events()
    # an event that is right in itself, from a history of another making
    other = tmp_path / "other"
    filled(other, 2)
    Ledger(other).append("noted", {"text": "forged"})
    third.write_bytes((other / "00000003.json").read_bytes())
    found = Ledger(tmp_path).verify()
    assert [damage.path.name for damage in found] == ["00000003.json", "00000004.json"]
    with pytest.raises(LedgerDamaged, match="does not follow"):
        Ledger(tmp_path).events()
    with pytest.raises(LedgerDamaged):
        Ledger(tmp_path).append("noted", {})
    third.write_bytes(whole)
    assert Ledger(tmp_path).verify() == []


def test_a_newer_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    from blake3 import blake3

    filled(tmp_path, 1)
    path = tmp_path / "00000001.json"
    content = json.loads(path.read_bytes())
    del content["hash"]
    body = json.dumps({**content, "format": 2}, separators=(",", ":")).encode()[:-1]
    path.write_bytes(body + b',"hash":"' + blake3(body).hexdigest().encode() + b'"}\n')
    with pytest.raises(FormatError, match="update runstone"):
        Ledger(tmp_path).events()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = filled(tmp_path, 2)

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            ledger.append("noted", {})
    assert len(list(tmp_path.iterdir())) == 2
    assert ledger.append("noted", {}).seq == 3


def test_where_files_cannot_be_linked_a_number_is_still_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    ledger = filled(tmp_path, 3)
    stale = Ledger(tmp_path)
    stale.events()
    ledger.append("noted", {})
    assert stale.append("noted", numbered).fields == {"count": 4}
    assert Ledger(tmp_path).verify() == []
    assert len(list(tmp_path.iterdir())) == 5


def test_a_reader_waits_for_an_event_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, 2)
    path = tmp_path / "00000002.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    monkeypatch.setattr(time, "sleep", lambda _: path.write_bytes(whole))
    assert len(Ledger(tmp_path).events()) == 2


def test_a_torn_event_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstone.ledger._PATIENCE_S", 0.02)
    filled(tmp_path, 2)
    path = tmp_path / "00000002.json"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(LedgerDamaged, match="not whole"):
        Ledger(tmp_path).events()


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    (tmp_path / "README").write_text("x")
    (tmp_path / "1.json").write_text("x")
    assert len(Ledger(tmp_path).events()) == 2
    assert Ledger(tmp_path).verify() == []


def test_all_ledgers_of_a_kind_are_found(tmp_path: Path) -> None:
    for name in ("b", "a"):
        filled(tmp_path / name / "events", 1)
    (tmp_path / "empty" / "events").mkdir(parents=True)
    (tmp_path / "file").touch()
    assert [path.parent.name for path in ledgers(tmp_path)] == ["a", "b"]
    filled(tmp_path / "c" / "events", 2)
    (tmp_path / "c" / "events" / "00000001.json").unlink()
    assert [path.parent.name for path in ledgers(tmp_path)] == ["a", "b", "c"]
    assert list(ledgers(tmp_path / "nowhere")) == []
