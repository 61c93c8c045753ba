"""What people did with DVC, done here. Each test is a row of the table in docs/datasets.md."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import runstone
from tests.catalog.conftest import User

TRAIN = """
import pathlib, sys
import runstone

with runstone.start_run(project="sums", name=sys.argv[2], params={"scale": float(sys.argv[1])}) as run:
    data = run.use_dataset("data", store=True)
    total = sum(int(path.read_text()) for path in sorted(pathlib.Path(data.path).glob("*.txt")))
    for step in range(3):
        run.log({"sum": total * float(sys.argv[1]) + step}, step=step)
"""


def read_bytes() -> int:
    """Return how many bytes this process has read so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def tree(user: User, count: int = 40, size: int = 100_000) -> dict[str, bytes]:
    contents = {f"{number:02}.bin": os.urandom(size) for number in range(count)}
    for name, content in contents.items():
        user.write(f"data/{name}", content)
    return contents


def test_the_same_content_is_the_same_version_and_unchanged_files_are_not_read(user: User) -> None:
    tree(user)
    first = user.json("data add data")
    shutil.copytree(user.project / "data", user.project / "copy")
    assert user.json("data add copy --name data")["hash"] == first["hash"]
    # what was written within the tick of the file system's clock before it was read is read once more
    newest = max(path.stat().st_ctime_ns for path in (user.project / "data").iterdir())
    while time.time_ns() < newest + 50_000_000:
        time.sleep(0.005)
    user("data add data")
    before = read_bytes()
    assert "data@1" in user("data add data")
    assert read_bytes() - before < 200_000  # of 4 MB: histories and hashes, no content
    assert len(user.json("data list data")) == 1


def test_content_is_stored_once_and_checked_out_byte_for_byte(user: User) -> None:
    contents = tree(user, 10)
    user.write("data/again.bin", contents["00.bin"])
    user("data add data")
    blobs = [path for path in (user.project / ".runstone" / "blobs").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size == 100_000 for path in blobs) == 10
    user.write("data/00.bin", b"changed")
    user("data add data")
    user("data checkout data@1 one")
    user("data checkout data@2 two --link")
    assert {path.name: path.read_bytes() for path in Path("one").iterdir()} == {
        **contents,
        "again.bin": contents["00.bin"],
    }
    assert Path("two", "00.bin").read_bytes() == b"changed"
    user("data checkout data@1 data")  # back again, in place
    assert Path("data", "00.bin").read_bytes() == contents["00.bin"]


@pytest.mark.parametrize("place", ["folder", "url"])
def test_data_is_pushed_and_pulled(user: User, tmp_path: Path, place: str) -> None:
    pytest.importorskip("fsspec")
    contents = tree(user, 5)
    user("data add data")
    there = str(tmp_path / "remote") if place == "folder" else f"memory://{tmp_path.name}"
    assert "sent 6 files" in user(f"data push --to {there}")  # and the manifest
    assert "sent 0 files" in user(f"data push --to {there}")  # tests/datasets: it goes on where it was broken off
    user(f"data pull data --from {there} -w {tmp_path}/other")
    user(f"data checkout data@1 out -w {tmp_path}/other")
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == contents


def test_a_diff_tells_what_was_added_removed_changed_and_renamed(user: User) -> None:
    for name, text in {"a": "a", "b": "bb", "c": "ccc"}.items():
        user.write(f"data/{name}.txt", text)
    user("data add data")
    (user.project / "data" / "a.txt").rename(user.project / "data" / "z.txt")
    user.write("data/b.txt", "bbbb")
    user.write("data/d.txt", "d")
    (user.project / "data" / "c.txt").unlink()
    user("data add data")
    told = user("data diff data@1 2")
    assert "a.txt -> z.txt" in told
    assert "1 added, 1 removed, 1 changed, 1 renamed" in told
    assert "2 bytes" in told or "2 B" in told, told


def test_data_from_a_url_is_pinned_and_updated(user: User) -> None:
    pytest.importorskip("fsspec")
    user.write("elsewhere/raw.csv", "x\n1\n")
    url = f"file://{user.project}/elsewhere/raw.csv"
    user(f"data import {url} --name raw")
    assert user.json("data show raw")["source"]["url"] == url
    assert "is up to date" in user("data update raw")
    user.write("elsewhere/raw.csv", "x\n2\n")
    assert "raw@2" in user("data update raw")


@pytest.fixture
def trained(user: User) -> User:
    """Return a project in git with data beside it and two runs, the second one of a changed script."""
    user.git("init", "--quiet", "--initial-branch=main")
    user.write(".gitignore", ".runstone\ndata\n")
    user.write("train.py", TRAIN)
    user.git("add", "--all")
    user.git("commit", "--quiet", "--message=x")
    user.write("data/a.txt", "1")
    user.write("data/b.txt", "2")
    for name, scale in (("one", "1"), ("two", "10")):
        subprocess.run([sys.executable, "train.py", scale, name], check=True, capture_output=True, timeout=60)
        user.write("train.py", f"# a change that is not committed\n{TRAIN}")
    return user


def test_code_params_and_data_of_a_run_come_back(trained: User) -> None:
    commit = trained.git("rev-parse", "HEAD")
    trained.write("data/a.txt", "100")
    trained.write("train.py", "raise SystemExit('another script by now')\n")
    shown = trained.json("runs show two")
    assert commit in str(shown)
    told = trained("reproduce two --output again --run")
    assert "equal" in told
    assert Path("again/code/train.py").read_text().startswith("# a change that is not committed")
    assert Path("again/code/data/a.txt").read_text() == "1"
    assert Path("data/a.txt").read_text() == "100"


def test_experiments_are_listed_and_compared(trained: User) -> None:
    listed = trained(["runs", "list", "--columns", "name, params.scale, metrics.sum.last"])
    assert [line.split() for line in listed.splitlines()[1:]] == [["two", "10", "32"], ["one", "1", "5"]]
    told = trained("compare one two")
    assert "scale" in told
    report = trained("compare one two --markdown")  # for a pull request
    assert "| --- |" in report
    assert "scale" in report


def test_metrics_are_exported_as_text(trained: User) -> None:
    trained("export one --csv -o one.csv")
    rows = Path("one.csv").read_text().splitlines()
    assert [row.split(",")[3] for row in rows if row.startswith('"sum",')] == ["3", "4", "5"]
    assert trained.json("runs show one")["metrics"]["sum"]["last"] == 5


def test_versions_of_models_are_semantic_and_named_by_git_tags(trained: User) -> None:
    trained.write("model.bin", b"weights")
    trained("models register sums model.bin --run two")
    trained.git("tag", "sums@1.0.0")
    (tag,) = trained.git("tag", "--points-at", "HEAD").splitlines()
    trained(["models", "promote", tag, "production", "--reason", f"git tag {tag}"])
    assert trained.json("models show sums@production")["version"] == "1.0.0"


def test_gc_keeps_what_anything_refers_to(trained: User) -> None:
    trained.write("model.bin", b"weights")
    trained("models register sums model.bin --run two")
    trained("gc --grace 0s")
    assert "all as recorded" in trained("data verify")
    trained("models verify")
    trained("data checkout data@1 out")
    assert Path("out/b.txt").read_text() == "2"


def test_all_of_it_works_without_a_network(user: User, tmp_path: Path) -> None:
    site = tmp_path / "offline"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*_, **__): raise OSError('there is no network on a plane')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
    )
    user.write("data/a.txt", "1")
    user.write("data/b.txt", "2")
    user.write("train.py", TRAIN)
    lines = [
        "-m runstone.cli.main data add data",
        "train.py 1 one",
        "-m runstone.cli.main data push --to elsewhere",
        "-m runstone.cli.main models register m train.py --run one",
        "-m runstone.cli.main models promote m@1.0.0 production",
        "-m runstone.cli.main lineage model:m@production",
        "-m runstone.cli.main gc --dry-run",
    ]
    for line in lines:
        done = subprocess.run(
            [sys.executable, *line.split()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
        assert "plane" not in done.stderr
    assert str(runstone.open_workspace().models.find("m@production")) == "m@1.0.0"
