"""The model card: what it holds, and that nothing a user wrote gets out of it."""

from __future__ import annotations

import html.parser
from pathlib import Path

import numpy as np

import runstone
from runstone.lineage import revoke
from runstone.models.card import card_of
from tests.models.made import add_dataset, registry, train

EVIL = "<script>alert(1)</script> | `x` \x1b[31m"


class Tags(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "onload", "onclick")]


def test_a_card_says_where_a_version_comes_from_and_what_was_said_of_it(home: Path) -> None:
    add_dataset(home, "loans", 3, "b", url="s3://lake/loans")
    train(home, "a", params={"lr": 0.1, "model": {"depth": 6}}, metrics={"val/auc": 0.9}, data=("loans", "3", "b"))
    model = registry(home)
    model.judge("1.0.0", "approved", reason="measured")
    model.set_stage("1.0.0", "production", reason="go")
    model.set_notes("Scores **loans**.")
    text = card_of(runstone.open_workspace(home), "credit-risk@production").to_markdown()
    for part in (
        "# Model card: credit-risk@1.0.0",
        "Scores **loans**.",
        "| loans | 3 | train |",
        "Raw data: s3://lake/loans",
        "| model.depth | 6 |",
        "| val/auc | 0.9 |",
        "measured",
        "moved 1.0.0 from none to production: go",
        "It has no signature.",
        "data loans@3",
        "No environment was recorded.",
    ):
        assert part in text, part


def test_the_signature_labels_and_environment_are_shown(home: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    x = np.arange(8.0).reshape(4, 2)
    with runstone.start_run(project="p", workspace=home) as run:
        run.log_model(LogisticRegression().fit(x, ["no", "no", "yes", "yes"]), name="m", example=x)
    text = card_of(runstone.open_workspace(home), "m").to_markdown()
    assert "| takes | float64\\[\\*, 2\\] |" in text
    assert "| labels | no, yes |" in text
    assert "| python.version |" in text


def test_nothing_a_user_wrote_becomes_markup(home: Path) -> None:
    train(home, "a", params={EVIL: EVIL}, metrics={EVIL: 1.0}, model=EVIL)
    model = registry(home, EVIL)
    model.set_tags({EVIL: EVIL}, version="1.0.0")
    model.set_notes(EVIL)
    model.judge("1.0.0", "rejected", reason=EVIL)
    card = card_of(runstone.open_workspace(home), f"{EVIL}@1.0.0")
    page = card.to_html()
    tags = Tags(page)
    assert "script" not in tags.names
    assert tags.links == []
    assert "\x1b" not in page
    told = card.to_markdown().replace(EVIL, "", 1)  # notes are Markdown, as their author wrote them
    tables, _heading, tree = told.partition("## Lineage")
    assert "<script>" not in tables
    assert all(line.startswith("    ") for line in tree.splitlines() if line)


def test_what_was_revoked_stands_on_top(home: Path) -> None:
    add_dataset(home, "loans", 3, "b")
    train(home, "a", data=("loans", "3", "b"))
    workspace = runstone.open_workspace(home)
    revoke(workspace, "dataset:loans@3", reason="wrong labels")
    card = card_of(workspace, "credit-risk@1.0.0")
    assert card.warnings == ("revoked: dataset:loans@3: wrong labels",)
    assert "<p class=warning>revoked: dataset:loans@3: wrong labels</p>" in card.to_html()
