"""Files in parts: each by its own ticket, in any order, sent again where it failed; whole in the end, or not there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import Request

from runstone.blobs.partial import Partial
from runstone.index.accounts import Accounts
from runstone.server.auth import hashed, new_token
from runstone.server.errors import ApiError
from runstone.server.mlflow import multipart, parts
from runstone.server.mlflow.parts import LASTS_S, MOST_PARTS, RESTS_S, Uploads
from runstone.server.mlflow.receiving import receive
from runstone.server.mlflow.tickets import HEADER, is_good, make_ticket
from runstone.workspace import Workspace, ensure_workspace
from tests.mlflow.conftest import CONFIG, PROXY, Served, World, opened

MPU = "/api/2.0/mlflow-artifacts/mpu"
PRESIGNED = "/api/2.0/mlflow-artifacts/presigned"
Parts = list[dict[str, Any]]


def begun(world: World, folder: str, count: int, name: str = "x.bin", user: str = "ann") -> dict[str, Any]:
    return world.ask("POST", f"{MPU}/create/{folder}", user, path=f"/home/ann/{name}", num_parts=count)


def sent(world: World, credential: dict[str, Any], data: bytes) -> dict[str, Any]:
    answer = world.client.put(credential["url"], content=data, headers=credential["headers"])
    assert answer.status_code == 200, answer.text
    return {"part_number": credential["part_number"], "etag": answer.headers["etag"], "url": credential["url"]}


def completed(world: World, folder: str, made: dict[str, Any], done: Parts, user: str = "ann") -> Any:
    body = {"path": "/home/ann/x.bin", "upload_id": made["upload_id"], "parts": done}
    return world.client.post(f"{MPU}/complete/{folder}", json=body, headers=world.headers(user))


def fetched(world: World, path: str) -> bytes:
    answer = world.client.get(f"{PROXY}/{path}", headers=world.headers())
    assert answer.status_code == 200, answer.text
    return bytes(answer.content)


def left(world: World) -> list[str]:
    """Return what lies where uploads are kept, but for notes of those that were completed."""
    there = (world.workspace.path / "mlflow" / "uploads").iterdir()
    return sorted(path.name for path in there if path.name != "swept" and not path.name.endswith(".done"))


@pytest.fixture
def folder(shared: World) -> str:
    """The path of the artifacts of a new run."""
    return f"0/{shared.run()}/artifacts"


def test_parts_come_in_any_order_at_once_and_again(world: World) -> None:
    folder = f"0/{world.run()}/artifacts"
    pieces = [os.urandom(300_000 + number) for number in range(7)]
    made = begun(world, f"{folder}/deep/er", len(pieces))
    secrets = {one["headers"][HEADER] for one in made["credentials"]}
    assert len(secrets) == len(pieces)
    assert all(not secret or secret not in one["url"] for one in made["credentials"] for secret in secrets)
    sent(world, made["credentials"][2], b"a try that failed")
    sent(world, made["credentials"][2], b"")
    with ThreadPoolExecutor(4) as pool:
        order = [5, 0, 6, 3, 1, 4, 2]
        done = list(pool.map(lambda number: sent(world, made["credentials"][number], pieces[number]), order))
    assert world.get(PROXY, path=folder) == {}, "it is seen before it is whole"
    done.sort(key=lambda one: one["part_number"])
    for _again in range(2):  # the answer to the first may not have come through
        assert completed(world, f"{folder}/deep/er", made, done).json() == {}
    assert fetched(world, f"{folder}/deep/er/x.bin") == b"".join(pieces)
    listed = world.get("artifacts/list", run_id=folder.split("/")[1], path="deep/er")["files"]
    assert listed == [{"path": "deep/er/x.bin", "is_dir": False, "file_size": sum(map(len, pieces))}]
    assert left(world) == []
    late = world.client.put(made["credentials"][0]["url"], content=b"x", headers=made["credentials"][0]["headers"])
    assert (late.status_code, late.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_content_in_parts_is_stored_once(world: World) -> None:
    data = os.urandom(200_000)
    world.put(f"0/{world.run()}/artifacts/x.bin", data)
    for cut in (1, 70_000, 199_999):
        folder = f"0/{world.run()}/artifacts"
        made = begun(world, folder, 2)
        done = [sent(world, made["credentials"][0], data[:cut]), sent(world, made["credentials"][1], data[cut:])]
        assert completed(world, folder, made, done).status_code == 200
    assert len(list(world.workspace.blobs.objects())) == 1


def test_models_and_paths_of_no_run_take_files_in_parts(shared: World) -> None:
    model = shared.post("logged-models", experiment_id="0", name="net")["model"]["info"]
    for folder in (f"0/models/{model['model_id']}/artifacts/data", "shared/place", ""):
        made = begun(shared, folder, 2, name="x.bin")
        done = [sent(shared, one, bytes([one["part_number"]]) * 10) for one in made["credentials"]]
        assert completed(shared, folder, made, done).status_code == 200
        assert fetched(shared, f"{folder}/x.bin".lstrip("/")) == b"\1" * 10 + b"\2" * 10
    listed = shared.get(f"logged-models/{model['model_id']}/artifacts/directories", artifact_directory_path="data")
    assert listed["files"] == [{"path": "data/x.bin", "is_dir": False, "file_size": 20}]


def test_a_ticket_is_good_for_one_part_of_one_upload(shared: World, folder: str) -> None:
    one, other = begun(shared, folder, 2), begun(shared, folder, 2)
    url, right = one["credentials"][0]["url"], one["credentials"][0]["headers"][HEADER]
    expires, _dot, mac = right.partition(".")
    wrong = [
        "",
        "x",
        "." * 99,
        one["credentials"][1]["headers"][HEADER],
        other["credentials"][0]["headers"][HEADER],
        f"{int(expires) + 1}.{mac}",
        f"{expires}.{'0' * 64}",
        f"{'9' * 5_000}.{mac}",
        f"²{expires}.{mac}".encode().decode("latin-1"),
    ]
    for ticket in wrong:
        answer = shared.client.put(url, content=b"x", headers={HEADER: ticket.encode("latin-1")})
        assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED"), ticket
    # Who is logged in may not do without either; nor does a ticket let anybody in anywhere else.
    assert shared.client.put(url, content=b"x", headers=shared.headers()).status_code == 403
    own = {HEADER: right}
    for number in ("3", "0", "-1", "1x", "١", "9" * 30):
        assert shared.client.put(url[:-1] + number, content=b"x", headers=own).status_code == 403, number
    assert shared.client.put(f"{PROXY}/{folder}/y", content=b"x", headers=own).status_code == 401
    assert shared.client.get(url, headers=own).status_code in (404, 405)
    assert shared.client.put(url.replace(one["upload_id"], "0" * 48), content=b"x", headers=own).status_code == 404
    assert shared.client.put(url.replace(one["upload_id"], "..%2f.."), content=b"x", headers=own).status_code in (
        401,
        404,
    )
    assert shared.client.put(url, content=b"x", headers=own).status_code == 200


def test_a_ticket_expires() -> None:
    ticket = make_ticket(b"k" * 32, 1_000, "upload", 1, "ann")
    assert is_good(ticket, b"k" * 32, 999.9, "upload", 1, "ann")
    assert not is_good(ticket, b"k" * 32, 1_000, "upload", 1, "ann")
    assert not is_good(ticket, b"k" * 32, 0, "upload", 1, "bob")
    assert not is_good(ticket, b"j" * 32, 0, "upload", 1, "ann")
    assert not is_good(make_ticket(b"k" * 32, 1_000, "upload", 11), b"k" * 32, 0, "upload1", 1)


def test_only_who_began_an_upload_ends_it(world: World) -> None:
    world.add("bob", ("*", "admin"))
    world.add("vic", ("*", "viewer"))
    world.add("dan", ("digits", "contributor"))
    folder = f"0/{world.run()}/artifacts"
    assert world.refused("POST", f"{MPU}/create/{folder}", "vic", path="x", num_parts=1)[:2] == (
        403,
        "PERMISSION_DENIED",
    )
    assert world.refused("POST", f"{MPU}/create/{folder}", "dan", path="x", num_parts=1)[0] == 404
    assert world.refused("POST", f"{MPU}/create/loose", "dan", path="x", num_parts=1)[0] == 403
    assert world.client.post(f"{MPU}/create/{folder}", json={"path": "x", "num_parts": 1}).status_code == 401
    made = begun(world, folder, 1)
    done = [sent(world, made["credentials"][0], b"x")]
    told = {"path": "x.bin", "upload_id": made["upload_id"]}
    assert completed(world, folder, made, done, "bob").status_code == 404
    assert world.refused("POST", f"{MPU}/abort/{folder}", "bob", **told)[0] == 404
    assert completed(world, f"{folder}/elsewhere", made, done).status_code == 404
    Accounts(world.workspace.path).set_role("ann", "*", None)  # in the midst of it
    assert completed(world, folder, made, done).status_code in (403, 404)
    Accounts(world.workspace.path).set_role("ann", "*", "admin")
    assert completed(world, folder, made, done).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.reverse(),
        lambda told: told.pop(),
        lambda told: told.pop(0),
        lambda told: told.append(told[0]),
        lambda told: told.insert(0, told[0]),
        lambda told: told[0].update(etag='"0123"'),
        lambda told: told[0].update(etag=told[1]["etag"]),
        lambda told: (told[0].update(part_number=2), told[1].update(part_number=1)),
        lambda told: told[2].update(part_number=2),
        lambda told: told[0].pop("etag"),
        lambda told: told[1].pop("part_number"),
        lambda told: told[1].update(part_number="two"),
        lambda told: told[1].update(etag=5),
        lambda told: told.__setitem__(0, "one"),
        lambda told: told.clear(),
    ],
)
def test_parts_that_are_not_those_that_came_are_refused(shared: World, folder: str, change: Any) -> None:
    made = begun(shared, folder, 3)
    done = [sent(shared, one, b"%d" % one["part_number"] * 9) for one in made["credentials"]]
    told = json.loads(json.dumps(done))
    change(told)
    answer = completed(shared, folder, made, told)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text
    assert shared.get(PROXY, path=folder) == {}
    assert completed(shared, folder, made, done).status_code == 200
    assert fetched(shared, f"{folder}/x.bin") == b"111111111222222222333333333"


def test_a_part_that_did_not_come_is_named(shared: World, folder: str) -> None:
    made = begun(shared, folder, 2)
    one = sent(shared, made["credentials"][0], b"1")
    answer = completed(shared, folder, made, [one, {"part_number": 2, "etag": one["etag"]}])
    assert (answer.status_code, answer.json()["message"]) == (400, "Part 2 was not uploaded")


@pytest.mark.parametrize(
    ("word", "fields", "status", "code"),
    [
        ("create", {}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"path": 5, "num_parts": 1}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"path": "a", "num_parts": "b"}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"path": "a", "num_parts": -1}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"path": "a", "num_parts": 1 << 70}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"path": "a/..", "num_parts": 1}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"path": "a\0b", "num_parts": 1}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"path": "/", "num_parts": 1}, 400, "INVALID_PARAMETER_VALUE"),
        ("create", {"path": "a", "num_parts": 0}, 501, "NOT_IMPLEMENTED"),
        ("create", {"path": "a", "num_parts": MOST_PARTS + 1}, 501, "NOT_IMPLEMENTED"),
        ("complete", {"path": "a"}, 400, "INVALID_PARAMETER_VALUE"),
        ("complete", {"path": "a", "upload_id": "x", "parts": {}}, 400, "INVALID_PARAMETER_VALUE"),
        ("complete", {"path": "a", "upload_id": "../x", "parts": [{"part_number": 1}]}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("abort", {"path": "a"}, 400, "INVALID_PARAMETER_VALUE"),
        ("abort", {"path": "a", "upload_id": "../../x"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("abort", {"path": "a", "upload_id": "a\0b"}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("abort", {"path": "a", "upload_id": "0" * 48}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("abort", {"path": "a", "upload_id": "x" * 9_000}, 404, "RESOURCE_DOES_NOT_EXIST"),
    ],
)
def test_what_cannot_be_is_refused_in_the_words_of_the_protocol(
    shared: World, folder: str, word: str, fields: dict[str, Any], status: int, code: str
) -> None:
    assert shared.refused("POST", f"{MPU}/{word}/{folder}", **fields)[:2] == (status, code)
    for path in ("../x", "%2e%2e/x", "a/%252e%252e/%252e%252e/b", "a%2f..%2f..%2fb", "//etc"):
        assert shared.raw("POST", f"{MPU}/{word}/{path}", **fields).status_code in (400, 404), path


def test_what_takes_no_parts_says_so_in_the_words_at_which_clients_send_it_whole(shared: World, folder: str) -> None:
    message = shared.refused("POST", f"{MPU}/create/{folder}", path="a", num_parts=0)[2]
    assert message.startswith("Multipart upload is not supported for the current artifact repository")
    body = {"path": "a", "num_parts": 1}
    for headers in ({"X-Forwarded-For": "1.2.3.4"}, {"Forwarded": "for=x"}, {"Via": "1.1 proxy"}):
        # A proxy that nobody named: which address leads through it cannot be known.
        answer = shared.client.post(f"{MPU}/create/{folder}", json=body, headers={**shared.headers(), **headers})
        assert answer.json()["message"].startswith(message.partition(":")[0]), headers
        info = shared.client.get("/api/3.0/mlflow/server-info", headers={**shared.headers(), **headers}).json()
        assert info["multipart_uploads_enabled"] is False
    assert shared.get("/api/3.0/mlflow/server-info")["multipart_uploads_enabled"] is True


def test_an_upload_that_is_aborted_leaves_nothing(world: World) -> None:
    folder = f"0/{world.run()}/artifacts"
    made = begun(world, folder, 2)
    done = [sent(world, one, b"x" * 100) for one in made["credentials"]]
    told = {"path": "/home/ann/x.bin", "upload_id": made["upload_id"]}
    assert world.ask("POST", f"{MPU}/abort/{folder}", **told) == {}
    assert left(world) == []
    assert completed(world, folder, made, done).status_code == 404
    assert world.refused("POST", f"{MPU}/abort/{folder}", **told)[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert world.get(PROXY, path=folder) == {}


def test_a_user_has_so_many_uploads_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_OPEN", 3)
    world.add("bob", ("*", "admin"))
    folder = f"0/{world.run()}/artifacts"
    made = [begun(world, folder, 1, name=f"{number}") for number in range(3)]
    told = world.refused("POST", f"{MPU}/create/{folder}", path="x", num_parts=1)
    assert told[:2] == (429, "REQUEST_LIMIT_EXCEEDED")
    begun(world, folder, 1, user="bob")
    world.ask("POST", f"{MPU}/abort/{folder}", path="0", upload_id=made[0]["upload_id"])
    begun(world, folder, 1)


def test_parts_and_files_that_are_too_large_are_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, limits=replace(CONFIG.limits, upload_bytes=1_000))
    for world in opened(tmp_path / ".runstone", config=config):
        folder = f"0/{world.run()}/artifacts"
        made = begun(world, folder, 3)
        one = made["credentials"][0]
        answer = world.client.put(one["url"], content=b"x" * 501, headers=one["headers"])
        assert (answer.status_code, answer.json()["error_code"]) == (413, "INVALID_PARAMETER_VALUE")
        done = [sent(world, credential, b"x" * 500) for credential in made["credentials"]]
        answer = completed(world, folder, made, done)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        done[2] = sent(world, made["credentials"][2], b"")
        assert completed(world, folder, made, done).status_code == 200
        assert fetched(world, f"{folder}/x.bin") == b"x" * 1_000


# --- what is left behind ----------------------------------------------------------------------------------------------


def test_uploads_that_nobody_goes_on_with_are_swept_away(tmp_path: Path) -> None:
    uploads, now = Uploads(tmp_path), time.time()
    old, fresh = uploads.begin("ann", "a", 1), uploads.begin("ann", "b", 1)
    ended = uploads.begin("ann", "c", 1)
    uploads.end(ended, ["x"])
    os.utime(old.folder, (now - RESTS_S - 9, now - RESTS_S - 9))
    killed = [tmp_path / f"{'0' * 32}.partial", fresh.folder / f"{'1' * 32}.partial"]
    for path in killed:
        path.write_bytes(b"half a file")
        os.utime(path, (now - 9_999, now - 9_999))
    with Partial(fresh.folder) as written:  # by somebody who lives
        os.utime(written.fd, (now - 9_999, now - 9_999))
        uploads.sweep(now=now)
        assert Path(written.path).exists()
    assert (uploads.find(old.id), old.folder.exists()) == (None, False)
    assert uploads.find(fresh.id) is not None
    assert [path.exists() for path in killed] == [False, False]
    assert uploads.is_done(ended.id, "ann", "c", ["x"])
    uploads.sweep(now=now + RESTS_S + 60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["swept"]


def test_an_upload_is_swept_away_after_a_week_whatever_comes(tmp_path: Path) -> None:
    uploads, now = Uploads(tmp_path), time.time()
    one = uploads.begin("ann", "a", 1)
    later = now + LASTS_S + 60
    os.utime(one.folder, (later, later))
    uploads.sweep(now=later)
    assert not one.folder.exists()


def test_an_upload_that_is_being_put_together_is_not_swept_away(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    one = uploads.begin("ann", "a", 1)
    with uploads.alone(one.id):
        uploads.sweep(now=time.time() + LASTS_S + 60)
        assert one.folder.exists()
    uploads.sweep(now=time.time() + LASTS_S + 60)
    assert not one.folder.exists()


def test_a_folder_that_is_damaged_is_no_upload(shared: World, folder: str) -> None:
    made = begun(shared, folder, 1)
    path = shared.workspace.path / "mlflow" / "uploads" / made["upload_id"]
    for text in ("", "[]", "{}", '{"user": 1}', "\0"):
        (path / "upload.json").write_text(text)
        one = made["credentials"][0]
        assert shared.client.put(one["url"], content=b"x", headers=one["headers"]).status_code == 404, text
        told = {"path": "x.bin", "upload_id": made["upload_id"]}
        assert shared.refused("POST", f"{MPU}/abort/{folder}", **told)[0] == 404
    Uploads(path.parent).sweep(now=time.time() + RESTS_S + 60)
    assert not path.exists()


# --- a server of its own ----------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> tuple[Workspace, str]:
    """A workspace and the token of an admin."""
    workspace = ensure_workspace(tmp_path / ".runstone")
    accounts = Accounts(workspace.path)
    accounts.add_user("ann")
    accounts.set_role("ann", "*", "admin")
    token = new_token()
    accounts.add_token("ann", hashed(token))
    return workspace, token


def ask(client: httpx2.Client, path: str, body: dict[str, Any]) -> None:
    with contextlib.suppress(httpx2.TransportError):
        client.post(path, json=body)


def test_a_server_that_is_killed_while_it_puts_parts_together_loses_nothing(
    place: tuple[Workspace, str], tmp_path: Path
) -> None:
    workspace, token = place
    pieces = [os.urandom(4 << 20) * 4 for _number in range(3)]
    whole = hashlib.sha256(b"".join(pieces)).hexdigest()
    made: dict[str, Any] = {}
    done: Parts = []
    root = ""
    for wait_s in (0.02, 0.12, None):
        served = Served(workspace, tmp_path / "log")
        with served as url, httpx2.Client(base_url=url, auth=("ann", token), timeout=120) as client:
            if not made:
                run = client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]
                root = f"0/{run['run_id']}/artifacts"
                made = client.post(f"{MPU}/create/{root}", json={"path": "x.bin", "num_parts": 3}).json()
            for one, piece in zip(made["credentials"][len(done) :], pieces[len(done) :], strict=True):
                # another server of the workspace takes the parts as well: it has another port
                address = url + one["url"][one["url"].index("/api/") :]
                answer = client.put(address, content=piece, headers=one["headers"], auth=None)
                done.append({"part_number": one["part_number"], "etag": answer.headers["etag"]})
            body = {"path": "x.bin", "upload_id": made["upload_id"], "parts": done}
            if wait_s is None:
                assert client.post(f"{MPU}/complete/{root}", json=body).status_code == 200
                listed = client.get(PROXY, params={"path": root}).json()
                assert listed["files"] == [{"path": "x.bin", "is_dir": False, "file_size": sum(map(len, pieces))}]
                assert hashlib.sha256(client.get(f"{PROXY}/{root}/x.bin").content).hexdigest() == whole
                break
            asking = threading.Thread(target=ask, args=(client, f"{MPU}/complete/{root}", body))
            asking.start()
            time.sleep(wait_s)
            served.kill()
            asking.join()
    Uploads(workspace.path / "mlflow" / "uploads").sweep(now=time.time() + RESTS_S + 60)
    assert [path.name for path in (workspace.path / "mlflow" / "uploads").iterdir()] == ["swept"]


def test_parts_that_come_at_once_take_little_memory(place: tuple[Workspace, str], tmp_path: Path) -> None:
    workspace, token = place
    piece = os.urandom(1 << 20) * 48
    served = Served(workspace, tmp_path / "log")
    with served as url, httpx2.Client(base_url=url, auth=("ann", token), timeout=120) as client:
        made = client.post(f"{MPU}/create/x", json={"path": "x.bin", "num_parts": 4}).json()

        def put(one: dict[str, Any]) -> dict[str, Any]:
            answer = httpx2.put(one["url"], content=piece, headers=one["headers"], timeout=120)
            return {"part_number": one["part_number"], "etag": answer.headers["etag"]}

        put({**made["credentials"][0]})
        before = served.peak_kib()
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(put, made["credentials"]))
        body = {"path": "x.bin", "upload_id": made["upload_id"], "parts": done}
        assert client.post(f"{MPU}/complete/x", json=body).status_code == 200
        grown = served.peak_kib() - before
    assert grown < 96 << 10, f"the server grew by {grown:,} KiB for 4 parts of 49,152 KiB"


# --- slow clients -----------------------------------------------------------------------------------------------------


async def dripped(size: int, each_s: float, times: int) -> int:
    """Return how many bytes a server takes of a client that sends some at a time."""

    async def pieces() -> AsyncIterator[dict[str, Any]]:
        for _number in range(times):
            await asyncio.sleep(each_s)
            yield {"type": "http.request", "body": b"x" * size, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}

    stream = pieces()
    request = Request({"type": "http", "headers": []}, lambda: anext(stream))
    taken: list[bytes] = []
    return await receive(request, taken.append, replace(CONFIG.limits, body_s=0.2), 1 << 20)


def test_a_client_that_sends_a_byte_now_and_then_is_let_go() -> None:
    with pytest.raises(ApiError, match="bytes came in") as slow:
        asyncio.run(dripped(1, 0.02, 1_000))
    assert (slow.value.status, slow.value.headers["Connection"]) == (408, "close")
    with pytest.raises(ApiError, match="nothing came"):
        asyncio.run(dripped(1_000_000, 5.0, 1))
    assert asyncio.run(dripped(2_000, 0.02, 40)) == 80_000


# --- downloads --------------------------------------------------------------------------------------------------------


def test_ranges_of_a_file_come_by_a_ticket_too(shared: World, folder: str) -> None:
    data = os.urandom(100_000)
    shared.put(f"{folder}/d/ü 1.bin", data)
    told = shared.get(f"{PRESIGNED}/{folder}/d/ü 1.bin")
    assert told["file_size"] == len(data)
    for start, end in ((0, 9), (99_990, 200_000), (0, 99_999), (50_000, 50_000)):
        for url, headers in (
            (told["url"], told["headers"]),
            (f"{PROXY}/{folder}/d/%C3%BC%201.bin", shared.headers()),
        ):
            answer = shared.client.get(url, headers={**headers, "Range": f"bytes={start}-{end}"})
            assert (answer.status_code, answer.content) == (206, data[start : end + 1])
            assert answer.headers["content-range"] == f"bytes {start}-{min(end, 99_999)}/100000"
            assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%BC%201.bin"
    for url, headers in ((told["url"], told["headers"]), (f"{PROXY}/{folder}/d/%C3%BC%201.bin", shared.headers())):
        answer = shared.client.get(url, headers={**headers, "Range": "bytes=100000-"})
        assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */100000")
    shared.put(f"{folder}/other", b"secret")
    other = shared.get(f"{PRESIGNED}/{folder}/other")
    for headers in ({}, shared.headers(), other["headers"], {HEADER: "0.0"}):
        assert shared.client.get(told["url"], headers=headers).status_code == 403
    assert shared.client.get(told["url"] + "x", headers=told["headers"]).status_code == 403


def test_a_ticket_of_a_download_ends(shared: World, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.put(f"{folder}/a", b"x")
    monkeypatch.setattr(multipart, "_DOWNLOAD_S", 0)
    told = shared.get(f"{PRESIGNED}/{folder}/a")
    answer = shared.client.get(told["url"], headers=told["headers"])
    assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED")


def test_who_may_not_read_a_file_gets_no_ticket_for_it(world: World) -> None:
    world.add("dan", ("digits", "contributor"))
    folder = f"0/{world.run()}/artifacts"
    world.put(f"{folder}/a", b"x")
    assert world.refused("GET", f"{PRESIGNED}/{folder}/a", "dan")[0] == 404
    assert world.client.get(f"{PRESIGNED}/{folder}/a").status_code == 401
    assert world.refused("GET", f"{PRESIGNED}/{folder}/none")[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert world.refused("GET", f"{PRESIGNED}/{folder}")[0] == 400
    assert world.raw("GET", f"{PRESIGNED}/%2e%2e/a").status_code in (400, 404)


def test_heads_tell_of_files_without_sending_them(shared: World, folder: str) -> None:
    shared.put(f"{folder}/a.txt", b"hello")
    run = folder.split("/")[1]
    for path in (f"{PROXY}/{folder}/a.txt", f"/get-artifact?run_id={run}&path=a.txt"):
        head = shared.client.head(path, headers=shared.headers())
        whole = shared.client.get(path, headers=shared.headers())
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "5")
        for name in ("content-type", "content-disposition", "etag", "accept-ranges"):
            assert head.headers[name] == whole.headers[name], name
    assert shared.client.head(f"{PROXY}/{folder}/none", headers=shared.headers()).status_code == 404
    assert shared.client.head(f"{PROXY}/{folder}/a.txt").status_code == 401


def test_no_file_comes_to_lie_where_a_folder_is(world: World) -> None:
    folder = f"0/{world.run()}/artifacts"
    world.put(f"{folder}/d/a", b"x")
    for path in ("d", "d/a/b", "d/a/b/c"):
        answer = world.put(f"{folder}/{path}", b"y")
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), path
    assert world.put(f"{folder}/d/a", b"y").status_code == 200
    world.ask("DELETE", f"{PROXY}/{folder}/d")
    assert world.put(f"{folder}/d", b"y").status_code == 200


def test_all_files_of_a_run_are_removed_at_once(world: World) -> None:
    run = world.run()
    folder = f"0/{run}/artifacts"
    for name in ("a", "d/b", "d/e/c"):
        world.put(f"{folder}/{name}", b"x")
    assert world.ask("DELETE", f"{PROXY}/{folder}") == {}
    assert world.get(PROXY, path=folder) == {}
    assert world.workspace.run(run).artifacts == ()


def test_folders_are_listed_in_their_plain_form(shared: World, folder: str) -> None:
    shared.put(f"{folder}/d/e/a", b"x")
    run = folder.split("/")[1]
    for path in ("d/e", "./d/e", "d//e", "d/e/", "d/./e/."):
        assert shared.get("artifacts/list", run_id=run, path=path)["files"][0]["path"] == "d/e/a", path
        assert shared.get(PROXY, path=f"{folder}/{path}")["files"][0]["path"] == "a", path
    for path in ("..", "d/..", "d/../..", "/d", "d/%2e%2e"):
        assert shared.refused("GET", "artifacts/list", run_id=run, path=path)[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_a_location_that_is_relative_means_one_place(world: World) -> None:
    for location, kept in {
        "of/mine": str(Path.cwd() / "of/mine"),
        "./mine": str(Path.cwd() / "mine"),
        "/abs": "/abs",
        "s3://bucket/x": "s3://bucket/x",
        "mlflow-artifacts:/own": "mlflow-artifacts:/own",
    }.items():
        made = world.post("experiments/create", name=location.replace("/", "-"), artifact_location=location)
        found = world.get("experiments/get", experiment_id=made["experiment_id"])["experiment"]
        assert found["artifact_location"] == kept
