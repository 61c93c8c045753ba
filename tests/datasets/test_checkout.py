"""Checking out: byte for byte, over nothing that would be lost; sending, fetching and verifying."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runstone.blobs.intake import hash_of_bytes
from runstone.datasets import Datasets, check_out
from runstone.datasets.copying import copy_dataset
from runstone.datasets.exchange import Elsewhere, HistoriesDiffer, pull, push
from runstone.datasets.verifying import verify
from runstone.errors import AlreadyExists, FormatError, InvalidValue
from runstone.ledger import LedgerDamaged
from runstone.workspace import ensure_workspace


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    return ensure_workspace(tmp_path / ".runstone").datasets


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "data"
    (tree / "sub").mkdir(parents=True)
    (tree / "a.txt").write_text("a")
    (tree / "sub" / "b.txt").write_text("bb")
    (tree / "sub" / "l").symlink_to("../a.txt")
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "empty").mkdir()
    return tree


def contents(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


@pytest.mark.parametrize("link", [False, True])
def test_a_checkout_is_the_same_tree(datasets: Datasets, tree: Path, tmp_path: Path, link: bool) -> None:
    done = datasets.add(tree).checkout(tmp_path / "out", link=link)
    assert contents(tmp_path / "out") == contents(tree)
    assert done.written == 5
    again = datasets.find("data").checkout(tmp_path / "out", link=link)
    assert (again.written, again.unchanged) == (0, 5)
    assert list(tmp_path.rglob("*.partial")) == []


def test_changed_files_are_not_written_over(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    first = datasets.add(tree)
    (tree / "a.txt").write_text("second")
    (tree / "extra.txt").write_text("extra")
    second = datasets.add(tree)
    out = tmp_path / "out"
    second.checkout(out)
    (out / "mine.txt").write_text("mine")
    known = datasets.get("data").stored_files()
    with pytest.raises(AlreadyExists, match=r"'a\.txt' changed"):
        first.checkout(out)  # knows of no other version
    assert (out / "a.txt").read_text() == "second"
    done = check_out(first, datasets.blobs, out, known=known)
    assert (done.others, done.removed) == (1, 0)
    assert (out / "extra.txt").exists()
    done = check_out(first, datasets.blobs, out, known=known, exact=True)
    assert done.removed == 1
    assert not (out / "extra.txt").exists()
    assert (out / "mine.txt").read_text() == "mine"
    (out / "sub" / "b.txt").write_text("local work")
    with pytest.raises(AlreadyExists, match=r"'sub/b\.txt' changed"):
        check_out(second, datasets.blobs, out, known=known)
    assert (out / "a.txt").read_text() == "a"  # nothing was written
    check_out(second, datasets.blobs, out, known=known, force=True)
    assert (out / "sub" / "b.txt").read_text() == "bb"


def test_nothing_is_written_through_a_link(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    version = datasets.add(tree)
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(AlreadyExists, match="lies behind a link"):
        version.checkout(tmp_path / "out", force=True)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_broken_checkout_leaves_nothing(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    version = datasets.add(tree)
    place = datasets.blobs.local_path(hash_of_bytes(b"bb"))
    place.chmod(0o644)
    place.write_bytes(b"xx")
    with pytest.raises(FormatError, match="damaged"):
        version.checkout(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("state",)) == [".runstone", "data"]


def test_a_single_file_is_put_where_it_is_wanted(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    version = datasets.add(tree / "a.txt")
    version.checkout(tmp_path / "b.txt")
    (tmp_path / "folder").mkdir()
    version.checkout(tmp_path / "folder")
    assert (tmp_path / "b.txt").read_text() == (tmp_path / "folder" / "a.txt").read_text() == "a"


def test_by_reference_is_taken_from_where_it_lies_while_it_is_the_same(
    datasets: Datasets, tree: Path, tmp_path: Path
) -> None:
    datasets.add(tree, store=False)
    version = datasets.find("data@1")
    version.checkout(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tree)
    (tree / "a.txt").write_text("x")
    with pytest.raises(InvalidValue, match="was changed since it was data@1"):
        version.checkout(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_stored_version_can_be_read_by_its_path(datasets: Datasets, tree: Path) -> None:
    datasets.add(tree)
    datasets.add(tree / "a.txt", name="one")
    assert contents(datasets.find("data").path) == contents(tree)
    assert datasets.find("one").path.read_text() == "a"


def test_push_and_pull_carry_everything_once(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    datasets.add(tree)
    datasets.get("data").set_alias("gold", 1)
    there = Elsewhere(str(tmp_path / "remote"))
    (moved,) = push(datasets, [], there)
    assert (moved.versions, moved.events) == (1, 3)
    (again,) = push(datasets, ["data"], there)
    assert (again.count, again.events) == (0, 0)
    other = ensure_workspace(tmp_path / "other" / ".runstone").datasets
    (fetched,) = pull(other, [], there)
    assert fetched.events == 3
    found = other.find("data@gold")
    assert found.hash == datasets.find("data").hash
    found.checkout(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tree)
    # it goes on where both stood
    (tree / "new.txt").write_text("new")
    other.add(tree)
    (back,) = push(other, [], there)
    assert (back.events, back.count) == (1, 2)
    (forth,) = pull(datasets, [], there)
    assert forth.events == 1
    assert datasets.find("data").version == 2
    assert datasets.get("data").verify() == []


def test_a_broken_push_goes_on_and_shows_no_version_without_content(
    datasets: Datasets, tree: Path, tmp_path: Path
) -> None:
    datasets.add(tree)
    there = Elsewhere(str(tmp_path / "remote"))
    place = datasets.blobs.local_path(hash_of_bytes(b"bb"))
    kept = place.read_bytes()
    place.chmod(0o644)
    place.write_bytes(b"xx")
    with pytest.raises(FormatError, match="damaged"):
        list(push(datasets, [], there))
    assert there.events() == {}
    place.write_bytes(kept)
    (moved,) = push(datasets, [], there)
    assert moved.events == 2
    assert moved.there_already


def test_histories_that_went_apart_are_not_mixed(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    datasets.add(tree)
    there = Elsewhere(str(tmp_path / "remote"))
    list(push(datasets, [], there))
    other = ensure_workspace(tmp_path / "other" / ".runstone").datasets
    list(pull(other, [], there))
    (tree / "here.txt").write_text("here")
    datasets.add(tree)
    (tree / "here.txt").write_text("there")
    other.add(tree)
    list(push(other, [], there))
    with pytest.raises(HistoriesDiffer, match="two histories"):
        list(push(datasets, [], there))
    with pytest.raises(HistoriesDiffer, match="two histories"):
        list(pull(datasets, [], there))
    assert datasets.get("data").verify() == []


def test_histories_that_went_apart_come_together_where_that_is_asked_for(
    datasets: Datasets, tree: Path, tmp_path: Path
) -> None:
    datasets.add(tree)
    there = Elsewhere(str(tmp_path / "remote"))
    list(push(datasets, [], there))
    other = ensure_workspace(tmp_path / "other" / ".runstone").datasets
    list(pull(other, [], there))
    (tree / "a.txt").write_text("here")
    mine = datasets.add(tree)
    (tree / "a.txt").write_text("there")
    theirs = other.add(tree, tags={"by": "them"}, notes="theirs")
    other.get("data").set_alias("gold", 2)
    other.get("data").revoke(1, reason="wrong labels")
    list(push(other, [], there))
    with pytest.raises(HistoriesDiffer, match="`runstone data pull data --as OTHER-NAME`"):
        list(pull(datasets, [], there))
    with pytest.raises(InvalidValue, match="one dataset at a time"):
        list(pull(datasets, [], there, into="theirs"))
    # beside: theirs under another name
    (moved,) = pull(datasets, ["data"], there, into="theirs")
    assert (moved.name, moved.versions) == ("theirs", 2)
    beside = datasets.get("theirs")
    assert [one.hash for one in beside.versions()] == [theirs.hash, other.find("data@1").hash]
    assert (beside.find("gold").recorded.tags, beside.find("gold").recorded.notes) == ({"by": "them"}, "theirs")
    assert beside.find(1).revoked is not None
    assert beside.find(2).recorded.source["copied"]["version"] == 2
    assert list(verify(beside, datasets.blobs)) == []
    # together: theirs behind mine
    (moved,) = pull(datasets, ["data"], there, into="data")
    assert [one.hash for one in datasets.get("data").versions()] == [
        theirs.hash,
        mine.hash,
        datasets.find("data@1").hash,
    ]
    events = len(datasets.get("data").history())
    (again,) = pull(datasets, ["data"], there, into="data")
    assert (again.count, again.events, len(datasets.get("data").history())) == (0, 0, events)
    # mine under another name, which can be pushed
    copied = copy_dataset(datasets, "data", "mine", selector="2")
    assert [(str(one.before), str(one.now), one.is_new) for one in copied] == [("data@2", "mine@1", True)]
    assert [one.is_new for one in copy_dataset(datasets, "data", "mine")] == [True, False, True]
    assert [one.name for one in push(datasets, ["mine"], there)] == ["mine"]
    assert datasets.get("data").verify() == datasets.get("theirs").verify() == []


def test_a_damaged_event_is_not_fetched(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    datasets.add(tree)
    there = Elsewhere(str(tmp_path / "remote"))
    list(push(datasets, [], there))
    event = tmp_path / "remote" / "datasets" / "data" / "events" / "00000002.json"
    event.write_bytes(event.read_bytes().replace(b'"files":3', b'"files":4'))
    other = ensure_workspace(tmp_path / "other" / ".runstone").datasets
    with pytest.raises(LedgerDamaged, match="was changed"):
        list(pull(other, [], there))
    assert "data" not in other


def test_verify_names_what_was_changed(datasets: Datasets, tree: Path, tmp_path: Path) -> None:
    datasets.add(tree)
    (tmp_path / "ref.txt").write_text("ref")
    datasets.add(tmp_path / "ref.txt", store=False)
    assert [*verify(datasets.get("data"), datasets.blobs), *verify(datasets.get("ref.txt"), datasets.blobs)] == []
    (tmp_path / "ref.txt").write_text("changed")
    (problem,) = verify(datasets.get("ref.txt"), datasets.blobs)
    assert (problem.of, problem.file) == ("ref.txt@1", "ref.txt")
    place = datasets.blobs.local_path(hash_of_bytes(b"bb"))
    place.chmod(0o644)
    place.write_bytes(b"xx")
    (problem,) = verify(datasets.get("data"), datasets.blobs)
    assert (problem.of, problem.file) == ("data@1", "sub/b.txt")
    event = datasets.root / "data" / "events" / "00000002.json"
    data = bytearray(event.read_bytes())
    data[40] ^= 1
    event.write_bytes(data)
    (problem,) = verify(Datasets(datasets.workspace).get("data"), datasets.blobs)
    assert problem.of == "history"
    shutil.rmtree(tree)
