"""`runstone models` as people and CI use it: exit codes, formats, and no traceback for anything a user can type."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.cli.main import run
from tests.models.made import registry, train

EVIL = "m\x1b[31m/../../x"


@pytest.fixture
def home(home: Path) -> Path:
    train(home, "a", params={"lr": 1}, metrics={"auc": 0.8}, data=("loans", "3", "b"))
    train(home, "b", params={"lr": 2}, metrics={"auc": 0.9}, data=("loans", "3", "b"))
    return home


class Ran:
    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.code = run(list(arguments))
        self.out, self.err = capsys.readouterr()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def models(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *arguments: Ran(capsys, "models", *arguments)


def test_the_life_of_a_version(home: Path, models: Any) -> None:
    assert models("approve", "credit-risk@1.0.0", "--reason", "fine").code == 0
    assert models("promote", "credit-risk@1.0.0", "production", "--reason", "first").code == 0
    found = models("promote", "credit-risk@1.1.0", "production", "--format", "json")
    assert found.code == 0
    assert (found.json["promoted"], found.json["replaced"]) == (True, ["1.0.0"])
    assert models("alias", "champion", "credit-risk@1.1.0").out == "champion points to credit-risk@1.1.0\n"
    assert models("tag", "credit-risk@champion", "market=eu").out == "market=eu\n"
    assert models("tag", "credit-risk", "team=risk").code == 0
    assert models("note", "credit-risk", "Scores loans.").code == 0
    assert "production 1.1.0, @champion 1.1.0" in models("list").out
    assert [one["name"] for one in models("list", "--tag", "market=eu", "--text", "LOANS", "--json").json] == [
        "credit-risk"
    ]
    assert models("list", "--tag", "market=us").out == "no model matches\n"
    shown = models("show", "credit-risk@champion")
    assert "auc 0.9" in shown.out
    assert "proposed 1.1.0: other params: lr 1 → 2" in shown.out
    assert models("show", "credit-risk@1.0.0", "--json").json["approval"]["reason"] == "fine"
    assert "Scores loans." in models("show", "credit-risk").out
    assert "is in production again" in models("rollback", "credit-risk", "production", "--reason", "errors").out
    assert models("withdraw", "credit-risk@1.1.0", "--reason", "x").code == 1  # the alias
    assert models("alias", "champion", "credit-risk", "--remove").code == 0
    assert models("withdraw", "credit-risk@1.1.0", "--reason", "x").code == 0
    assert models("stages", "credit-risk").out.splitlines()[2] == "production: 1.0.0"
    history = models("history", "credit-risk").out
    assert "rolled back to 1.0.0 from archived to production, replacing 1.1.0" in history
    assert models("reject", "credit-risk@1.0.0", "--reason", "slow").code == 0
    assert models("verify").code == 0


def test_deployments_and_incidents_are_told_and_shown(home: Path, models: Any) -> None:
    told = models("deployed", "credit-risk@1.0.0", "eu", "--replicas", "3", "--url", "https://eu.example.org")
    assert told.out == "credit-risk@1.0.0 is at eu\n"
    assert models("deployed", "credit-risk@1.1.0", "eu").code == 0
    registry(home).open_incident("1.1.0", kind="drift", summary="amount shifted")
    model = models("show", "credit-risk").out
    assert "deployed: eu 1.1.0" in model
    assert "open incident credit-risk#1 drift of 1.1.0: amount shifted" in model
    version = models("show", "credit-risk@1.1.0")
    assert "eu: since" in version.out
    assert "#1 drift" in version.out
    found = models("show", "credit-risk@1.0.0", "--json").json
    assert [(one["target"], one["replicas"], one["ended_at"] is None) for one in found["deployments"]] == [
        ("eu", 3, False)
    ]
    assert "opened incident #1 (drift) of 1.1.0: amount shifted" in models("history", "credit-risk").out
    assert [one["number"] for one in models("incidents", "--json").json] == [1]
    registry(home).close_incident(1, reason="seasonal")
    assert models("incidents").out == "no open incidents\n"
    assert "seasonal" in models("incidents", "credit-risk", "--all").out
    assert (
        models("undeployed", "credit-risk", "eu", "--reason", "end").out == "credit-risk@1.1.0 is not at eu any more\n"
    )
    assert models("undeployed", "credit-risk", "eu").code == 1
    assert models("deployed", "credit-risk@1.1.0", "eu", "--replicas", "-1").code == 2


def test_a_refusal_exits_with_1_and_says_every_reason(home: Path, models: Any) -> None:
    gates = home.parent / "gates.yaml"
    gates.write_text("gates: {production: [{metric: {name: auc, min: 0.95}}, {approval: approved}]}")
    for form in ("text", "markdown", "json"):
        for dry in ([], ["--dry-run"]):
            arguments = ["credit-risk@1.1.0", "production", "--gates", str(gates), "--format", form, *dry]
            refused = models("promote", *arguments)
            assert refused.code == 1
            assert "auc is at least 0.95" in refused.out
            assert "it is pending" in refused.out
    assert [event.kind for event in registry(home).history()].count("refused") == 3
    assert (
        "refused 1.1.0 for production: auc is at least 0.95: it is 0.9; it is approved: it is pending"
        in models("history", "credit-risk").out
    )
    gates.write_text("gates: {production: [{metric: {name: auc, min: 0.85}}]}")
    assert models("promote", "credit-risk@1.1.0", "production", "--gates", str(gates)).code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "nothing"], 1),
        (["show", "credit-risk@9"], 1),
        (["show", "credit-risk@"], 1),
        (["show", "credit-risk@1.0.0?as_of=yesterday"], 2),
        (["show", "../../etc/passwd"], 1),
        (["show", "a\0b"], 1),
        (["promote", "credit-risk", "production"], 2),
        (["promote", "credit-risk@1.0.0", "prod"], 2),
        (["promote", "credit-risk@1.0.0", "production", "--gates", "/no/such/file"], 2),
        (["alias", "latest", "credit-risk@1.0.0"], 1),
        (["alias", "1.0", "credit-risk@1.0.0"], 1),
        (["alias", "production", "credit-risk@1.0.0"], 1),
        (["alias", "../x", "credit-risk@1.0.0"], 1),
        (["tag", "credit-risk"], 2),
        (["tag", "credit-risk", "nonsense"], 2),
        (["rollback", "credit-risk", "production", "--reason", "x"], 1),
        (["rollback", "credit-risk", "production"], 2),
        (["at", "the day before"], 2),
        (["register", "m", "/no/such/file"], 1),
        (["register", "m@1", "pyproject.toml"], 1),
        (["copy", "credit-risk@9", "--to", "elsewhere"], 1),
        (["compare", "credit-risk@1.0.0", "credit-risk@9"], 1),
        (["stages", "credit-risk", "1.0"], 1),
        (["hooks", "test", "x"], 1),
        (["note", "credit-risk"], 2),
        (["nonsense"], 2),
    ],
)
def test_what_cannot_be_done_is_told_without_a_traceback(
    home: Path, models: Any, arguments: list[str], code: int
) -> None:
    found = models(*arguments)
    assert found.code == code, found.err
    assert "error:" in found.err
    assert "Traceback" not in found.err


def test_what_stood_on_a_day_is_answered(home: Path, models: Any) -> None:
    registry(home).set_stage("1.0.0", "production")
    (found,) = models("at", "2099-01-01", "--json").json
    assert (found["model"], found["stage"], found["version"]) == ("credit-risk", "production", "1.0.0")
    assert models("at", "2020-01-01").out == "nothing stood in a stage or under an alias then\n"


def test_two_versions_are_compared(home: Path, models: Any) -> None:
    found = models("compare", "credit-risk@1.0.0", "credit-risk@1.1.0", "--json").json
    assert found["metrics"] == {"auc": {"left": 0.8, "right": 0.9}}
    assert found["params"] == {"lr": {"left": 1, "right": 2}}
    assert found["data"] == {}
    text = models("compare", "credit-risk@1.0.0", "credit-risk@1.1.0").out
    assert "+0.1" in text
    assert "Data: no difference" in text


def test_files_and_artifacts_of_runs_are_registered(home: Path, models: Any) -> None:
    folder = home.parent / "weights"
    folder.mkdir()
    (folder / "w.bin").write_bytes(b"w")
    with runstone.start_run(project="p", name="maker", params={"lr": 3}, workspace=home, environment=False) as made:
        made.log({"auc": 0.7}, step=0)
        made.log_artifact(folder)
        made.log_artifact(folder / "w.bin", name="one")
    dry = models("register", "other", "maker:weights", "--dry-run")
    assert dry.out == "other 1.0.0\n  major: it is the first version\n"
    assert models("show", "other").code == 1
    assert models("register", "other", "maker").code == 1  # which of the two?
    assert models("register", "other", "maker:weights", "--tag", "a=b").code == 0
    found = models("show", "other@1.0.0", "--json").json
    assert (found["run"], found["tags"], found["content"]["metrics"]) == (made.id, {"a": "b"}, {"auc": 0.7})
    assert [file["path"] for file in found["content"]["files"]] == ["w.bin"]
    assert models("register", "other", str(folder / "w.bin"), "--version", "0.9.0").code == 2  # lower, without a reason
    arguments = ["--version", "0.9.0", "--reason", "an old one"]
    assert models("register", "other", str(folder / "w.bin"), *arguments).code == 0
    assert models("load-check", "other@1.0.0").out.startswith("other@1.0.0 loads as files")


def test_a_changed_byte_is_named(home: Path, models: Any) -> None:
    workspace = runstone.open_workspace(home)
    content = models("show", "credit-risk@1.1.0", "--json").json["content"]["files"][0]["hash"]
    head = models("verify", "--json").json["heads"]["credit-risk"]
    assert head == registry(home).ledger.head
    path = workspace.blobs.local_path(content)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    event = registry(home).ledger.folder / "00000002.json"
    event.write_bytes(event.read_bytes().replace(b'"1.0.0"', b'"1.0.9"'))
    found = models("verify")
    assert found.code == 1
    assert "00000002.json: it was changed" in found.out
    assert "credit-risk@1.1.0: b.bin" in found.out
    first = registry(home).ledger.folder / "00000001.json"
    first.unlink()
    gone = models("verify")
    assert (gone.code, "the event is missing" in gone.out) == (1, True)


def test_a_version_is_copied_with_its_content(home: Path, models: Any, tmp_path: Path) -> None:
    other = tmp_path / "prod" / ".runstone"
    assert models("copy", "credit-risk@1.1.0", "--to", str(other)).code == 0
    assert models("copy", "credit-risk@1.1.0", "--to", str(other)).code == 0  # again changes nothing
    there = registry(other)
    assert [str(one) for one in there.versions()] == ["credit-risk@1.1.0"]
    assert there.find("1.1.0").manifest == registry(home).find("1.1.0").manifest
    assert models("verify", "-w", str(other)).code == 0
    assert models("card", "credit-risk@1.1.0", "-w", str(other)).code == 0
    taken = models("copy", "credit-risk@1.0.0", "--to", str(other), "--as", "credit-risk@1.1.0")
    assert (taken.code, "give this one another name or number there" in taken.err) == (1, True)
    assert models("copy", "credit-risk@1.0.0", "--to", str(other), "--as", "credit-risk@9.0.0").code == 0
    assert models("copy", "credit-risk@1.0.0", "--to", str(other), "--as", "renamed").code == 0
    assert str(registry(other, "renamed").find()) == "renamed@1.0.0"


def test_what_is_not_there_is_copied_nowhere(home: Path, models: Any, tmp_path: Path) -> None:
    assert models("copy", "credit-risk@9", "--to", str(tmp_path / "nowhere")).code == 1
    assert not (tmp_path / "nowhere").exists()


def test_a_card_is_written_as_markdown_or_page(home: Path, models: Any, tmp_path: Path) -> None:
    assert models("card", "credit-risk@1.0.0").out.startswith("# Model card: credit-risk@1.0.0")
    page = tmp_path / "card.html"
    assert models("card", "credit-risk@1.0.0", "-o", str(page)).code == 0
    assert page.read_text().startswith("<!doctype html>")


def test_names_cannot_steer_the_terminal_nor_reach_out_of_the_workspace(home: Path, models: Any) -> None:
    train(home, "evil", model=EVIL)
    registry(home, EVIL).set_notes("\x1b[2J")
    registry(home, EVIL).set_tags({"\x1b[31m": "\x1b[0m"})
    for arguments in (
        ["list"],
        ["show", EVIL],
        ["show", f"{EVIL}@1.0.0"],
        ["history", EVIL],
        ["stages", EVIL],
        ["verify"],
    ):
        found = models(*arguments)
        assert found.code == 0
        assert "\x1b" not in found.out
    assert not (home.parent / "x").exists()


def test_hooks_are_listed_tried_and_told(home: Path, models: Any) -> None:
    assert models("hooks", "list").out.startswith("no hooks; write ")
    code = "import sys; sys.exit('refused by me')"
    command = json.dumps([sys.executable, "-c", code])
    (home / "hooks.yaml").write_text(f"hooks: [{{name: ci, on: [alias], command: {command}}}]")
    tried = models("hooks", "test", "ci")
    assert (tried.code, tried.out) == (1, "not taken: exit code 1\nrefused by me\n\n")
    found = models("alias", "champion", "credit-risk@1.0.0")
    assert found.code == 0
    assert found.err == "hook ci: failed (exit code 1); it is tried again later\n"
    assert models("hooks", "list").out.splitlines()[1].split()[-1] == "1"
    assert models("hooks", "run").code == 1
    (home / "hooks.yaml").write_text(f"hooks: [{{name: ci, on: [alias], command: [{sys.executable}, -c, pass]}}]")
    assert models("hooks", "run").out == "ci: alias of credit-risk: delivered (exit code 0)\n"
    assert models("hooks", "run").out == "nothing is waiting\n"
