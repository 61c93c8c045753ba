"""Contents that are sent: what is stored is what its name says (S34), and nobody learns what others stored (S35)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from blake3 import blake3

import runstone
from runstone.sync.client import Client, NotThere, Refused
from tests.sync.conftest import Team, send


def hash_of(data: bytes) -> str:
    return str(blake3(data).hexdigest())


def put(client: Client, project: str, content: str, data: bytes, *, offset: int = 0, size: int | None = None) -> object:
    """Send a part of a content."""
    size = len(data) if size is None else size
    return client.post(f"/api/sync/contents/{content}", data, project=project, offset=offset, size=size)


def missing(client: Client, project: str, *hashes: str) -> list[dict[str, object]]:
    """Ask what is to be sent."""
    return list(client.post("/api/sync/contents", {"project": project, "hashes": list(hashes)})["missing"])


def test_s34_other_bytes_than_the_hash_says_are_not_kept(team: Team) -> None:
    client, data = team.client(), b"right" * 1000
    content = hash_of(data)
    with pytest.raises(Refused) as refused:
        put(client, "digits", content, b"wrong" * 1000)
    assert refused.value.status == 409
    assert content not in team.workspace.blobs
    put(client, "digits", content, data)
    assert team.workspace.blobs.read(content) == data


def test_s34_two_that_race_on_one_hash_leave_the_content(team: Team) -> None:
    data = os.urandom(600_000)
    content = hash_of(data)

    def upload(user: str, last: bytes) -> None:
        client = team.client(user)
        try:
            put(client, "digits", content, data[:300_000], size=len(data))
            put(client, "digits", content, last, offset=300_000, size=len(data))
        except Refused:
            pass

    threads = [
        threading.Thread(target=upload, args=("ann", data[300_000:])),
        threading.Thread(target=upload, args=("dan", bytes(300_000))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert team.workspace.blobs.read(content) == data


def test_a_content_goes_on_where_it_was_broken_off(team: Team) -> None:
    client, data = team.client(), os.urandom(100_000)
    content = hash_of(data)
    put(client, "digits", content, data[:40_000], size=len(data))
    assert missing(client, "digits", content) == [{"hash": content, "offset": 40_000}]
    with pytest.raises(Refused):
        put(client, "digits", content, data[50_000:], offset=50_000, size=len(data))  # a gap
    put(client, "digits", content, data[:40_000], size=len(data))  # once more: nothing is doubled
    put(client, "digits", content, data[40_000:], offset=40_000, size=len(data))
    assert missing(client, "digits", content) == []
    assert team.workspace.blobs.read(content) == data


@pytest.mark.parametrize("content", ["x", "../../etc/passwd", "A" * 64, "0" * 63])
def test_what_is_no_hash_is_refused(team: Team, content: str) -> None:
    with pytest.raises((Refused, NotThere)):
        put(team.client(), "digits", content.replace("/", "%2F"), b"data")
    with pytest.raises(Refused):
        missing(team.client(), "digits", content)


def test_s35_asking_for_a_hash_tells_nothing_of_what_others_stored(team: Team) -> None:
    data = b"a secret" * 1000
    content = hash_of(data)
    put(team.client("sue"), "secret", content, data)
    assert content in team.workspace.blobs
    dan = team.client("dan")
    assert missing(dan, "digits", content) == [{"hash": content, "offset": 0}]
    with pytest.raises(Refused):
        missing(dan, "secret", content)
    # what dan sends himself counts for his project, although it was here
    put(dan, "digits", content, data[:4000], size=len(data))
    assert missing(dan, "digits", content) == [{"hash": content, "offset": 4000}]
    put(dan, "digits", content, data[4000:], offset=4000, size=len(data))
    assert missing(dan, "digits", content) == []


def test_s35_naming_a_hash_in_a_run_does_not_give_what_others_stored(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"the secret of sue" * 100)
    content = hash_of(secret.read_bytes())
    put(team.client("sue"), "secret", content, secret.read_bytes())
    monkeypatch.setenv("RUNSTONE_TOKEN", team.tokens["dan"])
    with runstone.start_run(project="digits", environment=False) as run:
        run.log_artifact(secret, name="guess")
    # dan knows the hash alone: his machine does not have the bytes
    (run.workspace.path / "blobs" / content[:2] / content).unlink()
    send(team, user="dan")
    dan = team.client("dan")
    base = f"/api/runs/{run.id}/artifacts/guess"
    assert dan.get(base)["files"][0]["is_here"] is False
    for path in (f"{base}/file", f"{base}/preview", f"{base}/zip", f"/api/sync/runs/{run.id}/contents/{content}"):
        with pytest.raises(NotThere):
            dan.get(path)
    with pytest.raises(Refused):
        dan.get(f"/api/sync/contents/{content}")
    # who may see everything sees it
    assert b"".join(team.client("ann").stream(f"{base}/file")) == secret.read_bytes()


def test_what_a_contributor_sent_is_theirs_to_read(team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_bytes(b"mine" * 100)
    monkeypatch.setenv("RUNSTONE_TOKEN", team.tokens["dan"])
    with runstone.start_run(project="digits", environment=False) as run:
        run.log_artifact(mine, name="mine")
    send(team, user="dan")
    answer = b"".join(team.client("dan").stream(f"/api/runs/{run.id}/artifacts/mine/file"))
    assert answer == mine.read_bytes()
