"""Stores that somebody made to do harm: nothing outside of them is read, and nothing fills the disk or runs."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from runstone import FormatError, InvalidValue
from runstone.importers import import_store
from runstone.importers.places import GONE, OUTSIDE, Archive, Place
from runstone.importers.wandb.wire import HEADER
from runstone.importers.yamlfile import parse_yaml
from runstone.index.foreign import ForeignDatabase
from runstone.workspace import Workspace

Unpack = Callable[[str], Path]
SECRET = b"nobody may have this"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret" / "id_rsa"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


def contents(workspace: Workspace) -> list[bytes]:
    return [path.read_bytes() for path in workspace.path.glob("blobs/??/*")]


# --- paths ------------------------------------------------------------------------------------------------------------


def test_links_out_of_a_store_are_not_followed(golden: Unpack, workspace: Workspace, secret: Path) -> None:
    store = golden("mlflow_folder") / "mlruns"
    (outer,) = [path.parent for path in store.glob("*/*/meta.yaml") if "run_name: outer" in path.read_text()]
    (outer / "artifacts" / "key").symlink_to(secret)
    (outer / "artifacts" / "keys").symlink_to(secret.parent)
    (outer / "params" / "key").symlink_to(secret)
    (outer / "tags" / "key").symlink_to(secret)
    (outer / "metrics" / "key").symlink_to(secret)
    (one,) = [run for run in import_store(workspace, "mlflow", store).runs if run.name == "outer"]
    info = workspace.run(one.run_id)
    assert SECRET not in contents(workspace)
    assert "key" not in {*info.params, *info.tags, *info.metrics}
    assert sum(count for kind, count in one.not_carried.items() if "link" in kind) >= 4


def test_addresses_of_artifacts_outside_of_a_store_are_not_read(
    golden: Unpack, workspace: Workspace, secret: Path
) -> None:
    store = golden("mlflow_folder") / "mlruns"
    (outer,) = [path.parent for path in store.glob("*/*/meta.yaml") if "run_name: inner" in path.read_text()]
    meta = outer / "meta.yaml"
    lines = [line for line in meta.read_text().splitlines() if not line.startswith("artifact_uri")]
    meta.write_text("\n".join([*lines, f"artifact_uri: {secret.parent}", ""]))
    (version,) = store.glob("models/*/version-1/meta.yaml")
    lines = [line for line in version.read_text().splitlines() if not line.startswith(("source", "storage_location"))]
    version.write_text("\n".join([*lines, f"source: {secret.parent}", f"storage_location: file://{secret}", ""]))
    result = import_store(workspace, "mlflow", store)
    (one,) = [run for run in result.runs if run.name == "inner"]
    assert SECRET not in contents(workspace)
    assert "files of a model version (outside of the store (--also-from takes it))" in result.models[0].not_carried
    # where its own folder is there, that is what counts
    assert one.outcome == "new"


def test_what_the_user_names_is_read(golden: Unpack, workspace: Workspace, secret: Path) -> None:
    store = golden("mlflow_folder") / "mlruns"
    (version,) = store.glob("models/*/version-1/meta.yaml")
    lines = [line for line in version.read_text().splitlines() if not line.startswith(("source", "storage_location"))]
    version.write_text("\n".join([*lines, f"source: {secret.parent}", f"storage_location: {secret.parent}", ""]))
    import_store(workspace, "mlflow", store, also_from=(secret.parent,))
    assert SECRET in contents(workspace)


def test_a_source_of_a_model_cannot_climb_out_of_its_run(golden: Unpack, workspace: Workspace, secret: Path) -> None:
    store = golden("mlflow_folder") / "mlruns"
    (version,) = store.glob("models/*/version-1/meta.yaml")
    (run,) = [path.parent.name for path in store.glob("*/*/meta.yaml") if "run_name: outer" in path.read_text()]
    climb = "../" * 12 + str(secret.parent).lstrip("/")
    lines = [line for line in version.read_text().splitlines() if not line.startswith(("source", "storage_location"))]
    version.write_text("\n".join([*lines, f"source: runs:/{run}/{climb}", ""]))
    import_store(workspace, "mlflow", store)
    assert SECRET not in contents(workspace)


def test_files_that_wandb_names_elsewhere_are_not_read(workspace: Workspace, tmp_path: Path, secret: Path) -> None:
    def field(number: int, data: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(data)) + data

    def varint(value: int) -> bytes:
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    def record(number: int, data: bytes) -> bytes:
        body = b"\x01" + field(number, data)
        return struct.pack("<IHB", zlib.crc32(body), len(body) - 1, 1) + body[1:]

    def item(name: str, value: object) -> bytes:
        return field(1, field(1, name.encode()) + field(16, json.dumps(value).encode()))

    entry = field(1, b"key") + field(2, b"x") + field(6, str(secret).encode())
    artifact = field(5, b"stolen") + field(12, field(4, entry))
    climbing = field(5, b"climbing") + field(12, field(4, field(1, b"../../../secret/id_rsa") + field(2, b"x")))
    media = {"_type": "image-file", "path": "../../secret/id_rsa"}
    absolute = {"_type": "table-file", "path": str(secret)}
    folder = tmp_path / "wandb" / "offline-run-1"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "linked.txt").symlink_to(secret)
    (folder / "files" / "diff.patch").symlink_to(secret)
    (folder / "run-a.wandb").write_bytes(
        HEADER
        + record(17, field(1, b"a") + field(3, b"p"))
        + record(2, item("image", media) + item("table", absolute))
        + record(8, artifact)
        + record(8, climbing)
    )
    (one,) = import_store(workspace, "wandb", tmp_path / "wandb").runs
    assert one.outcome == "new"
    assert SECRET not in contents(workspace)
    assert not list(workspace.path.rglob("*.patch"))
    assert one.not_carried["image whose file is not there"] == 1
    assert one.not_carried["table whose file is not there"] == 1
    assert one.not_carried["path that leads out"] == 1


def test_a_file_that_becomes_a_link_after_it_was_looked_at_is_not_read(tmp_path: Path, secret: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    path = store / "a.txt"
    path.write_text("mine")
    place = Place(store)
    file = place.file(path)
    assert place.trouble(path) is None
    path.unlink()
    path.symlink_to(secret)
    assert place.trouble(path) == OUTSIDE
    with pytest.raises(InvalidValue, match="leads out"), file.opened():
        pass


def test_pipes_and_devices_in_a_store_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    place = Place(tmp_path)
    assert place.trouble(tmp_path / "pipe") == GONE
    assert place.read(tmp_path / "pipe") is None
    counted: Counter[str] = Counter()
    assert list(place.walk(tmp_path, counted)) == []
    assert counted == {GONE: 1}


# --- archives ---------------------------------------------------------------------------------------------------------


def archive_of(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("task.json", '{"id": "x", "name": "n"}')
        for name, data in members:
            archive.writestr(name, data)
    return path


def link_to(target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo("data/link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target.encode()


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "data/../../escaped", "data\\..\\escaped"])
def test_members_that_lead_out_of_an_archive_are_refused(name: str, tmp_path: Path, workspace: Workspace) -> None:
    store = archive_of(tmp_path / "s.zip", (name, SECRET), ("data/fine.txt", b"fine"))
    (one,) = import_store(workspace, "clearml", store).runs
    assert one.not_carried["archive member that is no plain file inside it"] == 1
    assert contents(workspace) == [b"fine"]
    assert not list(tmp_path.rglob("escaped"))


def test_links_in_an_archive_are_refused(tmp_path: Path, workspace: Workspace, secret: Path) -> None:
    (one,) = import_store(workspace, "clearml", archive_of(tmp_path / "s.zip", link_to(str(secret)))).runs
    assert one.not_carried["archive member that is no plain file inside it"] == 1
    assert contents(workspace) == []


def test_a_member_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    store = archive_of(tmp_path / "s.zip", ("data/bomb", bytes(20 << 20)))
    (one,) = import_store(workspace, "clearml", store).runs
    assert one.not_carried["archive member that unpacks to over 1000 times its size"] == 1
    assert contents(workspace) == []


def test_a_member_that_says_a_smaller_size_than_it_has_is_refused(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "s.zip", ("data/big", os.urandom(5000)))
    archive = Archive(path, tmp_path)
    archive._members["data/big"].file_size = 100
    with pytest.raises(InvalidValue), archive.unpacked("data/big"):
        pass
    assert not list(tmp_path.glob("*.member"))
    archive.close()


def test_an_archive_with_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstone.importers.places._MOST_MEMBERS", 10)
    path = archive_of(tmp_path / "s.zip", *[(f"data/{number}", b"") for number in range(20)])
    with pytest.raises(FormatError, match="21 members"):
        Archive(path, tmp_path)


# --- databases, YAML --------------------------------------------------------------------------------------------------


def test_views_and_virtual_tables_of_a_foreign_database_are_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE experiments (experiment_id, name)")
        connection.execute(
            "CREATE VIEW runs AS WITH RECURSIVE forever(run_uuid) AS (SELECT 1 UNION ALL SELECT run_uuid + 1 FROM "
            "forever) SELECT * FROM forever"
        )
    connection.close()
    with ForeignDatabase(path) as database:
        assert database.columns("experiments") == ["experiment_id", "name"]
        assert database.columns("runs") == []
        assert list(database.rows("runs", ["run_uuid"])) == []


def test_names_of_a_foreign_database_are_no_sql(tmp_path: Path) -> None:
    path = tmp_path / "odd.db"
    name = 'a"; DROP TABLE b; --'
    with sqlite3.connect(path) as connection:
        connection.execute(f'''CREATE TABLE "{name.replace('"', '""')}" ("x""y", z)''')
        connection.execute(f'''INSERT INTO "{name.replace('"', '""')}" VALUES (1, 2)''')
    connection.close()
    with ForeignDatabase(path) as database:
        assert database.columns(name) == ['x"y', "z"]
        assert list(database.rows(name, ['x"y', "none"], where=[("z", 2)])) == [(1, None)]


def test_a_foreign_database_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE a (x)")
    connection.close()
    with ForeignDatabase(path) as database, pytest.raises(sqlite3.OperationalError):
        database._connection.execute("INSERT INTO a VALUES (1)")


def test_yaml_that_would_run_code_or_grow_without_end_is_data_or_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    parse_yaml(f"!!python/object/apply:os.system ['touch {marker}']".encode())
    assert not marker.exists()
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert isinstance(parse_yaml("\n".join(lines).encode()), dict)


def test_params_that_would_grow_without_end_are_bounded(tmp_path: Path, workspace: Workspace) -> None:
    store = tmp_path / "dvclive"
    (store / "plots" / "metrics").mkdir(parents=True)
    (store / "plots" / "metrics" / "loss.tsv").write_text("step\tloss\n0\t1.0\n")
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (store / "params.yaml").write_text("\n".join(lines))
    (one,) = import_store(workspace, "dvclive", store).runs
    assert one.held.points == 1
    assert sum(path.stat().st_size for path in workspace.path.rglob("journal.*")) < 64 << 20
