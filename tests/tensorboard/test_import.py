"""Event files as runs: of tensorboardX, of TensorFlow's kind, torn, growing, moved, copied."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import runstone
from runstone.cli.imports import import_group
from runstone.tensorboard.importer import ImportedFolder, import_logdir
from runstone.tensorboard.protos import Event, HParamsPluginData, SessionLog, Summary, TensorProto
from runstone.tensorboard.records import framed
from runstone.workspace import Workspace, ensure_workspace

Write = Callable[..., Path]
Scalar = Callable[[str, float], Any]
T0 = 1.7e9


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "logs"


@pytest.fixture
def workspace(home: Path) -> Workspace:
    return ensure_workspace(home)


def imported(workspace: Workspace, logdir: Path) -> list[ImportedFolder]:
    return list(import_logdir(workspace, logdir, project="tb"))


def one(workspace: Workspace, logdir: Path) -> tuple[ImportedFolder, runstone.RunInfo]:
    (result,) = imported(workspace, logdir)
    return result, workspace.run(result.run_id)


def tensor(tag: str, plugin: str = "", **fields: Any) -> Any:
    value = Summary.Value(tag=tag, tensor=TensorProto(**fields))
    if plugin:
        value.metadata.plugin_data.plugin_name = plugin
    return value


def text(tag: str, content: str) -> Any:
    return tensor(tag, "text", dtype=7, string_val=[content.encode()])


def test_what_tensorboardx_writes_becomes_a_run(logs: Path, workspace: Workspace) -> None:
    import tensorboardX

    with tensorboardX.SummaryWriter(str(logs / "exp" / "r1")) as writer:
        for step in range(50):
            writer.add_scalar("train/loss", 1 / (step + 1), step, walltime=T0 + step)
        writer.add_scalar("val/loss", math.nan, 49, walltime=T0 + 50)
        writer.add_histogram("weights", np.arange(10.0), 1)
        writer.add_image("picture", np.zeros((3, 2, 2)), 1)
        writer.add_text("kind", "baseline", 0)
        for step in range(3):
            writer.add_text("sample", f"line\nof step {step}", step)
        writer.add_hparams({"lr": 0.1, "model": "mlp", "deep": True}, {"val/best": 0.5}, name="h")
    results = imported(workspace, logs)
    assert [(result.name, result.outcome) for result in results] == [("exp/r1", "new"), ("exp/r1/h", "new")]
    info, hparams = (workspace.run(result.run_id) for result in results)
    series = info.series("train/loss")
    assert series.step.tolist() == list(range(50))
    assert series.wall_s.tolist() == [T0 + step for step in range(50)]
    assert series.value.tolist() == [float(np.float32(1 / (step + 1))) for step in range(50)]
    assert math.isnan(info.metrics["val/loss"].last)
    assert info.tags == {"kind": "baseline", "imported_from": "tensorboard"}
    assert info.series("sample").value.tolist() == [f"line\nof step {step}" for step in range(3)]
    assert info.notes is None
    assert (info.group, info.project, info.status) == ("exp", "tb", runstone.Status.FINISHED)
    assert info.record_names == ["kind", "picture", "sample", "weights"]
    assert (results[0].not_carried, info.warnings) == ({}, ())
    assert (results[0].media_in, results[0].media_added, results[0].media_held) == (6, 6, 6)
    assert hparams.params == {"lr": 0.1, "model": "mlp", "deep": True}
    assert hparams.metrics["val/best"].last == 0.5


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")  # TensorBoard's own
def test_what_torch_writes_becomes_a_run(logs: Path, workspace: Workspace) -> None:
    pytest.importorskip("tensorboard")
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter(str(logs / "r"))
    for step in range(10):
        writer.add_scalar("loss", 0.5, step, walltime=T0 + step)
        writer.add_scalar("new", 0.5, step, walltime=T0 + step, new_style=True)
    writer.close()
    result, info = one(workspace, logs)
    assert (result.points_in, result.points_added, result.points_held) == (20, 20, 20)
    assert info.series("new").wall_s.tolist() == [T0 + step for step in range(10)]


def number(kind: int, dtype: str, value: float) -> Any:
    return {"dtype": kind, "tensor_content": np.array(value, dtype).tobytes()}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (number(1, "<f4", 0.5), 0.5),
        (number(2, "<f8", 0.1), 0.1),
        (number(3, "<i4", -7), -7),
        (number(4, "<u1", 200), 200),
        (number(5, "<i2", -300), -300),
        (number(6, "<i1", -3), -3),
        (number(9, "<i8", 2**60), 2**60),
        (number(10, "?", 1), True),
        (number(17, "<u2", 65535), 65535),
        (number(19, "<f2", 0.25), 0.25),
        ({"dtype": 14, "tensor_content": (0x3F80).to_bytes(2, "little")}, 1.0),
        ({"dtype": 1, "float_val": [0.5]}, 0.5),
        ({"dtype": 2, "double_val": [0.1]}, 0.1),
        ({"dtype": 3, "int_val": [7]}, 7),
        ({"dtype": 9, "int64_val": [2**60]}, 2**60),
        ({"dtype": 10, "bool_val": [True]}, True),
        ({"dtype": 14, "half_val": [0x3F80]}, 1.0),
        ({"dtype": 19, "half_val": [0x3C00]}, 1.0),
        ({"dtype": 1}, 0.0),
    ],
)
def test_scalars_of_tensorflow_2_are_points(
    logs: Path, workspace: Workspace, write_events: Write, fields: dict[str, Any], expected: float
) -> None:
    events = [(step, T0 + step, tensor("x", "scalars" if step == 0 else "", **fields)) for step in range(2)]
    write_events(logs / "run" / "events.out.tfevents.1", *events)
    _result, info = one(workspace, logs)
    assert info.series("x").value.tolist() == [expected, expected]
    assert type(info.series("x").value.tolist()[0]) is type(expected)


def test_what_is_no_scalar_is_counted_by_kind(logs: Path, workspace: Workspace, write_events: Write) -> None:
    write_events(
        logs / "run" / "events.out.tfevents.1",
        (0, T0, Summary.Value(tag="x", simple_value=1.0)),
        (0, T0, tensor("h", "histograms", dtype=2, double_val=[1, 2, 3])),
        (1, T0, tensor("h", dtype=2, double_val=[1, 2, 3])),
        (0, T0, tensor("i", "images", dtype=7, string_val=[b"1", b"1"])),
        (0, T0, tensor("v", "pr_curves", dtype=1)),
        (0, T0, tensor("two", "scalars", dtype=1, float_val=[1, 2])),
        (0, T0, tensor("complex", dtype=8)),
        (0, T0, Summary.Value(tag="a", audio=Summary.Audio(sample_rate=1))),
        (0, T0, Summary.Value(tag="", simple_value=1.0)),
        (0, T0, Summary.Value(tag="x\0", simple_value=1.0)),
        Event(graph_def=b"graph"),
        Event(session_log=SessionLog(status=SessionLog.START), step=3),
        Event(step=1),
    )
    result, info = one(workspace, logs)
    assert list(info.metrics) == ["x"]
    assert result.not_carried == {
        "audio that cannot be read": 1,
        "graph": 1,
        "histogram that cannot be read": 2,
        "image that is empty": 1,
        "point without a legal name": 2,
        "precision-recall curve": 1,
        "tensor": 2,
    }


def test_a_restart_that_goes_back_keeps_all_points(
    logs: Path, workspace: Workspace, write_events: Write, scalar: Scalar
) -> None:
    for file, first in enumerate((0, 6)):
        steps = range(first, first + 10)
        events = [(step, T0 + 100 * file + step, scalar("loss", step + 100 * file)) for step in steps]
        write_events(logs / "r" / f"events.out.tfevents.{file}.host", *events)
    result, info = one(workspace, logs)
    assert info.series("loss").step.tolist() == [*range(10), *range(6, 16)]
    assert info.series("loss").value.tolist() == [*range(10), *range(106, 116)]
    assert (result.files, result.points_held) == (2, 20)


def test_names_of_any_kind_are_kept(logs: Path, workspace: Workspace, write_events: Write, scalar: Scalar) -> None:
    names = ["../../x", "/abs", "a\nb", "💡", "<script>", "x" * 1024]
    for name in ("..x", "-rf", "ä b"):
        write_events(logs / name / "events.out.tfevents.1", (0, T0, *(scalar(tag, 1.0) for tag in names)))
    results = imported(workspace, logs)
    assert [result.name for result in results] == ["-rf", "..x", "ä b"]
    for result in results:
        assert set(workspace.run(result.run_id).metrics) == set(names)


def test_a_file_torn_at_any_byte_of_its_last_record_is_taken_up_to_there(
    logs: Path, home: Path, write_events: Write, scalar: Scalar
) -> None:
    path = write_events(logs / "r" / "events.out.tfevents.1", *((s, T0 + s, scalar("x", s)) for s in range(3)))
    whole = path.read_bytes()
    last = len(framed(Event(step=2, wall_time=T0 + 2, summary=Summary(value=[scalar("x", 2)])).SerializeToString()))
    workspace = ensure_workspace(home)
    for length in range(1, last):
        path.write_bytes(whole[: len(whole) - last + length])
        result, info = one(workspace, logs)
        assert info.series("x", attempt="all").step.tolist() == [0, 1]
        assert result.losses.torn_bytes == length
        assert result.outcome == ("new" if length == 1 else "unchanged")
    path.write_bytes(whole)
    result, info = one(workspace, logs)
    assert (result.outcome, result.points_added) == ("grown", 1)
    assert info.series("x", attempt="all").step.tolist() == [0, 1, 2]


def test_importing_again_adds_nothing(logs: Path, workspace: Workspace, write_events: Write, scalar: Scalar) -> None:
    same = (7, T0, scalar("x", math.nan))  # repeated points are points
    write_events(logs / "r" / "events.out.tfevents.1", same, same, (8, T0, scalar("x", 0.1)), (0, T0, text("t", "u")))
    first, before = one(workspace, logs)
    files = sorted(before.path.iterdir())
    again, _info = one(workspace, logs)
    assert (first.outcome, again.outcome) == ("new", "unchanged")
    assert (again.points_in, again.points_added, again.points_held) == (3, 0, 3)
    assert sorted(before.path.iterdir()) == files


def test_files_that_grew_add_their_new_points(
    logs: Path, workspace: Workspace, write_events: Write, scalar: Scalar
) -> None:
    path = logs / "r" / "events.out.tfevents.1"
    write_events(path, *((step, T0 + step, scalar("x", 0.1)) for step in range(5)))
    one(workspace, logs)
    write_events(path, *((step, T0 + step, scalar("x", 0.1), scalar("y", 1.0)) for step in range(5, 9)))
    write_events(logs / "r" / "events.out.tfevents.2", (3, T0 + 20, scalar("x", 0.5)), (0, T0, text("t", "u")))
    result, info = one(workspace, logs)
    assert (result.outcome, result.points_in, result.points_added, result.points_held) == ("grown", 14, 9, 14)
    assert info.series("x").step.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 3]
    assert info.series("y").step.tolist() == [5, 6, 7, 8]
    assert info.tags["t"] == "u"
    assert (info.status, len(info.attempts)) == (runstone.Status.FINISHED, 1)
    assert info.duration_s == pytest.approx(20)
    assert one(workspace, logs)[0].outcome == "unchanged"


def test_a_run_is_known_where_its_files_were_moved_to(
    logs: Path, workspace: Workspace, write_events: Write, scalar: Scalar, tmp_path: Path
) -> None:
    write_events(logs / "a" / "r" / "events.out.tfevents.1", (0, T0, scalar("x", 1.0)))
    first, _info = one(workspace, logs)
    assert imported(workspace, logs / "a")[0].run_id == first.run_id
    logs.rename(tmp_path / "elsewhere")
    moved, _info = one(workspace, tmp_path / "elsewhere")
    assert (moved.run_id, moved.outcome) == (first.run_id, "unchanged")


def test_a_copy_is_not_mixed_into_its_original(
    logs: Path, workspace: Workspace, write_events: Write, scalar: Scalar
) -> None:
    path = write_events(logs / "a" / "r" / "events.out.tfevents.1", (0, T0, scalar("x", 1.0)))
    shutil.copytree(logs / "a", logs / "b")
    write_events(logs / "b" / "r" / "events.out.tfevents.2", (1, T0, scalar("x", 9.0)))
    original, copy = imported(workspace, logs)
    assert (original.outcome, copy.outcome, copy.original) == ("new", "copy", str(path.parent))
    assert len(workspace.run(original.run_id).series("x")) == 1
    assert [result.outcome for result in imported(workspace, logs)] == ["unchanged", "copy"]


def test_a_deleted_run_stays_deleted(logs: Path, workspace: Workspace, write_events: Write, scalar: Scalar) -> None:
    write_events(logs / "r" / "events.out.tfevents.1", (0, T0, scalar("x", 1.0)))
    first, _info = one(workspace, logs)
    workspace.delete(first.run_id)
    (again,) = imported(workspace, logs)
    assert again.outcome == "deleted"


def test_folders_without_anything_to_carry_make_no_run(
    logs: Path, workspace: Workspace, write_events: Write, tmp_path: Path
) -> None:
    write_events(logs / "graph" / "events.out.tfevents.1", Event(graph_def=b"g"))
    (logs / "none").mkdir()
    (logs / "none" / "events.out.tfevents.1").write_bytes(b"")
    (logs / "zeros").mkdir()
    (logs / "zeros" / "events.out.tfevents.1").write_bytes(bytes(4096))
    (logs / "loop").symlink_to(logs)
    results = imported(workspace, logs)
    assert [(result.source.name, result.outcome) for result in results] == [
        ("graph", "empty"),
        ("none", "empty"),
        ("zeros", "empty"),
    ]
    assert list(workspace.run_folders()) == []
    with pytest.raises(runstone.NotFound, match="no folder"):
        imported(workspace, tmp_path / "nowhere")


def test_texts_stay_by_step_and_become_tags_and_params(logs: Path, workspace: Workspace, write_events: Write) -> None:
    write_events(
        logs / "r" / "events.out.tfevents.1",
        (0, T0, text("args/text_summary", json.dumps({"lr": 0.1, "nested": {"a": [1, 2]}}))),
        (0, T0, text("commit", "abc123 ")),
        (3, T0 + 3, text("story", "word " * 100)),
        (4, T0 + 4, text("story", "x" * 100_000)),
        (0, T0, text("mood", "good")),
        (1, T0, text("mood", "bad")),
        (0, T0, text("broken", '{"a":')),
        (0, T0, tensor("table", "text", dtype=7, string_val=[b"a", b"b", b"c", b"d"])),
    )
    _result, info = one(workspace, logs)
    assert info.params == {"args": {"lr": 0.1, "nested": {"a": [1, 2]}}}
    assert info.tags == {"commit": "abc123", "broken": '{"a":', "imported_from": "tensorboard"}
    assert info.notes is None
    told = [(record.step, record.wall_s, record.kind, record.read_text()) for record in info.records("story")]
    assert told == [(3, T0 + 3, "text", "word " * 100), (4, T0 + 4, "text", "x" * 100_000)]
    assert info.series("mood").value.tolist() == ["good", "bad"]
    assert info.series("table").value.tolist() == ["a\nb\nc\nd"]
    assert info.series("commit").value.tolist() == ["abc123 "]


def test_hparams_with_dots_are_nested_unless_another_stands_in_the_way(
    logs: Path, workspace: Workspace, write_events: Write
) -> None:
    data = HParamsPluginData()
    for name in ("model.depth", "model.width", "opt", "opt.lr", "a..b", ".x", "dot\\.ted"):
        data.session_start_info.hparams[name].number_value = 2
    ended = HParamsPluginData()
    ended.session_end_info.status = 2
    values = []
    for tag, content in (("start", data), ("end", ended)):
        value = Summary.Value(tag=tag)
        value.metadata.plugin_data.plugin_name = "hparams"
        value.metadata.plugin_data.content = content.SerializeToString()
        values.append(value)
    write_events(logs / "r" / "events.out.tfevents.1", (0, T0, *values))
    _result, info = one(workspace, logs)
    assert info.params == {
        "model": {"depth": 2.0, "width": 2.0},
        "opt": 2.0,
        "opt.lr": 2.0,
        "a..b": 2.0,
        ".x": 2.0,
        "dot.ted": 2.0,
    }
    assert info.status is runstone.Status.FAILED


def test_damage_in_the_middle_costs_what_it_hits(
    logs: Path, workspace: Workspace, write_events: Write, scalar: Scalar
) -> None:
    path = logs / "r" / "events.out.tfevents.1"
    write_events(path, *((step, T0 + step, scalar("x", step)) for step in range(5)))
    with path.open("ab") as file:
        file.write(bytes(8192) + framed(b"this is no event \xff\xff\xff"))
    write_events(path, *((step, T0 + step, scalar("x", step)) for step in range(5, 10)))
    result, info = one(workspace, logs)
    assert info.series("x").step.tolist() == list(range(10))
    assert (result.losses.skipped_bytes, result.losses.damaged, result.losses.torn_bytes) == (8192, 1, 0)


def test_an_import_that_is_killed_leaves_no_half_run(
    logs: Path, workspace: Workspace, write_events: Write, scalar: Scalar, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    events = [(step, T0 + step, scalar("x", step)) for step in range(20_000)]
    write_events(logs / "r" / "events.out.tfevents.1", *events)
    program = start(
        f"""
        import pathlib, runstone, threading, time
        from runstone.tensorboard.importer import import_logdir
        from runstone.workspace import ensure_workspace
        def watch():
            while not list(pathlib.Path({str(workspace.path)!r}).glob("imports/*.partial/*.wal")):
                time.sleep(0.0005)
            import os; os.kill(os.getpid(), {int(signal.SIGKILL)})
        threading.Thread(target=watch, daemon=True).start()
        list(import_logdir(ensure_workspace({str(workspace.path)!r}), pathlib.Path({str(logs)!r}), project="tb"))
        threading.Event().wait()
        """
    )
    assert program.wait(60) == -signal.SIGKILL
    result, info = one(workspace, logs)
    assert result.points_held == 20_000
    assert len(info.series("x")) == 20_000
    assert not list((workspace.path / "imports").glob("*.partial"))


def test_the_command_says_what_came_in_and_what_did_not(
    logs: Path, home: Path, write_events: Write, scalar: Scalar
) -> None:
    for name in ("a", "b"):
        path = logs / name / "events.out.tfevents.1"
        write_events(path, *((step, T0, scalar("x", step)) for step in range(1000)))
        write_events(path, (0, T0, tensor("i", "images", dtype=7)))
    with path.open("ab") as file:
        file.write(b"torn")
    call = ["tensorboard", str(logs), "--workspace", str(home)]
    lines = CliRunner().invoke(import_group, call, catch_exceptions=False).output.splitlines()
    assert lines[-4:] == [
        "2 folders: 2 new",
        "2,000 points in the event files, 2,000 added, 2,000 in the runs",
        "not carried over: image that is empty 2",
        "not readable: 0 damaged records, 4 bytes of torn records, 0 bytes between records",
    ]
    assert {info.project for info in runstone.open_workspace(home).runs()} == {"logs"}
    told = json.loads(CliRunner().invoke(import_group, [*call, "--json", "-p", "other"], catch_exceptions=False).output)
    assert [(one["outcome"], one["project"], one["points_added"]) for one in told] == [("unchanged", "logs", 0)] * 2
