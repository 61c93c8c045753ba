"""Event files as bytes: whole, torn, damaged, zeroed, random."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstone.tensorboard import records as tb_records
from runstone.tensorboard.protos import Event
from runstone.tensorboard.records import Losses, framed, masked_crc, records

CONTENTS = [b"one", b"", bytes(range(256)) * 2, b"\0" * 40, b"last"]  # one of 512 bytes: its length begins with a zero
WHOLE = b"".join(map(framed, CONTENTS))


def read(data: bytes) -> tuple[list[bytes], Losses]:
    losses = Losses()
    return [record for _place, record in records(data, losses)], losses


def test_checksums_are_those_of_other_writers() -> None:
    # of RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 0x8a9136aa
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@given(st.lists(st.binary(max_size=600)))
def test_what_is_written_is_read(contents: list[bytes]) -> None:
    assert read(b"".join(map(framed, contents))) == (contents, Losses())


def test_a_file_that_is_torn_at_any_byte_of_its_last_record_keeps_the_others() -> None:
    last = framed(CONTENTS[-1])
    for length in range(1, len(last)):
        found, losses = read(WHOLE[: len(WHOLE) - len(last) + length])
        assert found == CONTENTS[:-1], length
        assert (losses.torn_bytes, losses.damaged) == (length, 0)


def test_what_follows_a_torn_record_is_read() -> None:
    for length in range(1, len(framed(CONTENTS[2]))):
        found, losses = read(framed(b"before") + framed(CONTENTS[2])[:length] + WHOLE)
        assert found == [b"before", *CONTENTS], length
        assert losses.damaged + bool(losses.skipped_bytes) == 1


def test_a_damaged_byte_costs_one_record() -> None:
    before, middle, after = framed(b"before"), framed(b"in the middle"), framed(b"after") + framed(b"the last")
    for place in range(len(middle)):
        damaged = bytearray(middle)
        damaged[place] ^= 0x55
        found, losses = read(before + bytes(damaged) + after)
        assert found == [b"before", b"after", b"the last"], place
        assert losses.damaged + bool(losses.skipped_bytes) == 1


def test_blocks_of_zeros_are_passed_over() -> None:
    for count in (1, 7, 8, 63, 64, 65, 4096, 3_000_000):
        for content in CONTENTS:
            found, losses = read(framed(b"before") + bytes(count) + framed(content) + framed(b"after"))
            assert found == [b"before", content, b"after"], (count, content[:5])
            assert (losses.skipped_bytes, losses.damaged, losses.torn_bytes) == (count, 0, 0)


def test_zeros_at_the_end_are_no_torn_record() -> None:
    found, losses = read(WHOLE + bytes(4096))
    assert (found, losses) == (CONTENTS, Losses(skipped_bytes=4096))


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_random_bytes_never_raise(before: bytes, after: bytes) -> None:
    found, _losses = read(before + framed(b"whole record") + after)
    assert len(found) <= 2 + len(after) // 16
    for record in found:
        assert isinstance(record, bytes)


def test_events_survive_the_frame() -> None:
    event = Event(wall_time=1.5, step=-3, file_version="brain.Event:2")
    (found,), _losses = read(framed(event.SerializeToString()))
    assert Event.FromString(found) == event


def test_a_record_beyond_the_limit_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tb_records, "MOST_RECORD_BYTES", 200)
    found, losses = read(framed(b"before") + framed(bytes(300)) + framed(b"after"))
    assert (found, losses) == ([b"before", b"after"], Losses(damaged=1))
