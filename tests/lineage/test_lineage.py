"""Lineage from raw data to where a model stands, and back; through resumed, nested and sweep runs; and revocation."""

from __future__ import annotations

import json
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.errors import AmbiguousName, InvalidName, InvalidValue, NotFound, RunNotFound
from runstone.ledger import Ledger
from runstone.lineage import Graph, Lineage, Node, build, revoke
from runstone.models import ModelNotFound
from tests.models.made import add_dataset, registry, train

LOANS = ("loans", "3", "b")


@pytest.fixture
def workspace(home: Path) -> runstone.Workspace:
    """Raw data, cleaned data, three trials of a sweep, two versions, one in production."""
    runstone.open_workspace(_made(home))
    return runstone.open_workspace(home)


def _made(home: Path) -> Path:
    with runstone.start_run(project="credit", name="clean", workspace=home, environment=False) as run:
        run._event("input", kind="dataset", name="raw", version="1", hash="a" * 64)
        run._event("output", kind="dataset", name="loans", version="3", hash="b" * 64)
        add_dataset(home, "loans", 3, "b", run_id=run.id)
    add_dataset(home, "raw", 1, "a", url="s3://lake/raw.csv")
    for number, model in enumerate(("credit-risk", "credit-risk", None)):
        options = {"params": {"lr": number}, "data": LOANS, "group": "search", "model": model}
        train(home, f"trial-{number}", **options)
    registry(home).set_stage("1.1.0", "production")
    registry(home).set_alias("champion", "1.1.0")
    return home


def labels(found: Lineage) -> set[str]:
    return {node.label for node in found.nodes.values()}


def test_from_raw_data_to_production_and_back(workspace: runstone.Workspace) -> None:
    up = workspace.lineage("model:credit-risk@production", down=False)
    assert up.root == "model:credit-risk@1.1.0"
    assert labels(up) == {"credit-risk@1.1.0", "trial-1", "loans@3", "clean", "raw@1", "s3://lake/raw.csv"}
    down = workspace.lineage("source:s3://lake/raw.csv", up=False)
    assert labels(down) == {*labels(up), "trial-0", "trial-2", "credit-risk@1.0.0", "production", "@champion"}
    assert labels(workspace.lineage("dataset:loans@3", up=False, depth=1)) == {
        "loans@3",
        "trial-0",
        "trial-1",
        "trial-2",
    }
    assert [edge.role for edge in down.edges if edge.relation == "used" and "loans" in edge.source] == ["train"] * 3


def test_a_run_is_found_by_id_end_and_name(workspace: runstone.Workspace) -> None:
    run = next(iter(workspace.runs("name = 'trial-1'")))
    for reference in (run.id, f"run:{run.id}", run.id[-8:], "trial-1"):
        assert workspace.lineage(reference).root == f"run:{run.id}"
    with pytest.raises(RunNotFound):
        workspace.lineage("nothing of this name")
    train(workspace.path, "trial-1", model=None)
    with pytest.raises(AmbiguousName):
        workspace.lineage("trial-1")


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("model:nothing@1", ModelNotFound),
        ("model:credit-risk@9", ModelNotFound),
        ("dataset:loans@9", NotFound),
        ("dataset:nothing", NotFound),
        ("source:x", NotFound),
        ("artifact:" + "0" * 64, NotFound),
        ("0" * 64, NotFound),
        ("artifact:xyz", InvalidName),
        ("model:", InvalidName),
        ("../../etc/passwd", RunNotFound),
        ("", RunNotFound),
    ],
)
def test_what_is_not_there_is_told(workspace: runstone.Workspace, reference: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        workspace.lineage(reference)


def test_a_resumed_run_is_one(home: Path) -> None:
    run = train(home, "first", data=LOANS, model=None)
    train(home, "first", run_id=run.id, model="m")
    found = runstone.open_workspace(home).lineage("model:m@1.0.0")
    assert [node.key for node in found.of_kind("run")] == [f"run:{run.id}"]
    assert len(found.of_kind("dataset")) == 1


def test_inner_runs_share_with_the_outer_one_and_not_with_each_other(home: Path) -> None:
    outer = train(home, "outer", data=("all", "1", "a"), model=None)
    train(home, "one", data=("only-one", "1", "b"), model=None, parent=outer.id)
    train(home, "two", data=("only-two", "1", "c"), model="two", parent=outer.id)
    train(home, "outer", run_id=outer.id, model="best")
    workspace = runstone.open_workspace(home)
    up = workspace.lineage("model:two@1.0.0", down=False)
    assert {node.label for node in up.of_kind("dataset")} == {"all@1", "only-two@1"}
    up = workspace.lineage("model:best@1.0.0", down=False)
    assert {node.label for node in up.of_kind("dataset")} == {"all@1", "only-one@1", "only-two@1"}
    down = workspace.lineage("dataset:only-one@1", up=False)
    assert {node.label for node in down.of_kind("model")} == {"best@1.0.0"}
    down = workspace.lineage("dataset:all@1", up=False)
    assert {node.label for node in down.of_kind("model")} == {"best@1.0.0", "two@1.0.0"}
    assert "outer run" in workspace.lineage("model:two@1.0.0").to_tree()


def test_an_artifact_leads_to_its_run_and_to_the_model_that_was_made_of_it(home: Path) -> None:
    (home.parent / "w.bin").write_bytes(b"weights")
    with runstone.start_run(project="p", name="maker", workspace=home, environment=False) as run:
        artifact = run.log_artifact(home.parent / "w.bin")
        run.log_model(str(home.parent / "w.bin"), name="m")
    assert artifact is not None
    content = artifact.files[0].hash
    with runstone.start_run(project="p", name="user", workspace=home, environment=False) as run:
        run._event("input", kind="artifact", name="w.bin", hash=content)
    workspace = runstone.open_workspace(home)
    for reference in (content, f"artifact:{content}", f"artifact:{content[:12]}"):
        found = workspace.lineage(reference)
        assert labels(found) == {"w.bin", "maker", "user", "m@1.0.0"}
    assert labels(workspace.lineage("user")) == {"user", "w.bin", "maker"}


def test_a_model_that_was_used_is_an_ancestor(home: Path) -> None:
    train(home, "teacher", data=LOANS, model="teacher")
    with runstone.start_run(project="p", name="student", workspace=home, environment=False) as run:
        run.use_model("teacher@1.0.0", role="teacher")
        run.log_model(str(home.parent / "teacher.bin"), name="student")
    found = runstone.open_workspace(home).lineage("model:student@1.0.0", down=False)
    assert {"teacher@1.0.0", "loans@3"} <= labels(found)


def test_a_thousand_runs_take_less_than_a_second(home: Path) -> None:
    first = train(home, "first", data=LOANS, model=None, group="search")
    journal = next(first.path.glob("journal.*.jsonl")).read_bytes()
    for number in range(1000):
        run_id = f"{number:032x}"
        folder = first.path.parent / run_id
        folder.mkdir()
        (folder / f"journal.{run_id}.jsonl").write_bytes(journal.replace(first.id.encode(), run_id.encode()))
    begin = time.process_time()
    found = runstone.open_workspace(home).lineage("dataset:loans@3")
    elapsed = time.process_time() - begin
    assert len(found.of_kind("run")) == 1001
    assert elapsed < 1.0
    tree = found.to_tree()
    assert "… and 996 more runs of search that led to nothing" in tree
    assert len(tree.splitlines()) < 20
    assert len(found.to_tree(all_runs=True).splitlines()) > 1000
    assert "996 more runs" in found.to_svg()


def test_a_chain_may_be_longer_than_pythons_stack() -> None:
    graph = Graph()
    for number in range(3000):
        graph.add(Node(f"run:{number}", "run", str(number)))
        graph.join(f"run:{number}", f"run:{number + 1}", "derived")
    found = graph.around("run:0")
    assert len(found.to_tree().splitlines()) > 3000
    assert found.to_svg().count("<rect") > 6000


def test_runs_that_lie_inside_each_other_in_a_circle_end() -> None:
    graph = Graph()
    for one, other in (("run:a", "run:b"), ("run:b", "run:a")):
        graph.add(Node(one, "run", one))
        graph.join(one, other, "nested")
    found = graph.around("run:a")
    assert set(found.nodes) == {"run:a", "run:b"}
    assert "run:b" in found.to_tree()
    assert "run:b" in found.to_svg()


def test_the_picture_is_xml_that_holds_every_node_and_no_markup_of_names(workspace: runstone.Workspace) -> None:
    evil = "<script>x</script>\x00&\"'"
    train(workspace.path, evil.replace("\x00", ""), data=LOANS, model=None, group=evil.replace("\x00", "\x1b"))
    found = workspace.lineage("dataset:raw@1")
    root = ET.fromstring(found.to_svg())
    nodes = [one for one in root.iter("{http://www.w3.org/2000/svg}g") if "node" in str(one.get("class")).split()]
    assert {one.get("data-key") for one in nodes} == set(found.nodes)
    assert "<script" not in found.to_html()
    places = [one.find("{http://www.w3.org/2000/svg}rect") for one in nodes]
    boxes = [(float(str(p.get("x"))), float(str(p.get("y")))) for p in places if p is not None]
    for index, (x, y) in enumerate(boxes):  # no box lies over another
        assert all(abs(x - a) > 100 or abs(y - b) >= 48 for a, b in boxes[index + 1 :])
    dot = found.to_dot()
    assert dot.count("{") == dot.count("}")
    assert '"dataset:raw@1" -> ' in dot


def test_prov_names_only_what_it_declares(workspace: runstone.Workspace) -> None:
    revoke(workspace, "dataset:raw@1", reason="x")
    document: dict[str, Any] = json.loads(json.dumps(workspace.lineage("dataset:raw@1").to_prov()))
    declared = {kind: set(document[kind]) for kind in ("entity", "activity", "agent")}
    wanted = {"entity": "entity", "Entity": "entity", "activity": "activity", "inform": "activity", "agent": "agent"}
    for relation in document.keys() - {"prefix", "entity", "activity", "agent"}:
        for said in document[relation].values():
            for role, name in said.items():
                kind = next((kind for end, kind in wanted.items() if end in role), None)
                if role.startswith("prov:") and kind is not None:
                    assert name in declared[kind], (relation, role, name)
    assert len(document["used"]) == 4
    assert len(document["wasGeneratedBy"]) == 3
    assert len(document["wasInvalidatedBy"]) == 1


# --- revoking ---------------------------------------------------------------------------------------------------------


def test_a_revocation_marks_all_that_descends_now_and_later(workspace: runstone.Workspace) -> None:
    found = revoke(workspace, "dataset:raw@1", reason="a customer asked to be forgotten")
    assert {row["ref"] for row in found.rows() if row["kind"] == "model"} == {
        "model:credit-risk@1.0.0",
        "model:credit-risk@1.1.0",
    }
    assert [node.key for node in found.in_use] == ["model:credit-risk@1.1.0"]
    flagged = [event.fields for event in registry(workspace.path).history() if event.kind == "flagged"]
    assert {said["version"] for said in flagged} == {"1.0.0", "1.1.0"}
    assert {said["from"] for said in flagged} == {"dataset:raw@1"}
    train(workspace.path, "later", data=LOANS, params={"lr": 9})
    later = workspace.lineage("model:credit-risk@latest")
    assert later.tainted[later.root] == ("dataset:raw@1",)
    assert "descends from dataset:raw@1" in later.to_tree()
    train(workspace.path, "other", data=("fresh", "1", "f"), model="fresh")
    assert workspace.lineage("model:fresh@1.0.0").tainted == {}
    assert Ledger(workspace.path / "datasets" / "raw" / "events").verify() == []


def test_the_same_content_under_another_name_is_revoked_too(workspace: runstone.Workspace) -> None:
    add_dataset(workspace.path, "copy-of-raw", 1, "a")
    train(workspace.path, "sly", data=("copy-of-raw", "1", "a"), model="sly")
    revoke(workspace, "dataset:raw@1", reason="wrong")
    graph = build(workspace.path)
    assert graph.causes("model:sly@1.0.0") == {
        "dataset:copy-of-raw@1": "the same content as dataset:raw@1: wrong",
    }


def test_models_and_runs_are_revoked_and_that_is_taken_back(workspace: runstone.Workspace) -> None:
    run = next(iter(workspace.runs("name = 'trial-1'")))
    revoke(workspace, f"run:{run.id}", reason="leaked test data")
    assert build(workspace.path).causes("model:credit-risk@1.1.0") == {f"run:{run.id}": "leaked test data"}
    assert workspace.run(run.id).name == "trial-1"
    revoke(workspace, "model:credit-risk@champion", reason="biased")
    assert len(build(workspace.path).causes("model:credit-risk@1.1.0")) == 2
    revoke(workspace, f"run:{run.id}", reason=None)
    revoke(workspace, "model:credit-risk@1.1.0", reason=None)
    assert build(workspace.path).causes("model:credit-risk@1.1.0") == {}
    with pytest.raises(InvalidValue, match="is not revoked"):
        revoke(workspace, "model:credit-risk@1.1.0", reason=None)


def test_what_cannot_be_revoked_is_told(workspace: runstone.Workspace) -> None:
    for reference, error in (
        ("trial-1", InvalidValue),
        ("dataset:raw", InvalidValue),
        ("stage:credit-risk@production", InvalidValue),
        ("dataset:raw@7", NotFound),
    ):
        with pytest.raises(error):
            revoke(workspace, reference, reason="x")
    with pytest.raises(InvalidValue, match="needs a reason"):
        revoke(workspace, "dataset:raw@1", reason="  ")


def test_graphviz_reads_what_is_written_for_it(workspace: runstone.Workspace) -> None:
    try:
        drawn = subprocess.run(
            ["dot", "-Tplain"], input=workspace.lineage("dataset:raw@1").to_dot(), capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("graphviz is not installed")
    assert drawn.returncode == 0, drawn.stderr


def test_data_that_a_run_used_came_from_its_file_and_not_from_the_run(home: Path, tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text("a\n1\n")
    (tmp_path / "clean.csv").write_text("a\n2\n")
    with runstone.start_run(workspace=home, environment=False, on_error="raise", name="cleaner") as run:
        run.use_dataset(tmp_path / "raw.csv", name="raw")
        run.log_dataset(tmp_path / "clean.csv", name="clean")
    workspace = runstone.open_workspace(home)
    assert not workspace.lineage("dataset:raw@1", down=False).of_kind("run")
    above = workspace.lineage("dataset:clean@1", down=False)
    assert [node.key for node in above.of_kind("run")] == [f"run:{run.id}"]
    assert {node.key for node in above.of_kind("dataset")} == {"dataset:raw@1", "dataset:clean@1"}
    assert [node.label for node in above.of_kind("source")] == [str(tmp_path / "raw.csv")]
