"""The datasets of a run come back with it: where it read them, with the content that it read."""

from __future__ import annotations

from pathlib import Path

import pytest

import runstone
from runstone.reproduce import rerun
from tests.reproduce.conftest import Project

SCRIPT = """
import pathlib, sys
import runstone

with runstone.start_run(name="reader", environment=True) as run:
    for place in sys.argv[2:]:
        used = run.use_dataset(place, store="store" in sys.argv[1])
        files = [used.path] if used.path.is_file() else sorted(used.path.rglob("*.txt"))
        run.log({"sum": float(sum(int(file.read_text()) for file in files))})
"""


@pytest.fixture
def reader(project: Project) -> Project:
    """Return a project whose script adds up the numbers in data that git does not keep."""
    project.write(".gitignore", "data\n")
    project.write("read.py", SCRIPT)
    project.commit()
    project.write("data/a.txt", "1")
    project.write("data/sub/b.txt", "2")
    return project


def test_data_inside_the_checkout_is_checked_out_by_its_hash(reader: Project) -> None:
    run = reader.run("read.py", "store", "data")
    reader.write("data/a.txt", "100")  # the place holds something else by now
    made = reader.restore(run)
    code = made.folder / "code"
    assert (code / "data" / "a.txt").read_text() == "1"
    assert not (code / "data").is_symlink()
    assert made.lost == []
    assert any("dataset data@1 was checked out to code/data" in note for note in made.notes)
    assert made.words == ("read.py", "store", "data")
    outcome = rerun(made, runstone.open_workspace(reader.home))
    assert (outcome.verdict, outcome.run is not None) == ("equal", True)
    assert (reader.root / "data" / "a.txt").read_text() == "100"


def test_data_by_reference_is_linked_while_it_is_as_it_was(reader: Project) -> None:
    run = reader.run("read.py", "reference", "data")
    made = reader.restore(run)
    link = made.folder / "code" / "data"
    assert link.readlink() == reader.root / "data"
    assert made.lost == []
    reader.write("data/a.txt", "100")
    changed = reader.restore(run, "changed")
    assert not (changed.folder / "code" / "data").exists()
    assert any("dataset data@1: its content is not in the store" in line for line in changed.lost)


def test_data_outside_the_checkout_is_read_there_while_it_is_as_it_was(reader: Project, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "a.txt").write_text("7")
    run = reader.run("read.py", "store", str(lake), str(lake / "a.txt"))
    made = reader.restore(run)
    assert made.words == ("read.py", "store", str(lake), str(lake / "a.txt"))
    assert made.data == {}
    (lake / "a.txt").write_text("8")
    changed = reader.restore(run, "changed")
    data = changed.folder / "data"
    assert changed.words == ("read.py", "store", str(data / "lake@1" / "lake"), str(data / "a.txt@1" / "a.txt"))
    assert (data / "lake@1" / "lake" / "a.txt").read_text() == (data / "a.txt@1" / "a.txt").read_text() == "7"
    assert rerun(changed, runstone.open_workspace(reader.home)).verdict == "equal"


def test_data_that_is_linked_by_hand_is_left_alone(reader: Project) -> None:
    run = reader.run("read.py", "store", "data")
    made = reader.restore(run, links=["data"])
    assert (made.folder / "code" / "data").is_symlink()


def test_a_place_that_leads_out_of_the_checkout_is_not_written(reader: Project, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    run = reader.run("read.py", "store", "data")
    # another commit by now has a link where the data lay
    journal = next(run.path.glob("journal.*"))
    told = journal.read_text()
    journal.write_text(told.replace(f'{reader.root}/data"', f'{reader.root}/out/../../data"'))
    made = reader.restore(runstone.runinfo.RunInfo(run.path))
    assert not list(out.iterdir())
    assert not (made.folder / "data" / "a.txt").exists()


def test_content_that_is_gone_is_told(reader: Project) -> None:
    run = reader.run("read.py", "store", "data/a.txt")
    for path in (reader.home / "blobs").rglob("*"):
        if path.is_file() and path.read_bytes() == b"1":
            path.unlink()
    made = reader.restore(run)
    assert any("dataset a.txt@1: the content" in line for line in made.lost)
