"""What a server takes of a run: the same in any order, as often as it comes, and nothing that is forged (S40, F22)."""

from __future__ import annotations

import json
import random
import struct
import uuid
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.errors import RunstoneError
from runstone.runlog import format as fmt
from runstone.runlog.reader import read_journal
from runstone.sync.batches import open_runs, send_parcels
from runstone.sync.client import Client, NotThere, Refused, error_of
from runstone.sync.landing import Landing, OtherBytes
from runstone.sync.shipping import RunShipper
from runstone.sync.wire import Parcel, Piece, WriterReport, pack, pack_batch, unpack, unpack_batch
from runstone.values import Status
from runstone.workspace import ensure_workspace
from tests.sync.conftest import Team, contents

WRITER = "ab" * 16


class Recorder:
    """Takes parcels into a folder, as a server does, and keeps them."""

    def __init__(self, path: Path) -> None:
        self.landing = Landing(ensure_workspace(path).path)
        self.parcels: list[Parcel] = []
        self.folder = path

    def post(self, path: str, body: Any = None, **_query: Any) -> Any:
        """Answer as the server would."""
        if path == "/api/sync/runs":
            told = body["runs"][0]
            self.folder, _is_new = self.landing.open(told["run_id"], told["project"])
            return {"runs": {told["run_id"]: {"files": {}, "sealed": [], "stop": None}}}
        assert path == "/api/sync/parcels"
        [(run_id, packed)] = unpack_batch(body)
        parcel = unpack(packed)
        self.parcels.append(parcel)
        landed = self.landing.land(self.folder, parcel)
        return {"runs": {run_id: {"sizes": landed.sizes, "stop": landed.stop}}}


def ship(taker: Recorder, shipper: RunShipper) -> bool:
    """Send the next parcel of a run; return whether there was one."""
    client: Any = taker
    if not shipper.is_open:
        assert not open_runs(client, [shipper])
    sending = send_parcels(client, [shipper])
    assert not sending.problems
    return bool(sending.sent)


def recorded(path: Path, *, steps: int = 40_000) -> tuple[Recorder, Path, str]:
    """Record a run and send it once; return who took it, and the run's folder and id."""
    taker = Recorder(path / "first")
    run = runstone.start_run(workspace=path / "own", project="digits", environment=False)
    shipper = RunShipper(run.path, run.workspace.blobs, taker)  # type: ignore[arg-type]
    for step in range(steps):
        run.log({"loss": 1 / (step + 1), "note": f"at {step % 7}"}, step=step)
        if step % (steps // 8) == 0:
            ship(taker, shipper)
    run.finish()
    while ship(taker, shipper):
        pass
    return taker, run.path, run.id


def test_f22_requests_that_come_twice_and_in_any_order_give_the_same_run(tmp_path: Path) -> None:
    taker, folder, run_id = recorded(tmp_path)
    expected = contents(folder, tmp_path)
    assert contents(taker.folder, tmp_path) == expected
    assert len(taker.parcels) > 8
    chance = random.Random(7)
    for number in range(3):
        landing = Landing(ensure_workspace(tmp_path / f"again {number}").path)
        again, _is_new = landing.open(run_id, "digits")
        waiting = [*taker.parcels, *taker.parcels]
        chance.shuffle(waiting)
        refused = 0
        while waiting:
            parcel = waiting.pop(0)
            try:
                landing.land(again, parcel)
            except RunstoneError:  # it does not follow what is here yet: the client sends it again
                refused += 1
                waiting.append(parcel)
                assert refused < 20_000
        assert contents(again, tmp_path) == expected
        assert read_journal(again).status is Status.FINISHED


def test_a_late_copy_with_a_gap_does_not_free_what_was_filled(tmp_path: Path) -> None:
    landing, folder = small(tmp_path)
    early = slots(1.0, None, 3.0)
    late = slots(1.0, 2.0, 3.0)
    landing.land(folder, Parcel([keys_of("loss"), early]))
    landing.land(folder, Parcel([late]))
    landing.land(folder, Parcel([early]))
    assert (folder / late.file).read_bytes() == late.data


def opened(client: Client, run_id: str, project: str) -> Any:
    """Make a run there."""
    return of_one(client.post("/api/sync/runs", {"runs": [{"run_id": run_id, "project": project}]}), run_id)


def landed(client: Client, run_id: str, packed: bytes) -> Any:
    """Send a packed parcel."""
    head = json.dumps({"format": 1, "parcels": [[run_id, len(packed)]]}).encode()
    return of_one(
        client.post("/api/sync/parcels", struct.pack("<II", len(head), zlib.crc32(head)) + head + packed), run_id
    )


def of_one(answers: Any, run_id: str) -> Any:
    """Return what is said of one run, and raise what went wrong with it."""
    answer = answers["runs"][run_id]
    if "error" in answer:
        raise error_of(answer["status"], answer["error"])
    return answer


# --- forged ----------------------------------------------------------------------------------------------------------
def line(**event: Any) -> bytes:
    return fmt.encode_event({"at": 1e9, **event})


def first_lines(**changed: Any) -> bytes:
    writer = {"event": "writer", "format": 1, "writer": WRITER, "role": "main", "attempt": 1, "rank": 0, "pid": 1}
    return line(**{**writer, **changed}) + line(event="created", run_id="mine", project="digits", name="n")


def journal(**changed: Any) -> Piece:
    return Piece(f"journal.{WRITER}.jsonl", 0, first_lines(**changed))


def keys_of(*names: str) -> Piece:
    data = b"".join(fmt.pack_key(number, fmt.TYPE_FLOAT, name) for number, name in enumerate(names, 1))
    return Piece(f"{WRITER}.keys", 0, data)


def slots(*values: float | None, key: int = 1, seq: int = 0, writer: str = WRITER, count: int = 2048) -> Piece:
    salt = 77
    header = fmt.SegmentHeader(count, salt, bytes.fromhex(writer), seq, 1, 0.0, 0.0)
    data = fmt.pack_header(header).ljust(fmt.HEADER_BYTES, b"\0")
    for step, value in enumerate(values):
        data += bytes(32) if value is None else fmt.FLOAT_SLOT.pack(step, 0.0, value, key, salt)
    return Piece(f"{WRITER}-{seq:08d}.wal", 0, data)


def small(path: Path) -> tuple[Landing, Path]:
    landing = Landing(ensure_workspace(path / "w").path)
    folder, _is_new = landing.open("mine", "digits")
    landing.land(folder, Parcel([journal()]))
    return landing, folder


SOUND = slots(1.0, 2.0)
FORGED: dict[str, list[Piece]] = {
    "another writer's journal": [journal(writer="cd" * 16)],
    "a journal of a future format": [journal(format=2)],
    "a journal of an unknown role": [journal(role="god")],
    "a journal that does not begin": [Piece(f"journal.{WRITER}.jsonl", 0, line(event="tags", set={}))],
    "another run's journal": [
        Piece(f"journal.{WRITER}.jsonl", len(first_lines()), line(event="created", run_id="yours", project="digits"))
    ],
    "another project's journal": [
        Piece(f"journal.{WRITER}.jsonl", len(first_lines()), line(event="created", run_id="mine", project="secret"))
    ],
    "a writer without a journal": [Piece(f"{'cd' * 16}.keys", 0, keys_of("loss").data)],
    "another writer's log": [keys_of("loss"), slots(1.0, writer="cd" * 16)],
    "another part of the log": [keys_of("loss"), replace(slots(1.0, seq=3), file=SOUND.file)],
    "more slots than the log has": [keys_of("loss"), slots(*[1.0] * 5, count=4)],
    "a log that is too large": [keys_of("loss"), slots(1.0, count=1 << 30)],
    "half a slot": [keys_of("loss"), replace(SOUND, data=SOUND.data[:-16])],
    "a slot with another salt": [keys_of("loss"), replace(SOUND, data=SOUND.data[:-4] + b"\1\2\3\4")],
    "a log of a future format": [keys_of("loss"), replace(SOUND, data=SOUND.data[:8] + b"\2\0" + SOUND.data[10:])],
    "a metric without a name": [keys_of("loss"), slots(1.0, key=2)],
    "half a name": [replace(keys_of("loss"), data=keys_of("loss").data[:-1])],
    "a name that cannot be": [keys_of("a\0b")],
    "a gap": [keys_of("loss"), SOUND, replace(SOUND, offset=1 << 20, data=bytes(32))],
}


@pytest.mark.parametrize("what", FORGED)
def test_s40_what_is_forged_is_refused_and_changes_nothing(tmp_path: Path, what: str) -> None:
    landing, folder = small(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RunstoneError):
        landing.land(folder, Parcel([Piece(f"{WRITER}.blob", 0, b"x"), *FORGED[what]]))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_s40_what_is_sound_is_taken(tmp_path: Path) -> None:
    landing, folder = small(tmp_path)
    landing.land(folder, Parcel([keys_of("loss"), SOUND], [WriterReport(WRITER, True)]))
    assert read_journal(folder).status is Status.RUNNING


@pytest.mark.parametrize(
    "piece",
    [
        Piece(f"journal.{WRITER}.jsonl", 0, first_lines(pid=2)),
        Piece(f"{WRITER}.keys", 0, fmt.pack_key(1, fmt.TYPE_FLOAT, "other")),
        Piece(SOUND.file, 0, slots(1.0, 5.0).data),
    ],
)
def test_other_bytes_than_those_that_are_here_are_refused(tmp_path: Path, piece: Piece) -> None:
    landing, folder = small(tmp_path)
    landing.land(folder, Parcel([keys_of("loss"), SOUND]))
    with pytest.raises(OtherBytes):
        landing.land(folder, Parcel([piece]))
    assert (folder / SOUND.file).read_bytes() == SOUND.data


def test_a_sealed_log_is_not_sent_again(tmp_path: Path) -> None:
    taker, _folder, run_id = recorded(tmp_path, steps=100)
    workspace = ensure_workspace(tmp_path / "first")
    workspace.seal(run_id)
    assert taker.landing.sealed_writers(taker.folder)
    parcel = next(one for one in taker.parcels if any(piece.file.endswith(".wal") for piece in one.pieces))
    with pytest.raises(OtherBytes, match="sealed"):
        taker.landing.land(taker.folder, parcel)


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _body: b"",
    "a bit that flipped": lambda body: body[:-1] + bytes([body[-1] ^ 1]),
    "cut off": lambda body: body[:-40],
    "longer": lambda body: body + b"x",
    "a head that is longer than all": lambda body: struct.pack("<II", 1 << 30, zlib.crc32(body[8:])) + body[8:],
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_parcel_that_was_damaged_on_its_way_is_refused(what: str) -> None:
    body = pack(Parcel([keys_of("loss"), SOUND], [WriterReport(WRITER, True)]))
    assert unpack(body).pieces[1].data == SOUND.data
    with pytest.raises(RunstoneError):
        unpack(BROKEN[what](body))


def parcel_of(head: bytes) -> bytes:
    return struct.pack("<II", len(head), zlib.crc32(head)) + head


HEADS = [
    b"{}",
    b"[]",
    b"[" * 100_000,
    b'{"format":2,"pieces":[],"writers":[],"gone":[]}',
    b'{"format":1,"pieces":[["../x",0,0]],"writers":[],"gone":[]}',
    b'{"format":1,"pieces":[["control",0,0]],"writers":[],"gone":[]}',
    b'{"format":1,"pieces":[["metrics.parquet",0,0]],"writers":[],"gone":[]}',
    f'{{"format":1,"pieces":[["{WRITER}.keys",-1,0]],"writers":[],"gone":[]}}'.encode(),
    f'{{"format":1,"pieces":[["{WRITER}.keys",0,99]],"writers":[],"gone":[]}}'.encode(),
    f'{{"format":1,"pieces":[["{WRITER}.keys",true,0]],"writers":[],"gone":[]}}'.encode(),
    f'{{"format":1,"pieces":[["{WRITER}.keys",0,0,0,null]],"writers":[],"gone":[]}}'.encode(),
    b'{"format":1,"pieces":[],"writers":[["../../x",true,0,0,"",false]],"gone":[]}',
    f'{{"format":1,"pieces":[],"writers":[],"gone":["journal.{WRITER}.jsonl"]}}'.encode(),
]


def test_s40_the_api_refuses_what_is_no_parcel(team: Team) -> None:
    client = team.client()
    opened(client, "mine", "digits")
    for head in HEADS:
        with pytest.raises(Refused) as refused:
            landed(client, "mine", parcel_of(head))
        assert 400 <= refused.value.status < 500, head
    assert client.get("/api/sync/runs/mine")["files"] == {}


BATCHES = [
    b'{"format":1,"parcels":[["mine",999]]}',
    b'{"format":1,"parcels":[["mine",-1]]}',
    b'{"format":1,"parcels":[["mine",0],["mine",0]]}',
    b'{"format":1,"parcels":[[1,0]]}',
    b'{"format":1,"parcels":[["mine"]]}',
    b'{"format":1,"parcels":7}',
    b'{"format":1}',
    b'{"format":9,"parcels":[]}',
    b"[]",
    b"\xff",
    b"[" * 50_000,
    json.dumps({"format": 1, "parcels": [[str(number), 0] for number in range(1_025)]}).encode(),
]


@pytest.mark.parametrize("number", range(len(BATCHES)))
def test_s40_the_api_refuses_what_is_no_batch(team: Team, number: int) -> None:
    head = BATCHES[number]
    with pytest.raises(Refused) as refused:
        team.client().post("/api/sync/parcels", struct.pack("<II", len(head), zlib.crc32(head)) + head)
    assert 400 <= refused.value.status < 500


def test_s40_a_damaged_batch_is_refused_as_a_whole(team: Team) -> None:
    client = team.client()
    opened(client, "mine", "digits")
    body = pack_batch([("mine", Parcel([journal()]))])
    for place in range(0, len(body), 7):
        damaged = bytearray(body)
        damaged[place] ^= 64
        with pytest.raises(Refused):
            of_one(client.post("/api/sync/parcels", bytes(damaged)), "mine")
    assert client.get("/api/sync/runs/mine")["files"] == {}


def test_a_run_that_is_refused_does_not_hold_up_the_others_of_its_batch(team: Team) -> None:
    client = team.client("dan")
    answer = client.post(
        "/api/sync/runs",
        {"runs": [{"run_id": one, "project": project} for one, project in (("a", "digits"), ("b", "secret"))]},
    )["runs"]
    assert answer["a"]["is_new"]
    assert answer["b"]["status"] == 403
    body = pack_batch([("b", Parcel([journal()])), ("a", Parcel([journal(), keys_of("loss")])), ("../a", Parcel())])
    answer = client.post("/api/sync/parcels", body)["runs"]
    assert [answer[one].get("status") for one in ("a", "b", "../a")] == [400, 404, 404]
    own = replace(journal(), data=first_lines().replace(b'"mine"', b'"a"'))
    answer = client.post("/api/sync/parcels", pack_batch([("b", Parcel([journal()])), ("a", Parcel([own]))]))["runs"]
    assert answer["a"]["sizes"] == {own.file: len(own.data)}
    answer = client.post("/api/sync/finish", {"run_ids": ["b", "a", "nowhere"]})["runs"]
    assert [one for one in answer if "error" in answer[one]] == ["b", "nowhere"]
    assert answer["a"]["files"][own.file]["size"] == len(own.data)


# --- who may ---------------------------------------------------------------------------------------------------------
def test_roles_count_by_project(team: Team) -> None:
    body = pack(Parcel([journal()]))
    dan, sue, vic = team.client("dan"), team.client("sue"), team.client("vic")
    with pytest.raises(Refused):
        opened(vic, "mine", "digits")
    with pytest.raises(Refused):
        opened(sue, "mine", "digits")
    opened(dan, "mine", "digits")
    landed(dan, "mine", body)
    for method, path in (
        ("GET", "/api/sync/runs/mine"),
        ("GET", "/api/sync/runs/mine/files"),
        ("GET", f"/api/sync/runs/mine/files/journal.{WRITER}.jsonl"),
    ):
        with pytest.raises(NotThere):
            sue.ask(method, path)
    with pytest.raises(NotThere):
        of_one(sue.post("/api/sync/finish", {"run_ids": ["mine"]}), "mine")
    with pytest.raises(NotThere):
        landed(sue, "mine", body)
    with pytest.raises(Refused):
        landed(vic, "mine", body)
    assert vic.get("/api/sync/runs/mine")["files"]
    for kind in ("datasets", "models"):
        with pytest.raises(Refused):
            dan.get(f"/api/sync/histories/{kind}")


def test_a_run_does_not_come_to_another_project(team: Team) -> None:
    opened(team.client("dan"), "mine", "digits")
    with pytest.raises(Refused):
        opened(team.client("sue"), "mine", "secret")
    with pytest.raises(Refused):
        opened(team.client("ann"), "../x", "secret")


def test_a_body_that_is_too_large_is_refused(team: Team) -> None:
    client = team.client()
    opened(client, "mine", "digits")
    with pytest.raises((Refused, RunstoneError)):
        client.post("/api/sync/parcels", bytes(17 << 20))


def test_two_clients_that_write_one_file_leave_it_as_one_of_them_wrote_it(tmp_path: Path) -> None:
    landing, folder = small(tmp_path)
    other = str(uuid.uuid4().hex)
    landing.land(folder, Parcel([keys_of("loss"), slots(1.0)]))
    with pytest.raises(OtherBytes):
        landing.land(folder, Parcel([slots(2.0)]))
    landing.land(folder, Parcel([Piece(f"journal.{other}.jsonl", 0, first_lines(writer=other))]))
    assert len(read_journal(folder).writers) == 2
