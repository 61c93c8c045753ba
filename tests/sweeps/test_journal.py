"""The record of a sweep on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runstone import FormatError
from runstone_sweeps.record import journal as module
from runstone_sweeps.record.journal import Journal, decode, encode, read_events


def write(folder: Path, count: int, start: int = 0) -> list[dict[str, object]]:
    journal = Journal(folder, next_seq=start)
    events = [journal.append({"event": "told", "number": n, "value": n / 3, "text": "é\n\ud800"}) for n in range(count)]
    journal.close()
    return events


def test_events_come_back_as_they_were_written_over_several_files(tmp_path: Path) -> None:
    first = write(tmp_path, 3)
    second = write(tmp_path, 2, start=3)
    assert read_events(tmp_path) == (first + second, 0)
    assert len(list(tmp_path.glob("journal.*.jsonl"))) == 2


def test_a_torn_last_line_is_dropped_at_every_byte(tmp_path: Path) -> None:
    events = write(tmp_path, 3)
    (path,) = tmp_path.glob("*.jsonl")
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, last + 1):
        path.write_bytes(whole[:-cut])
        # only the newline is missing: the event is whole
        assert read_events(tmp_path) == (events if cut == 1 else events[:2], 0)


def test_a_damaged_line_is_counted_and_the_others_stand(tmp_path: Path) -> None:
    events = write(tmp_path, 4)
    (path,) = tmp_path.glob("*.jsonl")
    whole = bytearray(path.read_bytes())
    at = whole.index(b'"number":1') + len('"number":')
    whole[at : at + 1] = b"7"
    path.write_bytes(bytes(whole))
    assert read_events(tmp_path) == ([events[0], *events[2:]], 1)


def test_a_line_that_the_disk_took_in_part_is_never_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    first = journal.append({"event": "a"})
    real = os.write
    monkeypatch.setattr(module.os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
    with pytest.raises(OSError, match="only a part"):
        journal.append({"event": "b"})
    monkeypatch.undo()
    second = journal.append({"event": "b"})
    journal.close()
    assert read_events(tmp_path) == ([first, second], 0)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.x.jsonl").write_bytes(encode({"event": "writer", "format": 99, "seq": 0}))
    with pytest.raises(FormatError, match="format 99"):
        read_events(tmp_path)


@pytest.mark.parametrize("line", [b"", b"{}", b'{"seq":0,"crc":"00000000"}', b'\xff,"crc":"00000000"}', b'"x'])
def test_what_is_no_event_decodes_to_nothing(line: bytes) -> None:
    assert decode(line) is None
