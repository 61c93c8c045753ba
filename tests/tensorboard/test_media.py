"""Media and texts: from a run to event files, and from event files of any writer into a run."""

from __future__ import annotations

import io
import json
import threading
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import runstone
from runstone.cli.imports import import_group
from runstone.cli.tensorboard import tensorboard_command
from runstone.media.pictures import encode_png
from runstone.tensorboard import import_media, start_mirror
from runstone.tensorboard.importer import ImportedFolder, import_logdir
from runstone.tensorboard.marks import Mark, read_mark
from runstone.tensorboard.mirror import RunMirror, mirror_until_ended
from runstone.tensorboard.picture_files import picture, shape_of_wav, sound
from runstone.tensorboard.protos import Event, Summary, TensorProto
from runstone.tensorboard.reader import RunEvents, event_files, read_events
from runstone.workspace import Workspace, ensure_workspace

Write = Callable[..., Path]
T0 = 1.7e9
PIXELS = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)
TONE = np.sin(np.arange(800) / 5).astype(np.float32)


@pytest.fixture
def tb(tmp_path: Path) -> Path:
    return tmp_path / "tb"


@pytest.fixture
def other(tmp_path: Path) -> Workspace:
    return ensure_workspace(tmp_path / "other")


def new_run(**options: Any) -> runstone.Run:
    return runstone.start_run(environment=False, **options)


def mirror(run: runstone.Run, logdir: Path) -> list[str]:
    told: list[str] = []
    mirror_until_ended(run.path, logdir, poll_s=0.02, tell=told.append)
    return told


def one(workspace: Workspace, logdir: Path) -> tuple[ImportedFolder, runstone.RunInfo]:
    (result,) = import_logdir(workspace, logdir, project="tb")
    return result, workspace.run(result.run_id)


def in_files(logdir: Path) -> RunEvents:
    (folder,) = {path.parent for path in logdir.rglob("*tfevents*")}
    return read_events(folder, event_files(folder))


def contents(info: runstone.RunInfo) -> dict[str, list[Any]]:
    return {
        name: [
            (
                one.step,
                one.wall_s,
                one.kind,
                one.hash,
                one.text,
                one.path.read_bytes() if one.path else b"",
                one.metadata,
            )
            for one in info.records(name, attempt="all")
        ]
        for name in info.record_names
    }


def log_one_of_each(run: runstone.Run, step: int) -> None:
    run.log({"loss": 1 / (step + 1)}, step=step)
    run.log_image("samples", PIXELS + np.uint8(step), step=step, caption=f"after <{step}>")
    run.log_histogram("weights", np.append(np.random.default_rng(step).normal(size=500), [np.nan, np.inf]), step=step)
    run.log_histogram("edges", [0.5, 1.5, 9.0], bins=[0, 1, 2, 3], step=step)
    run.log_histogram("nothing", [np.nan], step=step)
    run.log_audio("tone", TONE * (step + 1) / 9, sample_rate=8000, step=step)
    run.log_text("short", f"step «{step}»\nof many", step=step)
    run.log_text("long", f"{step}" * 100_000, step=step)
    run.log_text("runstone/notes", "no notes", step=step)
    run.log({"said": "ä | b"}, step=step)


def test_media_come_back_from_event_files_as_they_were(tb: Path, other: Workspace) -> None:
    with new_run(project="p", name="r", notes="# Notes", tags={"a": "b"}) as run:
        for step in range(4):
            log_one_of_each(run, step)
    assert mirror(run, tb) == []
    result, found = one(other, tb)
    expected = run.read()
    assert contents(found) == contents(expected)
    assert result.media_in == result.media_added == result.media_held == 4 * 9
    assert found.series("loss").value.tolist() == expected.series("loss").value.tolist()
    assert (found.notes, found.tags) == ("# Notes", {"a": "b", "imported_from": "tensorboard"})
    assert (result.not_carried, found.warnings) == ({}, ())
    assert one(other, tb)[0].outcome == "unchanged"


def test_figures_and_animations_are_images_and_come_back_as_what_they_were(tb: Path, other: Workspace) -> None:
    pyplot = pytest.importorskip("matplotlib.figure")
    figure = pyplot.Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    with new_run() as run:
        run.log_figure("curve", figure, step=1)
        run.log_video("walk", np.stack([PIXELS, 255 - PIXELS]), step=2)
    mirror(run, tb)
    _result, found = one(other, tb)
    assert contents(found) == contents(run.read())
    assert [one.kind for name in found.record_names for one in found.records(name)] == ["figure", "video"]


def test_a_second_mirror_writes_no_medium_again_and_completes_what_was_cut_off(tb: Path) -> None:
    with new_run() as run:
        for step in range(2):
            log_one_of_each(run, step)
            run.log_text("same", "again", step=0)
    mirror(run, tb)
    whole = in_files(tb)
    (name,) = event_files(tb / run.project / run.name)
    path = tb / run.project / run.name / name
    data = path.read_bytes()
    again = RunMirror(run.path, tb)
    (path.parent / "runstone.done").unlink()
    again.update()
    again.close()
    assert (again.media_written, path.read_bytes()) == (0, data)
    for length in range(0, len(data), 20_011):
        for written in path.parent.glob("*tfevents*"):
            written.unlink()
        path.write_bytes(data[:length])
        mirror(run, tb)
        found = in_files(tb)
        assert found.marks == whole.marks
        assert found.media_count == whole.media_count == 20


def test_media_come_while_the_run_lives(tb: Path) -> None:
    with new_run() as run:
        follower = RunMirror(run.path, tb)
        for step in range(3):
            log_one_of_each(run, step)
            follower.update()
            assert in_files(tb).media_count == 9 * (step + 1)
    follower.update()
    follower.close()
    assert follower.media_written == 27


def test_media_of_a_resumed_run_stand_behind_its_restart(tb: Path, other: Workspace) -> None:
    with new_run(run_id="again") as run:
        for step in range(4):
            run.log_image("x", PIXELS, step=step)
            run.log({"y": 1.0}, step=step)
    with new_run(run_id="again") as run:
        run.rewind(2)
        run.log_image("x", PIXELS[:2], step=2)
    mirror(run, tb)
    (folder,) = {path.parent for path in tb.rglob("*tfevents*")}
    kinds = []
    from runstone.tensorboard.records import Losses, open_records, records

    with open_records(folder / event_files(folder)[-1]) as data:
        for _place, record in records(data, Losses()):
            event = Event.FromString(record)
            is_image = any(value.HasField("image") for value in event.summary.value)
            if event.HasField("session_log") or is_image:
                kinds.append((event.step, is_image))
    assert kinds == [(0, True), (1, True), (2, True), (3, True), (2, False), (2, True)]
    assert [one.step for one in one(other, tb)[1].records("x")] == [0, 1, 2, 3, 2]


def test_what_tensorboard_cannot_show_is_left_out_and_told_once(tb: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video")
    (tmp_path / "i.svg").write_bytes(b"<svg/>")
    with new_run() as run:
        for step in range(3):
            run.log_image("gone", PIXELS + np.uint8(step), step=step)
            run.log_video("film", tmp_path / "v.mp4", step=step)
            run.log_object3d("cloud", np.zeros((2, 3)), step=step)
            run.log_image("drawing", tmp_path / "i.svg", step=step)
            run.log({"x": 1.0}, step=step)
        run.log_image("kept", PIXELS[:1])
        run.log_audio("cut", TONE, sample_rate=10)
    gone = [record.path for record in run.read().records("gone")]
    for path in gone:
        assert path is not None
        path.unlink()
    (cut,) = run.read().records("cut")
    assert cut.path is not None
    cut.path.chmod(0o644)
    cut.path.write_bytes(b"")
    told = mirror(run, tb)
    assert told == [
        "left out: TensorBoard shows no image in svg form",
        "left out: TensorBoard shows no object3d in npy form",
        "left out: TensorBoard shows no video in mp4 form",
        "left out: audio whose content is not in this workspace",
        "left out: image whose content is not in this workspace",
    ]
    found = in_files(tb)
    assert [name for name, *_rest in found.marks] == ["kept"]
    assert len(found.points["x"]) == 3
    result = CliRunner().invoke(tensorboard_command, ["--once", "--logdir", str(tb / "2")], catch_exceptions=False)
    assert "1 run, 3 new points, 1 new media and texts" in result.output.splitlines()
    assert "left out: 3 x image whose content is not in this workspace" in result.output.splitlines()


def test_what_is_left_out_again_and_again_is_told_once(tb: Path) -> None:
    told: list[str] = []
    with new_run() as run:
        arguments = {"poll_s": 0.01, "tell": told.append}
        thread = threading.Thread(target=mirror_until_ended, args=(run.path, tb), kwargs=arguments)
        thread.start()
        run.log_object3d("cloud", np.zeros((2, 3)))
        deadline = time.monotonic() + 30
        while not told:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        run.log_object3d("cloud", np.zeros((2, 3)))
    thread.join(30)
    assert told == ["left out: TensorBoard shows no object3d in npy form"]


def test_the_helper_tells_what_it_left_out_in_a_file(tb: Path) -> None:
    with new_run() as run:
        run.log_object3d("cloud", np.zeros((2, 3)))
        run.log_object3d("cloud", np.ones((2, 3)))
    helper = start_mirror(run.path, tb)
    assert helper.wait(60)
    told = (tb / f"runstone-trouble-{run.path.name}.log").read_text()
    assert told == "left out: TensorBoard shows no object3d in npy form\n"


def test_damaged_records_of_a_run_stop_no_mirror(tb: Path) -> None:
    with new_run() as run:
        for record in (
            {},
            {"kind": "histogram", "edges": [0, "a"], "counts": [1]},
            {"kind": "histogram", "edges": [0, 1], "counts": [1, 2]},
            {"kind": "histogram"},
            {"kind": "image", "name": "png", "hash": "../../etc/passwd", "size": 3},
            {"kind": "image", "name": "png", "hash": "0" * 64, "size": "3"},
            {"kind": "table", "name": "parquet", "hash": None},
            {"kind": 3, "name": []},
        ):
            run._log.points.log_record("x", record, 0)
        run.log({"y": 1.0})
    told = mirror(run, tb)
    assert told
    assert in_files(tb).media_count == 0
    assert len(in_files(tb).points["y"]) == 1


def test_a_table_is_a_table_of_texts(tb: Path, other: Workspace) -> None:
    with new_run() as run:
        run.log_table("scores", {"who": ["ä", "b"], "right": [1, None]})
        run.log_table("long", {f"c{number}": list(range(300)) for number in range(60)})
        run.log({"x": 1.0})
    assert mirror(run, tb) == []
    tensors = {}
    (folder,) = {path.parent for path in tb.rglob("*tfevents*")}
    found = in_files(tb)
    from runstone.tensorboard.records import open_records, record_at

    for name, places in found.media.items():
        with open_records(folder / name) as data:
            for place in places:
                for value in Event.FromString(record_at(data, place)).summary.value:
                    tensors[value.tag] = value.tensor
    assert [cell.decode() for cell in tensors["scores"].string_val] == ["who", "right", "ä", "1", "b", "None"]
    assert [dim.size for dim in tensors["scores"].tensor_shape.dim] == [3, 2]
    assert [dim.size for dim in tensors["long"].tensor_shape.dim] == [101, 50]
    result, info = one(other, tb)
    assert result.not_carried == {"table": 2}
    assert info.record_names == []


def test_a_name_of_several_kinds_has_a_tag_for_each(tb: Path, other: Workspace) -> None:
    with new_run() as run:
        for step in range(2):
            run.log({"x": 1.0}, step=step)
            run.log_image("x", PIXELS, step=step)
            run.log_histogram("x", [1.0, 2.0], step=step)
            run.log_text("x", "text", step=step)
    mirror(run, tb)
    assert in_files(tb).marked_tags == {"x (histograms)": "histograms", "x (images)": "images", "x (text)": "text"}
    (folder,) = {path.parent for path in tb.rglob("*tfevents*")}
    (folder / "runstone.done").unlink()
    assert mirror(run, tb) == []
    assert in_files(tb).media_count == 6
    _result, info = one(other, tb)
    assert contents(info) == contents(run.read())
    assert len(info.series("x")) == 2


# --- event files of other writers -------------------------------------------------------------------------------------


def plugin_tensor(tag: str, plugin: str, strings: list[bytes], *sizes: int) -> Any:
    value = Summary.Value(tag=tag, tensor=TensorProto(dtype=7, string_val=strings))
    for size in sizes:
        value.tensor.tensor_shape.dim.add(size=size)
    value.metadata.plugin_data.plugin_name = plugin
    return value


def wav(samples: int = 10, rate: int = 8000) -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * samples))
    return data.getvalue()


def test_what_tensorboardx_writes_becomes_media(tb: Path, other: Workspace) -> None:
    import tensorboardX

    values = np.random.default_rng(0).normal(size=1000)
    with tensorboardX.SummaryWriter(str(tb / "r")) as writer:
        for step in (3, 5):
            writer.add_histogram("weights", values * step, step, walltime=T0 + step, bins=30)
            writer.add_image("picture", PIXELS, step, walltime=T0 + step, dataformats="HWC")
            writer.add_text("remark", "fine", step, walltime=T0 + step)
    result, info = one(other, tb)
    assert (result.outcome, result.points_in, result.media_added, result.not_carried) == ("new", 0, 6, {})
    weights = info.records("weights")
    assert [(one.step, one.wall_s, one.kind) for one in weights] == [(s, T0 + s, "histogram") for s in (3, 5)]
    counts, edges = np.histogram(values * 3, bins=30)
    assert weights[0].metadata["counts"] == counts.tolist()
    assert weights[0].metadata["edges"] == pytest.approx(edges.tolist())
    assert weights[0].metadata["count"] == 1000
    (picture_at_3, _picture_at_5) = info.records("picture")
    assert (picture_at_3.kind, picture_at_3.format, picture_at_3.metadata) == (
        "image",
        "png",
        {"width": 7, "height": 5},
    )
    Image = pytest.importorskip("PIL.Image")
    assert picture_at_3.path is not None
    assert (np.asarray(Image.open(picture_at_3.path).convert("RGB")) == PIXELS).all()
    assert info.series("remark").value.tolist() == ["fine", "fine"]
    assert one(other, tb)[0].outcome == "unchanged"


def test_tensors_of_tensorflow_2_become_media(tb: Path, other: Workspace, write_events: Write) -> None:
    png = encode_png(PIXELS)
    rows = np.array([[0, 1, 3], [1, 2, 0], [2, 4, 5]], "<f8")
    weights = Summary.Value(tag="w", tensor=TensorProto(dtype=2, tensor_content=rows.tobytes()))
    for size in rows.shape:
        weights.tensor.tensor_shape.dim.add(size=size)
    later = Summary.Value(tag="w", tensor=weights.tensor)  # of one tag only the first value names the plugin
    weights.metadata.plugin_data.plugin_name = "histograms"
    write_events(
        tb / "r" / "events.out.tfevents.1",
        (1, T0 + 1, weights, plugin_tensor("i", "images", [b"7", b"5", png, png], 4)),
        (2, T0 + 2, later, plugin_tensor("a", "audio", [wav(), b"label", wav(20), b""], 2, 2)),
        (3, T0 + 3, plugin_tensor("a", "audio", [wav(30)], 1)),
    )
    result, info = one(other, tb)
    assert [(one.step, one.wall_s) for one in info.records("w")] == [(1, T0 + 1), (2, T0 + 2)]
    assert info.records("w")[0].metadata == {"count": 8, "edges": [0, 1, 2, 4], "counts": [3, 0, 5]}
    images = info.records("i")
    assert [one.path.read_bytes() if one.path else b"" for one in images] == [png, png]
    assert [(one.step, one.metadata["duration_s"]) for one in info.records("a")] == [
        (2, 10 / 8000),
        (2, 20 / 8000),
        (3, 30 / 8000),
    ]
    assert (result.media_added, result.not_carried) == (7, {})


def test_files_that_grew_add_their_new_media(tb: Path, other: Workspace, write_events: Write) -> None:
    path = tb / "r" / "events.out.tfevents.1"
    old = Summary.Value(tag="i")
    old.image.encoded_image_string = encode_png(PIXELS)
    same = plugin_tensor("t", "text", [b"same"])
    write_events(path, (0, T0, old), (0, T0, old), (0, T0, same))
    assert one(other, tb)[0].media_added == 3
    write_events(path, (0, T0 + 1, old), (1, T0 + 2, old), (0, T0, same), (0, T0, plugin_tensor("t", "text", [b"new"])))
    result, info = one(other, tb)
    assert (result.outcome, result.media_in, result.media_added, result.media_held) == ("grown", 7, 4, 7)
    assert [(one.step, one.wall_s) for one in info.records("i")] == [(0, T0), (0, T0), (0, T0 + 1), (1, T0 + 2)]
    assert sorted(info.series("t").value.tolist()) == ["new", "same", "same"]
    assert one(other, tb)[0].outcome == "unchanged"


def test_a_run_that_was_imported_before_media_were_gets_them(tb: Path, other: Workspace, write_events: Write) -> None:
    value = Summary.Value(tag="i")
    value.image.encoded_image_string = encode_png(PIXELS)
    write_events(tb / "r" / "events.out.tfevents.1", (0, T0, value, Summary.Value(tag="x", simple_value=1.0)))
    first, info = one(other, tb)
    (journal,) = info.path.glob("journal.*.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        line.pop("media", None)
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for file in info.path.iterdir():
        if file.suffix in (".wal", ".blob", ".keys"):
            file.unlink()
    again, _info = one(other, tb)
    assert (first.media_added, again.outcome, again.media_added, again.media_held) == (1, "grown", 1, 1)
    assert one(other, tb)[0].outcome == "unchanged"


def test_what_is_unfit_is_counted_and_costs_nothing_else(tb: Path, other: Workspace, write_events: Write) -> None:
    svg = Summary.Value(tag="i")
    svg.image.encoded_image_string = b"<svg><script>alert(1)</script></svg>"
    script = plugin_tensor("i2", "images", [b"1", b"1", b"<script>"], 3)
    exe = Summary.Value(tag="a")
    exe.audio.encoded_audio_string = b"MZ"
    histogram = Summary.Value(tag="h1")
    histogram.histo.bucket_limit.extend([3.0, 1.0])
    histogram.histo.bucket.extend([1.0, 1.0])
    lying = plugin_tensor("h2", "histograms", [])
    lying.tensor.dtype = 2
    for size in (2**40, 3):
        lying.tensor.tensor_shape.dim.add(size=size)
    nameless = Summary.Value(tag="")
    nameless.image.encoded_image_string = encode_png(PIXELS)
    several = plugin_tensor("many", "images", [b"1", b"1", *[encode_png(PIXELS)] * 1003], 1005)
    fit = Summary.Value(tag="../../up")
    fit.image.encoded_image_string = encode_png(PIXELS)
    write_events(
        tb / "r" / "events.out.tfevents.1", (0, T0, svg, script, exe, histogram, lying, nameless, several, fit)
    )
    result, info = one(other, tb)
    assert result.not_carried == {
        "audio that cannot be read": 1,
        "histogram that cannot be read": 2,
        "image beyond 1000 of one step": 3,
        "image that cannot be read": 2,
        "image without a legal name": 1,
    }
    assert info.record_names == ["../../up", "many"]
    assert "1 x audio that cannot be read" in info.warnings[0]
    assert len(list((other.path / "blobs").rglob("*"))) == 2  # one folder, one picture


def test_folders_with_nothing_but_unfit_media_make_no_run(tb: Path, other: Workspace, write_events: Write) -> None:
    write_events(tb / "r" / "events.out.tfevents.1", (0, T0, plugin_tensor("i", "images", [b"1", b"1", b"x"], 3)))
    (result,) = import_logdir(other, tb, project="tb")
    assert result.outcome == "empty"


def test_a_mark_that_lies_changes_no_content(tb: Path, other: Workspace, write_events: Write) -> None:
    value = Summary.Value(tag="i")
    value.image.encoded_image_string = encode_png(PIXELS)
    facts = {
        "hash": "0" * 64,
        "size": 9,
        "kind": "x",
        "width": 9000,
        "caption": 3,
        "nan": True,
        "count": 2,
        "mean": 1e999,
    }
    value.node_name = json.dumps({"runstone": "image", "name": "i", "key": "k", "facts": facts}, separators=(",", ":"))
    write_events(tb / "r" / "events.out.tfevents.1", (0, T0, value))
    _result, info = one(other, tb)
    (found,) = info.records("i")
    assert found.path is not None
    assert found.path.read_bytes() == encode_png(PIXELS)
    assert found.metadata == {"width": 7, "height": 5, "count": 2}


@given(
    st.text(), st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.floats() | st.lists(st.integers()))
)
def test_marks_of_any_kind_never_raise(text: str, facts: dict[str, Any]) -> None:
    assert read_mark(text) is None or text.startswith("{")
    for kind in ("image", "nonesuch", 3, None):
        told = json.dumps({"runstone": kind, "name": text, "key": text, "facts": facts}, separators=(",", ":"))
        found = read_mark(told)
        assert (found is not None) == (kind == "image")
    assert read_mark('{"runstone":' + "[" * 100_000) is None
    mark = Mark("image", text, "k", {"caption": text})
    assert read_mark(mark.pack()) == mark


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"GIF89a", wav()[:30]]), st.binary())
def test_heads_of_files_never_raise(head: bytes, rest: bytes) -> None:
    found = picture(head + rest)
    assert found is None or min(found[1:]) >= 0
    sound(head + rest)
    shape_of_wav(head + rest)


def test_sizes_of_pictures_are_those_of_pillow() -> None:
    Image = pytest.importorskip("PIL.Image")
    for form, ours in (("PNG", "png"), ("JPEG", "jpg"), ("GIF", "gif"), ("BMP", "bmp")):
        file = io.BytesIO()
        Image.fromarray(PIXELS).save(file, format=form)
        assert picture(file.getvalue()) == (ours, 7, 5)
    Image.fromarray(PIXELS).save(file := io.BytesIO(), format="JPEG", progressive=True)
    assert picture(file.getvalue()) == ("jpg", 7, 5)


def test_media_beyond_the_limit_are_counted_and_stay_out(
    tb: Path, other: Workspace, write_events: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runstone.media import MediaLimits

    monkeypatch.setattr(import_media, "MediaLimits", lambda: MediaLimits(count_per_name=3))
    path = tb / "r" / "events.out.tfevents.1"
    value = Summary.Value(tag="i")
    value.image.encoded_image_string = encode_png(PIXELS)
    write_events(path, *((step, T0 + step, value) for step in range(5)))
    result, info = one(other, tb)
    assert (result.media_added, result.not_carried) == (3, {"image beyond the limits of a run": 2})
    write_events(path, (9, T0, Summary.Value(tag="x", simple_value=1.0)))
    result, info = one(other, tb)
    assert (result.outcome, result.points_added, result.media_added) == ("grown", 1, 0)
    assert len(info.records("i")) == 3


def test_the_command_counts_media(tb: Path, home: Path, write_events: Write) -> None:
    write_events(tb / "r" / "events.out.tfevents.1", (0, T0, plugin_tensor("t", "text", [b"a"])))
    call = ["tensorboard", str(tb), "--workspace", str(home)]
    lines = CliRunner().invoke(import_group, call, catch_exceptions=False).output.splitlines()
    assert lines[-1] == "1 media and texts in the event files, 1 added, 1 in the runs"
