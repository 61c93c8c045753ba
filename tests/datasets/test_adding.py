"""Adding data: the same content is the same version, and nothing is ever hashed wrong."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import socket
import time
from pathlib import Path

import pytest

from runstone.blobs.intake import hash_of_bytes
from runstone.datasets import DatasetNotFound, Datasets, add, update
from runstone.datasets.manifest import Manifest, TreeFile
from runstone.datasets.places import cache_for
from runstone.datasets.scan import Scan
from runstone.errors import FormatError, InvalidName, InvalidValue, NotFound
from runstone.workspace import ensure_workspace

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    return ensure_workspace(tmp_path / ".runstone").datasets


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "data"
    (tree / "sub").mkdir(parents=True)
    (tree / "a.txt").write_text("a")
    (tree / "sub" / "b.txt").write_text("bb")
    old = time.time() - 100
    for path in (tree / "a.txt", tree / "sub" / "b.txt"):
        os.utime(path, (old, old))
    return tree


def test_unchanged_data_is_the_version_that_is_there(datasets: Datasets, tree: Path) -> None:
    first = datasets.add(tree)
    assert (first.name, first.version, first.is_stored) == ("data", 1, True)
    assert datasets.add(tree) == first
    (tree / "a.txt").write_text("other")
    second = datasets.add(tree)
    assert second.version == 2
    (tree / "a.txt").write_text("a")
    assert datasets.add(tree) == first
    assert len(datasets.get("data").history()) == 3


def test_the_same_data_has_the_same_hash_in_every_workspace(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    other = ensure_workspace(tmp_path / "other" / ".runstone").datasets
    assert datasets.add(tree).hash == other.add(tree, name="elsewhere", store=False, profile=False).hash


def test_an_unchanged_tree_is_not_read_again(datasets: Datasets, tree: Path) -> None:
    time.sleep(0.03)
    datasets.add(tree)
    scan = Scan(tree, cache_for(datasets.workspace, tree), leave_out=datasets.workspace)
    assert scan.is_unchanged
    (tree / "a.txt").write_text("b")
    scan = Scan(tree, cache_for(datasets.workspace, tree), leave_out=datasets.workspace)
    assert not scan.is_unchanged
    scan.hash()
    assert scan.read_bytes == 1


def test_by_reference_stores_no_content_and_stored_later_is_the_same_version(datasets: Datasets, tree: Path) -> None:
    content = hash_of_bytes(b"bb")
    first = datasets.add(tree, store=False)
    assert content not in datasets.blobs
    assert not first.is_stored
    assert first.path == tree
    second = datasets.add(tree)
    assert second == first
    assert second.is_stored
    assert content in datasets.blobs


def test_a_version_by_reference_is_found_where_it_was_seen_last(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    datasets.add(tree, store=False)
    tree.rename(tmp_path / "moved")
    datasets.add(tmp_path / "moved", name="data", store=False)
    assert datasets.find("data@1").path == tmp_path / "moved"


def test_links_inside_stay_links_and_links_outside_are_followed(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "o.txt").write_text("out")
    (tree / "inside").symlink_to("sub/b.txt")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "file").symlink_to(tmp_path / "outside" / "o.txt")
    (tree / "folder").symlink_to(tmp_path / "outside")
    files = {file.path: file for file in datasets.add(tree).files}
    assert files["inside"].link == "sub/b.txt"
    assert files["dangling"].link == "nowhere"
    assert files["file"].hash == files["folder/o.txt"].hash == hash_of_bytes(b"out")


def test_what_cannot_be_kept_is_named(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(InvalidValue, match="pipe is a FIFO"):
        datasets.add(tree)
    (tree / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(tree)  # the path of a socket is short
        try:
            one.bind("s")
        finally:
            os.chdir(here)
        with pytest.raises(InvalidValue, match="s is a socket"):
            datasets.add(tree)
    (tree / "s").unlink()
    (tree / "gone").symlink_to(tmp_path / "gone")
    with pytest.raises(InvalidValue, match=r"gone is a link to .*, which is not there"):
        datasets.add(tree)
    (tree / "gone").unlink()
    (tree / "loop").symlink_to(tree.absolute())
    with pytest.raises(InvalidValue, match="link into the folder"):
        datasets.add(tree)
    with pytest.raises(NotFound, match="no file or folder"):
        datasets.add(tmp_path / "nothing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_an_error(datasets: Datasets, tree: Path) -> None:
    (tree / "a.txt").chmod(0)
    with pytest.raises(PermissionError, match=r"a\.txt"):
        datasets.add(tree)


def test_names_of_any_bytes_are_kept(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    for name in (b"\xff\xfe", b"new\nline", "ü\u202e".encode(), b"back\\xff"):
        (tree / os.fsdecode(name)).write_bytes(name)
    version = datasets.add(tree)
    version.checkout(tmp_path / "out")
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {path.name for path in tree.iterdir()}
    assert (out / os.fsdecode(b"\xff\xfe")).read_bytes() == b"\xff\xfe"
    assert Manifest.unpack(version.manifest.pack()) == version.manifest


def test_a_file_that_changes_while_it_is_read_is_an_error(datasets: Datasets, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(bytes(40 << 20))
    stop = SPAWN.Event()
    started = SPAWN.Event()
    writer = SPAWN.Process(target=_append, args=(path, started, stop))
    writer.start()
    try:
        assert started.wait(30)
        with pytest.raises(InvalidValue, match="changed while it was read"):
            datasets.add(path, store=False)
    finally:
        stop.set()
        writer.join()
    assert "log.txt" not in datasets


def _append(path: Path, started: object, stop: object) -> None:
    with path.open("ab", buffering=0) as file:
        while not stop.is_set():  # type: ignore[attr-defined]
            file.write(b"x")
            started.set()  # type: ignore[attr-defined]


def test_the_workspace_is_no_part_of_the_data_around_it(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    version = datasets.add(tmp_path, name="all")
    assert {file.path for file in version.files} == {"data/a.txt", "data/sub/b.txt"}


def test_executables_and_empty_folders_are_part_of_the_content(datasets: Datasets, tree: Path) -> None:
    first = datasets.add(tree)
    (tree / "a.txt").chmod(0o755)
    (tree / "empty").mkdir()
    second = datasets.add(tree)
    assert second.version == first.version + 1
    files = {file.path: file for file in second.files}
    assert files["a.txt"].is_executable
    assert files["empty"].is_folder


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "a//b", "."])
def test_a_manifest_that_leads_out_is_refused(path: str) -> None:
    bad = Manifest("tree", (TreeFile(path, "0" * 64, 1),)).pack()
    with pytest.raises(FormatError, match="none inside a dataset"):
        Manifest.unpack(bad)


@pytest.mark.parametrize("target", ["../../x", "/etc", "..", "../..", "b/../x", "../a/c/../.."])
def test_a_link_in_a_manifest_that_leads_out_is_refused(target: str) -> None:
    path = "l" if target == ".." else "a/l"
    with pytest.raises(FormatError, match="leads out"):
        Manifest.unpack(Manifest("tree", (TreeFile(path, None, link=target),)).pack())


@pytest.mark.parametrize("target", ["x", "../x", "./x", "../a/c", "b/c"])
def test_a_link_in_a_manifest_that_stays_inside_is_read(target: str) -> None:
    manifest = Manifest("tree", (TreeFile("a/l", None, link=target),))
    assert Manifest.unpack(manifest.pack()) == manifest


def test_update_looks_at_the_path_again(datasets: Datasets, tree: Path) -> None:
    first = datasets.add(tree)
    assert update(datasets, "data") == first
    (tree / "c.txt").write_text("c")
    assert update(datasets, "data").version == 2


def test_parallel_adds_give_each_content_one_number(datasets: Datasets, tmp_path: Path) -> None:
    processes = [SPAWN.Process(target=_add_some, args=(datasets.workspace, tmp_path, part)) for part in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    dataset = datasets.get("parallel")
    versions = dataset.versions()
    assert sorted(version.version for version in versions) == list(range(1, 21))
    assert len({version.hash for version in versions}) == 20
    assert dataset.verify() == []


def _add_some(workspace: Path, folder: Path, part: int) -> None:
    for number in range(20):  # all of them add all twenty
        path = folder / f"{part}" / "f.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(number))
        add(Datasets(workspace), path, name="parallel")


def test_aliases_tags_notes_and_revocations_are_kept(datasets: Datasets, tree: Path) -> None:
    datasets.add(tree, notes="first", tags={"source": "lab"})
    dataset = datasets.get("data")
    dataset.set_alias("gold", 1)
    dataset.set_tags({"checked": "yes"}, version=1)
    dataset.set_notes("all of it")
    dataset.revoke("gold", reason="labels are wrong")
    found = datasets.find("data@gold")
    assert found.recorded.tags == {"source": "lab", "checked": "yes"}
    assert (found.recorded.notes, dataset.state().notes) == ("first", "all of it")
    revoked = datasets.revoked()
    assert [(one.name, one.version, one.reason) for one in revoked] == [("data", 1, "labels are wrong")]
    dataset.revoke(1, reason=None)
    assert datasets.revoked() == []
    with pytest.raises(InvalidName, match="could be taken for a version"):
        dataset.set_alias("v3", 1)
    with pytest.raises(DatasetNotFound, match="has no version or alias '7'; it has version 1 and the aliases gold"):
        datasets.find("data@7")
    assert datasets.find(f"data@{found.hash[:8]}") == found


def test_dvc_and_git_are_recorded(datasets: Datasets, tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / "data" / "raw").mkdir(parents=True)
    (root / "data" / "raw" / "x.bin").write_bytes(b"x")
    (root / "out.csv").write_text("a\n1\n")
    (root / "data" / "raw.dvc").write_text(
        "outs:\n- md5: 1f69c66028ccecd4f4a1f2c2f1e1d5b0.dir\n  size: 1\n  nfiles: 1\n  hash: md5\n  path: raw\n"
    )
    (root / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  make:\n    cmd: python make.py\n    deps:\n    - path: data/raw\n      hash: md5\n"
        "      md5: 1f69c66028ccecd4f4a1f2c2f1e1d5b0.dir\n    outs:\n    - path: 'out.csv'\n      hash: md5\n"
        "      md5: 60b725f10c9c85c70d97880dfe8191b3\n      size: 4\n"
    )
    (root / ".git" / "refs" / "heads").mkdir(parents=True)
    (root / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (root / ".git" / "refs" / "heads" / "main").write_text("a" * 40 + "\n")
    raw = datasets.add(root / "data" / "raw").recorded
    assert raw.dvc == {
        "file": "data/raw.dvc",
        "path": "data/raw",
        "md5": "1f69c66028ccecd4f4a1f2c2f1e1d5b0.dir",
        "size": 1,
        "nfiles": 1,
    }
    assert raw.git == {"commit": "a" * 40, "branch": "main", "path": "data/raw"}
    part = datasets.add(root / "data" / "raw" / "x.bin").recorded
    assert part.dvc is not None
    assert part.dvc["is_part"]
    out = datasets.add(root / "out.csv").recorded
    assert out.dvc == {
        "file": "dvc.lock",
        "path": "out.csv",
        "md5": "60b725f10c9c85c70d97880dfe8191b3",
        "size": 4,
    }


def test_a_compressed_table_and_a_broken_one_are_told_apart(datasets: Datasets, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.csv.gz").write_bytes(gzip.compress(b"x,y\n1,a\n2,b\n"))
    (tmp_path / "d" / "b.parquet").write_bytes(b"this is not parquet")
    version = datasets.add(tmp_path / "d")
    assert version.schema == {"x": "int64", "y": "string"}
    assert [table.get("trouble") is None for table in version.tables] == [True, False]
