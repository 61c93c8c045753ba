"""`runstone data` as people and scripts use it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runstone.cli.main import run


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tree = tmp_path / "data"
    tree.mkdir()
    (tree / "a.txt").write_text("aaa")
    (tree / "t.csv").write_text("x,y\n1,a\n2,b\n3,c\n")
    return tree


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(["data", *arguments]) == 0
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> object:
    return json.loads(told(capsys, *arguments, "--json"))


def test_add_list_show_and_diff(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "data@1" in told(capsys, "add", "data", "--notes", "first", "--tag", "from=lab")
    assert "data@1" in told(capsys, "add", "data")
    (tree / "a.txt").rename(tree / "b.txt")
    (tree / "t.csv").write_text("x,y\n1,a\n2,b\n4,d\n")
    (tree / "new").write_text("n")
    assert "data@2" in told(capsys, "add", "data")
    assert told(capsys, "list").split()[-7:-3] == ["data", "2", "3", "20"]
    assert len(as_json(capsys, "list", "data")) == 2  # type: ignore[arg-type]
    shown = told(capsys, "show", "data@1", "--profile")
    assert "first" in shown
    assert "from=lab" in shown
    assert "3 rows, 2 columns" in shown
    found = told(capsys, "diff", "data@1", "2")
    assert "a.txt -> b.txt" in found
    assert "1 added, 1 changed, 1 renamed" in found
    assert "rows: 3 became 3; 1 added, 1 removed" in found
    assert "+ x=4, y=d" in found
    difference = as_json(capsys, "diff", "data@1", "data@2")
    assert isinstance(difference, dict)
    assert [one["path"] for one in difference["renamed"]] == ["b.txt"]
    assert difference["rows"]["added_samples"] == [{"x": 4, "y": "d"}]


def test_checkout_refuses_to_lose_work(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "add", "data")
    (tree / "a.txt").write_text("second")
    told(capsys, "add", "data")
    assert "wrote 1 file to" in told(capsys, "checkout", "data@1")
    assert (tree / "a.txt").read_text() == "aaa"
    (tree / "a.txt").write_text("local")
    assert run(["data", "checkout", "data@2"]) == 1
    assert "'a.txt' changed" in capsys.readouterr().err
    told(capsys, "checkout", "data@2", "--force")
    assert (tree / "a.txt").read_text() == "second"


def test_push_pull_and_verify(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "add", "data")
    assert "sent 4 files" in told(capsys, "push", "--to", "remote")
    assert "sent 0 files" in told(capsys, "push", "--to", "remote")
    other = ["-w", str(tmp_path / "other")]
    assert "fetched 4 files" in told(capsys, "pull", "--from", "remote", *other)
    assert "all as recorded" in told(capsys, "verify", *other)
    told(capsys, "checkout", "data", "out", *other)
    assert (tmp_path / "out" / "a.txt").read_text() == "aaa"
    (blob,) = [
        path for path in (tmp_path / "other" / "blobs").rglob("*") if path.is_file() and path.stat().st_size == 3
    ]
    os.chmod(blob, 0o644)  # noqa: PTH101
    blob.write_text("bbb")
    assert run(["data", "verify", *other]) == 1
    assert "data@1: a.txt: " in capsys.readouterr().out


def test_words_on_versions(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "add", "data")
    assert "data@gold is data@1" in told(capsys, "alias", "data@1", "gold")
    assert "checked=yes" in told(capsys, "tag", "data@gold", "checked=yes")
    told(capsys, "revoke", "data@gold", "--reason", "wrong labels")
    assert "revoked" in told(capsys, "list", "data")
    assert as_json(capsys, "show", "data")["revoked"] == "wrong labels"  # type: ignore[index]
    told(capsys, "revoke", "data@1", "--undo")
    assert "revoked" not in told(capsys, "list", "data")
    assert run(["data", "revoke", "data", "--reason", "x"]) == 2


def test_import_and_update(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fsspec")
    url = f"file://{tree}/a.txt"
    assert "imported@1" in told(capsys, "import", url, "--name", "imported")
    assert "is up to date" in told(capsys, "update", "imported")
    (tree / "a.txt").write_text("changed")
    assert "imported@2" in told(capsys, "update", "imported")
    assert "by reference" in told(capsys, "import", url, "--name", "pinned", "--no-download")


def test_names_cannot_steer_the_terminal(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "evil\x1b[2J.txt").write_text("x")
    told(capsys, "add", "data", "--name", "bad\x1b[31m")
    for arguments in (["list"], ["show", "bad\x1b[31m", "--files"]):
        assert "\x1b" not in told(capsys, *arguments)


def test_mistakes_are_told_in_a_line(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "add", "nothing"]) == 1
    assert "there is no file or folder" in capsys.readouterr().err
    assert run(["data", "show", "nope"]) == 1
    assert "no dataset has the name 'nope'" in capsys.readouterr().err
    assert run(["data", "ad"]) == 2
    assert "did you mean 'add'" in capsys.readouterr().err
    told(capsys, "add", "data")
    assert run(["data", "push"]) == 1
    assert "name a folder or URL" in capsys.readouterr().err
