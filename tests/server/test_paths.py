"""Names, paths and content that somebody made to do harm."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import zlib
from pathlib import Path
from urllib.parse import quote

import pytest

import runstone
from runstone.server.files import check_path, disposition
from runstone.server.previews import preview
from tests.server.conftest import World

BAD_PATHS = [
    "../x",
    "..%2fx",
    "%2e%2e/x",
    "..\\x",
    "/etc/passwd",
    "C:\\x",
    "C:x",
    "a/../../x",
    ";/../x",
    "x#../y",
    "x\0y",
    "",
    ".",
    "a//b",
    "a/./b",
    "x" * 5_000,
]


def tree_hash(folder: Path) -> str:
    """Return a hash over all files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name.split(".")[0] not in ("index", "accounts"):
            digest.update(str(path).encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("word", ["file", "preview"])
def test_s1_a_path_that_leads_out_is_refused(world: World, path: str, word: str) -> None:
    before = tree_hash(world.workspace.path)
    for written in {path, quote(path, safe=""), quote(quote(path, safe=""), safe="")}:
        url = f"/api/runs/{world.runs['first']}/artifacts/out%2Fput/{word}?path={quote(written, safe='%')}"
        answer = world.client.get(url, headers=world.headers("ann"))
        assert answer.status_code in (400, 404), (written, answer.text)
    assert tree_hash(world.workspace.path) == before


BAD_IDS = ["../x", "..%2Fx", "0" * 65, "A" * 32, "٣" * 32, "x%00y", "..", ".", "con", "nul", " ", "a" * 65]


@pytest.mark.parametrize("run_id", BAD_IDS)
def test_s2_an_id_that_is_none_never_reaches_the_disk(
    world: World, monkeypatch: pytest.MonkeyPatch, run_id: str
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(type(world.workspace), "find_run_folder", lambda _self, one: looked.append(one))
    for rest in ("", "/console", "/artifacts/x", "/records"):
        answer = world.client.get(f"/api/runs/{run_id}{rest}", headers=world.headers("ann"))
        assert answer.status_code in (400, 404, 307) or answer.url.path.rstrip("/") in ("/api/runs", "/api")
    assert set(looked) <= {"console", "records"}  # what `..` leaves of a path, and what an id may be


def test_s3_links_in_the_store_and_among_runs_lead_nowhere(fresh: World, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    info = fresh.workspace.run(fresh.runs["first"])
    entry = next(one for one in info.artifacts[0].files if one.path == "table.csv")
    place = fresh.workspace.blobs.object_path(entry.hash)
    url = f"/api/runs/{info.id}/artifacts/out%2Fput/file?path=table.csv"
    assert fresh.client.get(url, headers=fresh.headers("ann")).status_code == 200
    place.unlink()
    for link in (place.symlink_to, place.hardlink_to):
        link(secret)
        answer = fresh.client.get(url, headers=fresh.headers("ann"))
        assert answer.status_code == 404
        assert "secret" not in answer.text.replace("secret.txt", "")
        place.unlink()
    stranger = tmp_path / "stranger"
    info.path.rename(stranger)
    info.path.symlink_to(stranger)
    assert fresh.client.get(f"/api/runs/{info.id}", headers=fresh.headers("ann")).status_code == 404
    assert secret.read_text() == "secret"


def test_s4_deleting_a_run_with_the_name_of_a_path_touches_no_other(fresh: World) -> None:
    fresh.client.patch(f"/api/runs/{fresh.runs['first']}", json={"name": "../../other"}, headers=fresh.headers("ann"))
    sibling = fresh.workspace.run(fresh.runs["second"]).path
    before = tree_hash(sibling)
    answer = fresh.client.delete(f"/api/runs/{fresh.runs['first']}", headers=fresh.headers("mia"))
    assert answer.json()["ids"] == [fresh.runs["first"]]
    assert tree_hash(sibling) == before


@pytest.mark.parametrize("name", ["page.html", "sub/picture.svg", "table.csv"])
def test_s13_content_is_saved_and_never_run(world: World, name: str) -> None:
    url = f"/api/runs/{world.runs['first']}/artifacts/out%2Fput/file?path={name}"
    headers = world.client.get(url, headers=world.headers("ann")).headers
    assert headers["Content-Disposition"].startswith("attachment; ")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]
    assert headers["Content-Type"] in ("application/octet-stream", "image/svg+xml")


def test_media_are_sent_so_that_a_page_can_show_them(world: World) -> None:
    url = f"/api/runs/{world.runs['first']}/records/val%2Fpicture/3/0"
    answer = world.client.get(url, headers=world.headers("ann"))
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.content[:4] == b"\x89PNG"


def test_part_of_a_file_can_be_asked_for(world: World) -> None:
    url = f"/api/runs/{world.runs['first']}/artifacts/out%2Fput/file?path=table.csv"
    whole = world.client.get(url, headers=world.headers("ann"))
    assert whole.text == "x,y\n1,2\n3,4\n"
    part = world.client.get(url, headers={"Range": "bytes=4-6", **world.headers("ann")})
    assert (part.status_code, part.text, part.headers["Content-Range"]) == (206, "1,2", "bytes 4-6/12")
    last = world.client.get(url, headers={"Range": "bytes=-4", **world.headers("ann")})
    assert last.text == "3,4\n"
    assert world.client.get(url, headers={"Range": "bytes=99-", **world.headers("ann")}).status_code == 416


def test_a_folder_comes_as_one_zip_file(world: World) -> None:
    import io
    import zipfile

    url = f"/api/runs/{world.runs['first']}/artifacts/out%2Fput/zip"
    data = world.client.get(url, headers=world.headers("ann")).content
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["page.html", "sub/picture.svg", "table.csv"]
        assert archive.read("table.csv") == b"x,y\n1,2\n3,4\n"


def test_s28_a_huge_picture_is_not_shown(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    place = tmp_path / "x.png"
    place.write_bytes(head)
    with place.open("rb") as file:
        told = preview(file, "x.png", len(head))
    assert (told["kind"], told["is_too_large"], told["width"]) == ("image", True, 50_000)


class _Harmful:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.canary), 0o700)


@pytest.mark.parametrize(
    "name", ["m.pkl", "m.joblib", "m.pt", "m.keras", "m.npy", "m.parquet", "m.safetensors", "m.json"]
)
def test_s31_content_that_would_run_code_is_listed_shown_and_registered_without_running(
    fresh: World, tmp_path: Path, name: str
) -> None:
    canary = tmp_path / "canary"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / name).write_bytes(pickle.dumps(_Harmful(canary)))
    with runstone.start_run(workspace=fresh.workspace, environment=False) as run:
        run.log_artifact(folder, name="model")
    base = f"/api/runs/{run.id}/artifacts/model"
    for path in (base, f"{base}/preview?path={name}", f"{base}/file?path={name}", f"{base}/zip"):
        assert fresh.client.get(path, headers=fresh.headers("ann")).status_code == 200
    version = fresh.workspace.register_model("net", run.id)
    url = f"/api/models/net/versions/{version.version}"
    for path in (url, f"{url}/card"):
        assert fresh.client.get(path, headers=fresh.headers("ann")).status_code == 200
    fresh.client.put(f"{url}/stage", json={"stage": "production"}, headers=fresh.headers("ann"))
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    ["CON", "NUL.txt", "a.", "a ", "Case", "case", "e\u0301", "\u00e9", "x" * 255, "<script>", "a\r\nb", "\u202e"],
)
def test_s37_strange_names_come_back_as_they_are(world: World, name: str) -> None:
    with runstone.start_run(workspace=world.workspace, project="names", name=name, environment=False) as run:
        run.log({name: 1.0})
        run.set_tags({name: name})
    told = world.client.get(f"/api/runs/{run.id}", headers=world.headers("ann")).json()
    assert told["name"] == name
    assert told["tags"] == {name: name}
    assert list(told["metrics"]) == [name]
    series = {"series": [{"run": run.id, "metric": name}]}
    assert b'"points":1' in world.client.post("/api/series", json=series, headers=world.headers("ann")).content
    assert all(part.isascii() for part in run.path.relative_to(world.workspace.path).parts)


def test_a_file_name_cannot_end_its_header() -> None:
    told = disposition('a"\r\nSet-Cookie: x=1\r\n/ü.html')
    assert "\r" not in told
    assert told.startswith('attachment; filename="')
    assert told.count('"') == 2
    assert check_path("a/ü b.html") == "a/ü b.html"
