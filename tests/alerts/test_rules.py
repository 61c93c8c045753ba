"""What `alerts.yaml` may say, and what is said of its mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.alerts import FILE, parse_alerting, read_alerting
from runstone.errors import InvalidConfig


def one(entry: Any) -> Any:
    return parse_alerting({"alerts": [entry]}).rules[0]


def test_a_kind_alone_is_a_rule_with_its_usual_values() -> None:
    rule = one("stalled")
    assert (rule.name, rule.level, rule.after_s) == ("stalled", "warning", 600.0)
    assert one("diverged").factor == 3.0
    assert one("ended").statuses == ("failed", "crashed")
    assert one("disk_full").free_share == 0.05


def test_durations_and_sizes_have_units() -> None:
    assert one({"when": "stalled", "after": "1h30m"}).after_s == 5400.0
    assert one({"when": "stalled", "after": 90}).after_s == 90.0
    assert one({"when": "disk_full", "below": "5GB"}).free_bytes == 5 * 10**9
    assert one({"when": "disk_full", "below": "1.5 GiB"}).free_bytes == 3 * 2**29


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("nonsense", "when must be one of"),
        (3, "must be a kind"),
        ({"when": "nan", "above": 3}, "above is not a key of nan"),
        ({"when": "metric", "metric": "x"}, "needs either above or below"),
        ({"when": "metric", "metric": "x", "above": 1, "below": 2}, "needs either above or below"),
        ({"when": "metric", "above": 1}, "metric must be the name"),
        ({"when": "metric", "metric": "x", "above": float("nan")}, "above must be a number"),
        ({"when": "metric", "metric": "x", "above": True}, "above must be a number"),
        ({"when": "no_improvement", "metric": "x"}, "needs either after"),
        ({"when": "no_improvement", "metric": "x", "points": 0}, "points must be a whole number"),
        ({"when": "no_improvement", "metric": "x", "points": 3, "goal": "up"}, "goal must be"),
        ({"when": "stalled", "after": "10 parsecs"}, "after must be a duration"),
        ({"when": "stalled", "after": -1}, "after must be a duration"),
        ({"when": "disk_full", "below": "5"}, "a share or a size"),
        ({"when": "ended", "status": ["running"]}, "status must be some of"),
        ({"when": "diverged", "factor": 0.5}, "factor must be a number above 1"),
        ({"when": "nan", "level": "loud"}, "level must be one of"),
    ],
)
def test_mistakes_of_rules_are_named(entry: Any, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        parse_alerting({"alerts": [entry]})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "x"}, "needs one of"),
        ({"command": ["a"], "url": "http://x"}, "needs one of"),
        ({"command": "rm -rf"}, "must be a list of texts"),
        ({"url": "ftp://x"}, "http or https"),
        ({"url": "http://x", "format": "morse"}, "format must be one of"),
        ({"url": "http://x", "secret": "hunter2"}, "never the secret itself"),
        ({"command": ["a"], "secret": {"env": "X"}}, "only a url is signed"),
        ({"mail": {"to": ["me"], "from": "a@b"}}, "needs to and from"),
        ({"mail": {"to": "me@x.org", "from": "a@b", "server": "host"}}, "host:port"),
        ({"mail": {"to": "me@x.org\nBcc: you@x.org", "from": "a@b"}}, "needs to and from"),
        ({"desktop": "yes"}, "desktop must be true"),
        ({"name": "../x", "desktop": True}, "name must be"),
    ],
)
def test_mistakes_of_targets_are_named(entry: Any, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        parse_alerting({"deliver": [entry]})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InvalidConfig) as told:
        parse_alerting({"alerts": ["x", "y"], "deliver": [{}], "trials": 3})
    assert len(str(told.value).splitlines()) == 4


def test_rules_of_the_code_come_before_those_of_the_workspace(home: Path) -> None:
    workspace = runstone.ensure_workspace(home)
    (workspace.path / FILE).write_text("alerts: [nan]\ndeliver: [{name: me, desktop: true}]\n")
    both = read_alerting(workspace.path, ["stalled"])
    assert [rule.name for rule in both.rules] == ["stalled", "nan"]
    assert parse_alerting(__import__("json").loads(both.to_json())) == both


def test_two_rules_with_one_name_are_a_mistake() -> None:
    with pytest.raises(InvalidConfig, match="'nan' stands there twice"):
        parse_alerting({"alerts": ["nan", "nan"]})


def test_no_file_means_no_rules(home: Path) -> None:
    assert not read_alerting(runstone.ensure_workspace(home).path)
