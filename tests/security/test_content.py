"""Content, names and files that somebody made to do harm: S13, S21, S22, S28, S31, S33, S36 to S38."""

from __future__ import annotations

import getpass
import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import runstone
from runstone.errors import FormatError, InvalidConfig, InvalidValue
from runstone.importers.yamlfile import parse_yaml as parse_foreign
from runstone.launch.params import read_params
from runstone.models import UntrustedModel, read_manifest
from runstone.models.yamlfile import parse_yaml
from runstone.server.previews import preview
from runstone_sweeps.config import yamlfile
from tests.server.conftest import World
from tests.server.walking import sent

PROXY = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.mark.parametrize("name", ["x.html", "x.svg", "x.xml", "MLmodel", "x.xhtml", "x.js"])
def test_s13_no_way_to_content_lets_a_browser_run_it(fresh: World, name: str) -> None:
    run, ann = fresh.runs["first"], fresh.headers("ann")
    evil = b"<html xmlns='http://www.w3.org/1999/xhtml'><script>alert(1)</script></html>"
    assert sent(fresh, "PUT", f"{PROXY}/0/{run}/artifacts/{name}", ann, evil).status_code == 200
    assert sent(fresh, "PUT", f"{PROXY}/loose/{name}", ann, evil).status_code == 200
    for target in (
        f"{PROXY}/0/{run}/artifacts/{name}",
        f"{PROXY}/loose/{name}",
        f"/get-artifact?run_id={run}&path={name}",
        f"/api/runs/{run}/artifacts/{name}/file",
    ):
        answer = sent(fresh, "GET", target, ann)
        assert (answer.status_code, answer.content) == (200, evil), target
        assert answer.headers["content-disposition"].startswith("attachment"), target
        assert answer.headers["x-content-type-options"] == "nosniff", target
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind in ("application/octet-stream", "text/plain", "image/svg+xml"), (target, kind)
        policy = answer.headers["content-security-policy"]
        assert "sandbox" in policy or kind in ("application/octet-stream", "text/plain"), target
        assert "unsafe-inline'; script" not in policy


def test_s21_s22_no_export_backup_or_program_holds_a_token(fresh: World, tmp_path: Path) -> None:
    token = fresh.tokens["ann"]
    fresh.client.post("/api/login", json={"token": token})
    session = fresh.client.cookies["runstone_session_6060"]
    made = fresh.client.post("/api/tokens", json={"user": "ann"}, headers=fresh.headers("ann")).json()["token"]
    password = "correct horse battery staple"
    fresh.client.get("/api/info", headers={"Authorization": f"Bearer {password}"})
    for words in (
        ("backup", str(tmp_path / "backup")),
        ("export", fresh.runs["first"], "--bundle", "-o", str(tmp_path / "runs.bundle")),
        ("export", fresh.runs["first"], "-o", str(tmp_path / "run.csv")),
        ("audit", "--json"),
        ("tokens", "list", "--json"),
    ):
        command = [sys.executable, "-m", "runstone.cli.main", "-w", str(fresh.workspace.path), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert token not in done.stdout + done.stderr
    assert (tmp_path / "backup").exists()
    places = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("accounts" in path.name for path in places)
    for path in places:
        data = path.read_bytes()
        found = [word for word in (token, session, made, password) if word.encode() in data]
        assert not found, path


def test_s28_a_film_of_very_many_pictures_is_not_shown(tmp_path: Path) -> None:
    head = b"GIF89a" + (1).to_bytes(2, "little") * 2 + b"\x80\0\0" + bytes(6)
    frame = b"\x21\xf9\x04\0\0\0\0\0," + bytes(4) + b"\x01\0\x01\0\0\x02\x02\x44\x01\0"
    place = tmp_path / "x.gif"
    place.write_bytes(head + frame * 1_000_000 + b";")
    tracemalloc.start()
    with place.open("rb") as file:
        told = preview(file, "x.gif", place.stat().st_size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (told["kind"], told["is_too_large"]) == ("image", True)
    assert peak < 1e6


class _Harmful:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.canary), 0o700)


def _parquet(evil: bytes) -> bytes:
    kind = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": evil}
    field = pa.field("x", pa.int64(), metadata=kind)
    buffer = io.BytesIO()
    pq.write_table(pa.table([pa.array([1, 2])], schema=pa.schema([field])), buffer)
    return buffer.getvalue()


def _objects(canary: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Harmful(canary)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _zip(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return buffer.getvalue()


def test_s31_files_of_every_kind_that_run_code_are_only_bytes(fresh: World, tmp_path: Path) -> None:
    canary, folder = tmp_path / "canary", tmp_path / "model"
    evil = pickle.dumps(_Harmful(canary))
    assert b"mkdir" in evil
    lambda_layer = {
        "class_name": "Lambda",
        "config": {"function": {"class_name": "__lambda__", "config": {"code": "x"}}},
    }
    kinds = {
        "m.pkl": evil,
        "m.joblib": evil,
        "m.pt": _zip(archive__data_dot_pkl=evil, archive__version=b"3"),
        "m.keras": _zip(config_dot_json=json.dumps(lambda_layer).encode(), metadata_dot_json=b"{}"),
        "m.npy": _objects(canary),
        "m.npz": _zip(a_dot_npy=_objects(canary)),
        "m.parquet": _parquet(evil),
        "m.skops": _zip(schema_dot_json=b'{"__class__": "mkdir", "__module__": "os"}'),
        "m.safetensors": (len(evil)).to_bytes(8, "little") + evil,
        "MLmodel": b"!!python/object/apply:os.mkdir ['" + str(canary).encode() + b"']",
    }
    folder.mkdir()
    for name, data in kinds.items():
        (folder / name).write_bytes(data)
    with runstone.start_run(workspace=fresh.workspace, environment=False) as run:
        run.log_artifact(folder, name="model")
    ann, base = fresh.headers("ann"), f"/api/runs/{run.id}/artifacts/model"
    targets = [base, f"{base}/zip"]
    targets += [f"{base}/{word}?path={name}" for name in kinds for word in ("preview", "file")]
    for target in targets:
        assert sent(fresh, "GET", target, ann).status_code == 200, target
    for name in kinds:
        told = json.loads(sent(fresh, "GET", f"{base}/preview?path={name}", ann).content)
        assert told["kind"] in ("binary", "text", "table", "tensors"), (name, told)
    first = fresh.workspace.register_model("net", run.id)
    second = fresh.workspace.register_model("net", run.id, version="9.0.0")
    versions = f"/api/models/net/versions/{first.version}"
    for target in (versions, f"{versions}/card", f"/api/models/net/compare?a={first.version}&b={second.version}"):
        assert sent(fresh, "GET", target, ann).status_code == 200, target
    body = json.dumps({"stage": "production", "reason": "go"}).encode()
    answer = sent(fresh, "PUT", f"{versions}/stage", {**ann, "content-type": "application/json"}, body)
    assert answer.status_code == 200, answer.text
    assert len(fresh.workspace.run(run.id).artifacts[0].files) == len(kinds)
    assert not canary.exists()
    pickle.loads(evil)
    assert canary.exists(), "the payload is one"


def test_s32_a_model_that_runs_code_is_loaded_only_with_trust_and_only_as_it_was_stored(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary, scratch = home.parent / "canary", home.parent / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with runstone.start_run(workspace=home, environment=False) as run:
        made = run.log_model(_Harmful(canary), name="net", flavour="pickle")
    assert made is not None
    with pytest.raises(UntrustedModel) as caught:
        runstone.load_model("net", workspace=home)
    version = run.workspace.models.get("net").find("latest")
    assert not canary.exists()
    for told in (run.id, getpass.getuser(), version.manifest[:16], "trusted=True"):
        assert told in str(caught.value), told
    place = run.workspace.blobs.object_path(read_manifest(version, run.workspace.blobs).files[0].hash)
    place.chmod(0o600)
    place.write_bytes(place.read_bytes() + b"\0")
    with pytest.raises(FormatError):
        runstone.load_model("net", workspace=home, trusted=True)
    assert not canary.exists()
    assert list(scratch.iterdir()) == [], "nothing is left of what was not loaded"


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
ALIASES = "a: &a [" + "x, " * 1_000 + "x]\n" + "b: [" + "*a, " * 100_000 + "*a]\n"
CODE = "!!python/object/apply:os.mkdir ['CANARY']"


@pytest.mark.parametrize("text", [LAUGHS, ALIASES, CODE, "a: &a [*a]"], ids=["laughs", "aliases", "code", "itself"])
@pytest.mark.parametrize("reader", ["registry", "params", "sweeps", "stores of others"])
def test_s33_yaml_runs_nothing_and_stays_small(tmp_path: Path, reader: str, text: str) -> None:
    canary, place = tmp_path / "canary", tmp_path / "x.yaml"
    text = text.replace("CANARY", str(canary))
    place.write_text(text)
    start = time.thread_time()
    if reader == "stores of others":
        # Aliases are one object there, and params are bounded when they are written out: importers/test_hostile.py.
        parse_foreign(text.encode())
    else:
        read = {
            "registry": lambda: parse_yaml(text.encode(), "gates.yaml"),
            "params": lambda: read_params(place),
            "sweeps": lambda: yamlfile.parse(text, "sweep.yaml"),
        }[reader]
        with pytest.raises((InvalidConfig, InvalidValue)) as caught:
            read()
        assert len(str(caught.value)) < 2_000
    # PyYAML itself takes seconds for 100,000 aliases; the limit of a sweep's file is behind it.
    assert time.thread_time() - start < (20 if reader in ("sweeps", "stores of others") else 1)
    assert not canary.exists()


ODD = "a\r\nSet-Cookie: x=1\x1b[31m\x00\u202egpj.exe"


def test_s36_odd_names_stay_out_of_headers_logs_and_terminals(fresh: World) -> None:
    name = ODD.replace("\x00", "")
    with runstone.start_run(workspace=fresh.workspace, name=name, project="odd", environment=False) as run:
        run.log_text("t", "x", step=0)
        run.set_tags({"k": name})
    ann = fresh.headers("ann")
    for target in (f"/api/runs/{run.id}", f"/api/runs/{run.id}/artifacts/{'%0d%0aX: y'.replace(' ', '%20')}/zip"):
        answer = sent(fresh, "GET", target, ann)
        assert "set-cookie" not in answer.headers
        assert not [value for value in answer.headers.values() if "\r" in value or "\n" in value or "\x1b" in value]
    sent(fresh, "GET", "/api/runs/a%0d%0ab%1b%5b31m%e2%80%ae%c2%9b2J", ann)
    sent(fresh, "GET", "/api/runs?filter=" + "%0d%0a%1b%5b31m%00%e2%80%ae", ann)
    sent(fresh, "POST", "/api/login", {"content-type": "application/json"}, json.dumps({"token": ODD}).encode())
    log = fresh.log.getvalue()
    assert log.isascii()
    assert "\x1b" not in log
    assert all(json.loads(line) for line in log.splitlines())
    command = [sys.executable, "-m", "runstone.cli.main", "-w", str(fresh.workspace.path), "runs", "list"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "exe" in shown
    assert not [sign for sign in ("\x1b[31m", "\u202e", "\r") if sign in shown]


@pytest.mark.parametrize("name", ["CON", "NUL.txt", "a.", "a ", "Case", "case", "e\u0301", "\u00e9", "x" * 255])
def test_s37_files_of_strange_names_come_back_and_lie_under_their_hash(world: World, name: str) -> None:
    data = name.encode() * 3
    with runstone.start_run(workspace=world.workspace, project="names", environment=False) as run:
        pass
    target = f"{PROXY}/0/{run.id}/artifacts/" + "".join(f"%{byte:02x}" for byte in name.encode())
    made = sent(world, "PUT", target, world.headers("ann"), data)
    assert made.status_code == 200, made.text
    assert sent(world, "GET", target, world.headers("ann")).content == data
    names = [path.name for path in world.workspace.path.rglob("*")]
    assert name not in names


UNDER_NO_UMASK = """
import os, sys
os.umask(0)
import numpy as np, runstone
from pathlib import Path
place = Path(sys.argv[1])
with runstone.start_run(workspace=place, environment=False) as run:
    run.log({"x": 1.0})
    run.log_image("i", np.zeros((3, 3, 3), np.uint8), step=0)
    run.log_artifact(__file__, name="code")
run.workspace.runs()
run.workspace.register_model("net", run.id, artifact="code")
from runstone.index.accounts import Accounts
Accounts(place).add_user("ann")
"""


def test_s38_nobody_else_reaches_a_workspace_whatever_the_umask_is(tmp_path: Path) -> None:
    program, place = tmp_path / "program.py", tmp_path / "deep" / ".runstone"
    program.write_text(UNDER_NO_UMASK)
    before = {path.name for path in Path("/tmp").iterdir()}
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, str(program), str(place)], check=True, env=environment)
    assert place.stat().st_mode & 0o777 == 0o700
    for path in place.rglob("accounts.sqlite*"):
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert not [name for name in {path.name for path in Path("/tmp").iterdir()} - before if "runstone" in name]
    assert not [path for path in tmp_path.rglob("*") if path.is_socket()]
