"""Media come back as what they were: images, sounds, videos, tables, texts, figures, histograms, shapes in space."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import signal
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runstone
from runstone import media
from runstone.media.pictures import encode_png, to_pixels

RNG = np.random.default_rng(7)


@pytest.fixture
def run() -> runstone.Run:
    return runstone.start_run(environment=False)


def only(run: runstone.Run, name: str) -> runstone.Record:
    (record,) = run.read().records(name)
    return record


def content(record: runstone.Record) -> bytes:
    assert record.path is not None
    data = record.path.read_bytes()
    assert len(data) == record.size_bytes
    return data


def pixels_of(record: runstone.Record) -> Any:
    image = pytest.importorskip("PIL.Image")
    return np.asarray(image.open(io.BytesIO(content(record))))


# --- steps and names -------------------------------------------------------------------------------------------------


def test_media_take_the_step_that_log_used_last(run: runstone.Run) -> None:
    for _ in range(2):
        run.log_histogram("before", [1.0])
    run.log({"x": 1.0})
    run.log_histogram("h", [1.0])
    run.log({"x": 1.0}, step=7)
    run.log_histogram("h", [1.0])
    run.log_histogram("h", [1.0], step=100)
    run.log_text("t", "a")
    run.log({"x": 1.0})
    run.log_text("t", "b")
    info = run.read()
    assert [record.step for record in info.records("before")] == [0, 1]
    assert [record.step for record in info.records("h")] == [0, 7, 100]
    assert info.series("x").step.tolist() == [0, 7, 8]  # media do not move the count
    assert info.series("t").step.tolist() == [7, 8]


@pytest.mark.parametrize("name", ["ü/😀 x", "../../etc", "a" * 1024, "new\nline"])
def test_names_are_any_text(run: runstone.Run, name: str) -> None:
    run.log_image(name, np.zeros((2, 2)))
    run.log_text(name, "b")
    assert run.read().record_names == [name]
    assert [record.kind for record in run.read().records(name)] == ["image", "text"]


@pytest.mark.parametrize("name", ["", "  ", "a" * 1025, "nul\0", "\udcff", 3, None])
def test_names_that_cannot_be_kept_are_refused(run: runstone.Run, name: Any, home: Path) -> None:
    for call in (
        lambda: run.log_image(name, np.zeros((2, 2))),
        lambda: run.log_text(name, "x"),
        lambda: run.log_text(name, "x" * 100_000),
    ):
        with pytest.raises(runstone.InvalidName):
            call()
    with pytest.raises(runstone.InvalidValue, match="step must"):
        run.log_image("x", np.zeros((2, 2)), step=1.5)  # type: ignore[arg-type]
    assert run.read().record_names == []
    assert not (home / "blobs").exists()


def test_same_content_is_stored_once(run: runstone.Run, home: Path) -> None:
    for step in range(5):
        run.log_image("same", np.zeros((4, 4)), step=step)
    assert len([path for path in (home / "blobs").rglob("*") if path.is_file()]) == 1
    assert len({record.hash for record in run.read().records("same")}) == 1
    assert len(run.read().records("same")) == 5


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4), (1, 1), (2000, 1, 3)])
def test_bytes_of_arrays_come_back_exactly(run: runstone.Run, shape: tuple[int, ...]) -> None:
    pixels = RNG.integers(0, 256, shape, np.uint8)
    run.log_image("x", pixels, caption="ü \udcff")
    record = only(run, "x")
    assert (record.kind, record.format) == ("image", "png")
    assert record.metadata == {"width": shape[1], "height": shape[0], "caption": "ü \\udcff"}
    found = pixels_of(record)
    assert np.array_equal(found, pixels[..., 0] if shape[2:] == (1,) else pixels)


@pytest.mark.parametrize(
    ("given_pixels", "kept"),
    [
        (np.array([[0.0, 0.5, 1.0]]), [[0, 128, 255]]),
        (np.array([[0.0, 1.0]], np.float16), [[0, 255]]),
        (np.array([[False, True]]), [[0, 255]]),
        (np.array([[0, 255]], np.int64), [[0, 255]]),
        ([[0.0, 1.0], [1.0, 0.0]], [[0, 255], [255, 0]]),
        (np.zeros((1, 1, 2, 6)), np.zeros((2, 6)).tolist()),
        (np.zeros((3, 2, 5)), np.zeros((2, 5, 3)).tolist()),
        (np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)), [[0, 1, 2], [3, 4, 5]]),
    ],
)
def test_numbers_of_many_kinds_are_pixels(run: runstone.Run, given_pixels: Any, kept: Any) -> None:
    run.log_image("x", given_pixels)
    assert pixels_of(only(run, "x")).tolist() == kept


def test_floats_outside_their_range_are_cut_and_told_once(run: runstone.Run, recwarn: pytest.WarningsRecorder) -> None:
    for _ in range(3):
        run.log_image("x", np.array([[-1.0, 0.5, math.nan, 300.0, math.inf]]))
    (told,) = [str(warning.message).partition(": ")[2] for warning in recwarn]
    assert told == "image 'x': 1 pixel values are NaN and shown black; floats from -1 to inf are cut to 0 to 1"
    assert pixels_of(run.read().records("x")[0]).tolist() == [[0, 128, 0, 255, 255]]


@pytest.mark.heavy
def test_tensors_of_torch_have_their_channels_first(run: runstone.Run) -> None:
    torch = pytest.importorskip("torch")
    pixels = torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8)
    run.log_image("chw", pixels)
    run.log_image("bhw", torch.rand(1, 3, 5, 6, requires_grad=True))
    run.log_image("bf16", torch.ones(2, 2, dtype=torch.bfloat16))
    assert np.array_equal(pixels_of(only(run, "chw")), pixels.permute(1, 2, 0).numpy())
    assert only(run, "bhw").metadata == {"width": 6, "height": 5}
    assert pixels_of(only(run, "bf16")).tolist() == [[255, 255], [255, 255]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "F", "I;16"])
def test_images_of_pillow_are_taken_in_any_mode(run: runstone.Run, mode: str) -> None:
    image = pytest.importorskip("PIL.Image")
    given_image = image.new(mode, (6, 4))
    run.log_image("x", given_image)
    assert only(run, "x").metadata == {"width": 6, "height": 4}
    assert pixels_of(only(run, "x")).shape[:2] == (4, 6)


def test_files_are_kept_as_they_are(run: runstone.Run, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(RNG.integers(0, 256, (5, 9, 3), np.uint8))
    for form in ("png", "gif", "jpg", "webp"):
        path = tmp_path / f"Picture.{form.upper()}"
        picture.save(path, format="JPEG" if form == "jpg" else form.upper())
        run.log_image(form, path if form == "png" else str(path))
        record = only(run, form)
        assert content(record) == path.read_bytes()
        assert record.format == form
        assert record.metadata == ({"width": 9, "height": 5} if form in ("png", "gif") else {})
    (tmp_path / "drawing.svg").write_text("<svg/>")
    (tmp_path / "short.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    run.log_image("svg", tmp_path / "drawing.svg")
    run.log_image("short", tmp_path / "short.png")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("missing.png", "there is no file"),
        ("missing.exe", "log_artifact takes any file"),
        (np.zeros((2, 2, 5)), "1 to 4 channels"),
        (np.zeros((5, 5, 2, 2, 3)), "no image has this shape"),
        (np.zeros((2, 2, 2, 3)), "dimensions|shape"),
        (np.zeros((0, 3)), "empty"),
        (np.zeros(5), "no image has this shape"),
        (np.array([[256]]), "0 to 255, these in 256 to 256"),
        (np.array([[-1]]), "0 to 255"),
        (np.array([["a"]]), "pixels are numbers"),
        (np.array([[1j]]), "pixels are numbers"),
        (None, "pixels are numbers|no image"),
        (object(), "pixels are numbers|no image"),
        ([[1], [1, 2]], "no image"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_what_is_no_image_is_refused(run: runstone.Run, home: Path, bad: Any, message: str) -> None:
    with pytest.raises((runstone.InvalidValue, runstone.NotFound), match=message):
        run.log_image("x", bad)
    assert run.media_left_out == {"x": 1}
    assert run.read().record_names == []
    assert not (home / "blobs").exists()


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), channels=st.integers(1, 4), seed=st.integers(0, 1000))
def test_png_of_any_pixels_is_read_by_pillow(height: int, width: int, channels: int, seed: int) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    opened = image.open(io.BytesIO(encode_png(pixels)))
    opened.verify()
    found = np.asarray(image.open(io.BytesIO(encode_png(pixels))))
    assert np.array_equal(found.reshape(pixels.shape), pixels)


@settings(max_examples=150, deadline=None)
@given(
    shape=st.lists(st.integers(0, 6), max_size=5),
    kind=st.sampled_from(["u1", "i8", "f4", "f8", "?", "c8", "U1", "M8[s]"]),
    what=st.sampled_from(["image", "video"]),
)
def test_any_array_is_pixels_or_refused(shape: list[int], kind: str, what: str) -> None:
    try:
        pixels, _notes = to_pixels(np.zeros(shape, kind), what)
    except runstone.InvalidValue:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3 + (what == "video")
    assert pixels.shape[-1] in (1, 2, 3, 4)


# --- sounds and videos -----------------------------------------------------------------------------------------------


def test_sounds_become_wav(run: runstone.Run) -> None:
    tone = np.sin(np.arange(8000) / 10)
    run.log_audio("float", tone, sample_rate=8000, caption="a")
    run.log_audio("int", (tone * 1000).astype(np.int16), sample_rate=np.int64(16000))  # type: ignore[arg-type]
    run.log_audio("stereo", np.stack([tone, -tone]), sample_rate=44100.0)  # type: ignore[arg-type]
    record = only(run, "float")
    assert (record.kind, record.format) == ("audio", "wav")
    assert record.metadata == {"sample_rate": 8000, "channels": 1, "duration_s": 1.0, "caption": "a"}
    with wave.open(io.BytesIO(content(record))) as file:
        samples = np.frombuffer(file.readframes(8000), "<i2")
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
    assert np.abs(samples / 32767 - tone).max() < 1e-4
    with wave.open(io.BytesIO(content(only(run, "int")))) as file:
        assert np.array_equal(np.frombuffer(file.readframes(8000), "<i2"), (tone * 1000).astype(np.int16))
    with wave.open(io.BytesIO(content(only(run, "stereo")))) as file:
        both = np.frombuffer(file.readframes(8000), "<i2").reshape(-1, 2)
    assert np.array_equal(both[:, 0], -both[:, 1])


@pytest.mark.heavy
def test_sounds_of_torch_and_loud_ones(run: runstone.Run) -> None:
    torch = pytest.importorskip("torch")
    with pytest.warns(runstone.TrackingWarning, match=r"up to ±2 are cut"):
        run.log_audio("x", torch.full((1, 100), 2.0), sample_rate=100)
    with wave.open(io.BytesIO(content(only(run, "x")))) as file:
        assert set(np.frombuffer(file.readframes(100), "<i2")) == {32767}


def test_sound_files_are_kept_as_they_are(run: runstone.Run, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(4000)
        file.writeframes(bytes(2000))
    (tmp_path / "b.mp3").write_bytes(b"sound")
    (tmp_path / "c.wav").write_bytes(b"RIFF")
    run.log_audio("a", tmp_path / "a.wav")
    run.log_audio("b", tmp_path / "b.mp3", sample_rate=8000)
    run.log_audio("c", tmp_path / "c.wav")
    assert only(run, "a").metadata == {"sample_rate": 4000, "duration_s": 0.5}
    assert (only(run, "b").format, only(run, "b").metadata) == ("mp3", {"sample_rate": 8000})
    assert content(only(run, "c")) == b"RIFF"


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(5), None, "needs its sample_rate"),
        (np.zeros(5), 0, "positive integer"),
        (np.zeros(5), 0.5, "positive integer"),
        (np.zeros(5), "fast", "positive integer"),
        (np.zeros(5, np.int64), 8000, "int16"),
        (np.zeros((2, 2, 2)), 8000, "array of samples"),
        (np.zeros((50, 60)), 8000, "array of samples"),
        (np.zeros(0), 8000, "array of samples"),
        (None, 8000, "array of samples|no sound"),
        ("nothing.wav", None, "there is no file"),
        ("nothing.txt", None, "log_artifact"),
    ],
)
def test_what_is_no_sound_is_refused(run: runstone.Run, samples: Any, rate: Any, message: str) -> None:
    with pytest.raises((runstone.InvalidValue, runstone.NotFound), match=message):
        run.log_audio("x", samples, sample_rate=rate)


@pytest.mark.parametrize("form", ["gif", "webp"])
@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_frames_become_an_animated_image(run: runstone.Run, form: str, channels: tuple[int, ...]) -> None:
    image = pytest.importorskip("PIL.Image")
    frames = RNG.integers(0, 256, (5, 8, 12, *channels), np.uint8)
    run.log_video("x", frames, fps=20, format=form)
    record = only(run, "x")
    assert record.metadata == {"width": 12, "height": 8, "frames": 5, "fps": 20.0}
    opened = image.open(io.BytesIO(content(record)))
    assert (opened.n_frames, opened.size, opened.format) == (5, (12, 8), form.upper())


@pytest.mark.heavy
def test_frames_of_torch_and_files(run: runstone.Run, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    run.log_video("t", torch.rand(4, 3, 6, 10))
    assert only(run, "t").metadata["width"] == 10
    (tmp_path / "film.mp4").write_bytes(b"film")
    run.log_video("f", tmp_path / "film.mp4", caption="c")
    assert (only(run, "f").format, content(only(run, "f"))) == ("mp4", b"film")


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (np.zeros((2, 2)), {}, "no video has this shape|1 to 4"),
        (np.zeros((2, 2, 2, 7)), {}, "1 to 4 channels"),
        (np.zeros((0, 2, 2, 3)), {}, "empty"),
        (np.zeros((2, 2, 2, 3)), {"fps": 0}, "fps must be"),
        (np.zeros((2, 2, 2, 3)), {"fps": math.nan}, "fps must be"),
        (np.zeros((2, 2, 2, 3)), {"format": "mp4"}, "'gif' or 'webp'"),
        ("film.mp4", {}, "there is no file"),
    ],
)
def test_what_is_no_video_is_refused(run: runstone.Run, frames: Any, options: Any, message: str) -> None:
    with pytest.raises((runstone.InvalidValue, runstone.NotFound), match=message):
        run.log_video("x", frames, **options)


def test_without_pillow_images_work_and_frames_say_what_to_install(
    run_program: Callable[..., Any], only_run: Callable[[], runstone.RunInfo]
) -> None:
    ended = run_program(
        """
        import sys, runstone, numpy
        sys.modules["PIL"] = None  # as if it were not installed
        run = runstone.start_run(environment=False, on_error="raise")
        run.log_image("x", numpy.zeros((4, 4, 3)))
        try:
            run.log_video("v", numpy.zeros((2, 4, 4, 3)))
        except runstone.InvalidValue as error:
            print(error)
        run.finish()
        """
    )
    assert ended.code == 0, ended.errors
    assert "pip install pillow" in ended.output
    assert only_run().record_names == ["x"]


# --- tables ----------------------------------------------------------------------------------------------------------


def table_of(record: runstone.Record) -> pa.Table:
    return pq.read_table(io.BytesIO(content(record)))


def test_tables_of_columns_and_of_rows(run: runstone.Run) -> None:
    run.log_table("columns", {"a": [1, 2, 3], "b": np.array([0.5, math.nan, 1.5]), 3: ["x", None, "ü"]})
    run.log_table("rows", [{"a": 1, "b": "x"}, {"b": "y", "c": [1, 2]}, {}])
    run.log_table("mixed", {"a": [1, "two", None, 3.5, {"k": 1}]})
    run.log_table("matrix", {"m": np.arange(6).reshape(3, 2)})
    run.log_table("empty", {})
    record = only(run, "columns")
    assert (record.kind, record.format) == ("table", "parquet")
    assert record.metadata == {"rows": 3, "column_count": 3, "columns": ["a", "b", "3"]}
    found = table_of(record).to_pydict()
    assert found["a"] == [1, 2, 3]
    assert found["3"] == ["x", None, "ü"]
    assert math.isnan(found["b"][1])
    assert table_of(only(run, "rows")).to_pylist() == [
        {"a": 1, "b": "x", "c": None},
        {"a": None, "b": "y", "c": [1, 2]},
        {"a": None, "b": None, "c": None},
    ]
    assert table_of(only(run, "mixed")).to_pydict() == {"a": ["1", "two", None, "3.5", "{'k': 1}"]}
    assert table_of(only(run, "matrix")).to_pydict() == {"m": [[0, 1], [2, 3], [4, 5]]}
    assert only(run, "empty").metadata["rows"] == 0


def test_data_frames(run: runstone.Run) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "n": [1, 2],
            "t": ["a", None],
            "d": pandas.to_datetime(["2024-01-01", "2024-01-02"]),
            "c": pandas.Categorical(["x", "y"]),
            "o": [1, "mixed"],
        }
    )
    run.log_table("frame", frame)
    run.log_table("indexed", frame.set_index("n"))
    run.log_table("twins", pandas.DataFrame([[1, 2]], columns=["a", "a"]))
    run.log_table("many", pandas.DataFrame([[1]], columns=pandas.MultiIndex.from_tuples([("a", "b")])))
    run.log_table("arrow", pa.table({"a": [1]}))
    found = table_of(only(run, "frame")).to_pylist()
    assert [row["n"] for row in found] == [1, 2]
    assert [row["t"] for row in found] == ["a", None]
    assert [row["o"] for row in found] == ["1", "mixed"]
    assert str(found[0]["d"]).startswith("2024-01-01")
    assert table_of(only(run, "indexed")).column_names == ["n", "t", "d", "c", "o"]
    assert table_of(only(run, "twins")).to_pylist() == [{"a": 1, "a (2)": 2}]
    assert table_of(only(run, "many")).column_names == ["a/b"]
    assert table_of(only(run, "arrow")).to_pylist() == [{"a": 1}]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"a": [1], "b": [1, 2]}, "one length; these have: 'a' 1, 'b' 2"),
        ({"a": 1}, "must be a sequence"),
        ({"a": "text"}, "must be a sequence"),
        ([1, 2], "a table is"),
        ([], "a table is"),
        ("text", "a table is"),
        (None, "a table is"),
        (np.zeros((2, 2)), "a table is"),
        ({str(number): [1] for number in range(10_001)}, "10001 columns"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_table_is_refused(run: runstone.Run, bad: Any, message: str) -> None:
    with pytest.raises(runstone.InvalidValue, match=message):
        run.log_table("x", bad)


cells = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(max_size=3), cells | st.lists(cells, max_size=2), max_size=3), min_size=1))
def test_any_rows_are_a_table(rows: list[dict[str, Any]]) -> None:
    made = media.table(rows, max_rows=100)
    assert isinstance(made.content, bytes)
    assert pq.read_table(io.BytesIO(made.content)).num_rows == len(rows) or not any(rows)


# --- texts, figures, histograms, shapes ------------------------------------------------------------------------------


def test_texts_of_any_length(run: runstone.Run) -> None:
    texts = ["", "short", "é" * 32768, "é" * 32769, "long\n" * 100_000, "half \udcff"]
    for step, text in enumerate(texts):
        run.log_text("t", text, step=step)
    run.finish()
    for _sealing in range(2):
        found = run.read().records("t")
        assert [record.step for record in found] == list(range(6))
        assert [record.read_text() for record in found] == [*texts[:5], "half \\udcff"]
        assert [record.text is None for record in found] == [False, False, False, True, True, False]
        assert [record.format for record in found] == [None, None, None, "txt", "txt", None]
        run.workspace.seal(run.id)
    for bad in (None, 3, b"bytes", ["list"]):
        with pytest.raises(runstone.InvalidValue, match="must be text"):
            run.log_text("t", bad)  # type: ignore[arg-type]


def test_figures_of_matplotlib(run: runstone.Run) -> None:
    pytest.importorskip("matplotlib").use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4, 2), dpi=50)
    axes.plot([1, 2, 3])
    run.log_figure("png", figure, caption="c")
    run.log_figure("svg", figure, format="svg")
    run.log_figure("axes", axes)
    run.log_figure("pyplot", plt)
    run.log_image("image", figure)
    plt.close(figure)
    assert (only(run, "png").kind, only(run, "png").format) == ("figure", "png")
    assert only(run, "png").metadata == {"width": 200, "height": 100, "caption": "c"}
    assert b"<svg" in content(only(run, "svg"))
    assert pixels_of(only(run, "axes")).shape[:2] == (100, 200)
    assert pixels_of(only(run, "pyplot")).shape[:2] == (100, 200)
    assert only(run, "image").kind == "image"


def test_figures_of_plotly(run: runstone.Run) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    figure = graph_objects.Figure(graph_objects.Scatter(x=[1, 2], y=[3.0, math.nan]))
    run.log_figure("x", figure)
    record = only(run, "x")
    assert (record.kind, record.format) == ("figure", "plotly.json")
    drawn = json.loads(content(record))
    assert set(drawn) == {"data", "layout"}
    with pytest.raises(runstone.InvalidValue, match="log_figure takes it"):
        run.log_image("y", figure)
    with pytest.raises(runstone.InvalidValue, match="log_figure takes it"):
        run.log({"y": figure})


@pytest.mark.parametrize("bad", [None, 3, "figure.png", [1]])
def test_what_is_no_figure_is_refused(run: runstone.Run, bad: Any) -> None:
    with pytest.raises(runstone.InvalidValue, match="figure of matplotlib or plotly"):
        run.log_figure("x", bad)
    with pytest.raises(runstone.InvalidValue, match="'png' or 'svg'"):
        run.log_figure("x", bad, format="bmp")


def test_histograms_count_as_numpy_does(run: runstone.Run) -> None:
    values = RNG.normal(size=(10, 100)).astype(np.float32)
    run.log_histogram("x", values)
    counts, edges = np.histogram(values, bins=64)
    record = only(run, "x")
    assert (record.kind, record.path, record.hash) == ("histogram", None, None)
    assert record.metadata["counts"] == counts.tolist()
    assert record.metadata["edges"] == edges.tolist()
    assert record.metadata["count"] == 1000
    assert record.metadata["min"] == float(values.min())
    assert record.metadata["mean"] == pytest.approx(float(values.mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("values", "bins", "counts", "special"),
    [
        ([1, 2, 2, 3], 2, [1, 3], {}),
        ([True, False, True], 2, [1, 2], {}),
        ([0.0, math.nan, 1.0, math.inf, -math.inf, math.nan], 1, [2], {"nan": 2, "positive_inf": 1, "negative_inf": 1}),
        ([-1.0, 0.0, 0.5, 1.0, 5.0, 6.0], [0.0, 0.5, 1.0], [1, 2], {"below": 1, "above": 2}),
        ([], 3, [], {}),
        ([math.nan], 3, [], {"nan": 1}),
        ([5.0], 2, [0, 1], {}),
        (np.float16([0.1, 0.2]), 1, [2], {}),
        (np.array(3.0), 1, [1], {}),
    ],
)
def test_histograms_of_special_values(
    run: runstone.Run, values: Any, bins: Any, counts: list[int], special: dict[str, int]
) -> None:
    run.log_histogram("x", values, bins=bins)
    metadata = only(run, "x").metadata
    assert metadata["counts"] == counts
    names = ("nan", "positive_inf", "negative_inf", "below", "above")
    assert {name: metadata[name] for name in names if metadata[name]} == special
    assert sum(counts) + sum(special.values()) == metadata["count"] == np.size(values)


@pytest.mark.heavy
def test_histograms_of_tensors(run: runstone.Run) -> None:
    torch = pytest.importorskip("torch")
    run.log_histogram("x", torch.ones(3, 4, requires_grad=True), bins=4)
    run.log_histogram("y", torch.ones(5, dtype=torch.bfloat16))
    assert sum(only(run, "x").metadata["counts"]) == 12  # type: ignore[arg-type]
    assert sum(only(run, "y").metadata["counts"]) == 5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "bins", "message"),
    [
        (["a"], 3, "real numbers"),
        ([1j], 3, "real numbers"),
        (None, 3, "real numbers"),
        ([1.0], 0, "bins must be 1 to 10000"),
        ([1.0], 10_001, "bins must be"),
        ([1.0], True, "bins must be"),
        ([1.0], [1.0], "bins must be"),
        ([1.0], [2.0, 1.0], "bins must be"),
        ([1.0], [1.0, math.nan], "bins must be"),
        ([1.0], [1.0, math.inf], "finite"),
        ([1.0], "auto", "bins must be"),
        ([1e308, -1e308], 3, "no histogram"),
    ],
)
def test_what_makes_no_histogram_is_refused(run: runstone.Run, values: Any, bins: Any, message: str) -> None:
    with pytest.raises(runstone.InvalidValue, match=message):
        run.log_histogram("x", values, bins=bins)


def test_shapes_in_space(run: runstone.Run, tmp_path: Path) -> None:
    points = RNG.normal(size=(50, 3)).astype(np.float32)
    run.log_object3d("points", points, caption="c")
    run.log_object3d("coloured", np.zeros((2, 6), np.uint8))
    (tmp_path / "shape.OBJ").write_text("v 0 0 0\n")
    run.log_object3d("file", tmp_path / "shape.OBJ")
    record = only(run, "points")
    assert (record.kind, record.format) == ("object3d", "npy")
    assert record.metadata == {"points": 50, "has_colours": False, "caption": "c"}
    assert np.array_equal(np.load(io.BytesIO(content(record)), allow_pickle=False), points)
    assert only(run, "coloured").metadata["has_colours"] is True
    assert (only(run, "file").format, content(only(run, "file"))) == ("obj", b"v 0 0 0\n")
    for bad in (np.zeros((2, 4)), np.zeros(3), np.zeros((0, 3)), [["a", "b", "c"]], np.array([[object()] * 3]), None):
        with pytest.raises(runstone.InvalidValue, match="points"):
            run.log_object3d("x", bad)
    with pytest.raises(runstone.InvalidValue, match="log_artifact"):
        run.log_object3d("x", "shape.pkl")


# --- limits, errors, kills -------------------------------------------------------------------------------------------


def test_what_is_beyond_the_limits_is_left_out_told_once_and_counted(recwarn: pytest.WarningsRecorder) -> None:
    run = runstone.start_run(environment=False, on_error="warn")
    run.media_limits = dataclasses.replace(run.media_limits, count_per_name=3, bytes_each=1000, rows_per_table=10)
    for step in range(50):
        run.log_image("many", np.full((4, 4), step, np.uint8), step=step)
        run.log_histogram("other", [1.0], step=step) if step < 2 else None
    run.log_image("large", RNG.integers(0, 256, (100, 100), np.uint8))
    run.log_table("long", {"a": range(25)})
    assert run.media_left_out == {"many": 47, "large": 1}
    run.finish()
    info = run.read()
    assert [record.step for record in info.records("many")] == [0, 1, 2]
    assert info.records("long")[0].metadata == {
        "rows": 10,
        "rows_left_out": 15,
        "column_count": 1,
        "columns": ["a"],
    }
    told = [str(warning.message).partition(": ")[2] for warning in recwarn]
    assert len(told) == 3, told
    assert told[0].startswith("could not record image: 'many' and what comes after it is beyond run.media_limits")
    assert told[1] == "table 'long': the table has 25 rows, the first 10 are kept"
    assert told[2] == "48 media were not recorded: 'many' 47, 'large' 1"
    assert len(info.warnings) == 3


def test_total_size_is_limited_too(recwarn: pytest.WarningsRecorder) -> None:
    run = runstone.start_run(environment=False, on_error="warn")
    run.media_limits = media.MediaLimits(bytes_in_all=3000)
    for number in range(10):
        run.log_image(f"x{number}", RNG.integers(0, 256, (32, 32), np.uint8))
    run.finish()
    assert len(recwarn) == 2
    assert len(run.read().record_names) == 3
    assert sum(run.media_left_out.values()) == 7


def test_with_warnings_no_kind_of_mistake_stops_training(recwarn: pytest.WarningsRecorder) -> None:
    run = runstone.start_run(environment=False, on_error="warn")
    for _ in range(3):
        run.log_image("x", None)
        run.log_audio("x", None)
        run.log_video("x", None)
        run.log_table("x", None)
        run.log_text("x", None)  # type: ignore[arg-type]
        run.log_figure("x", None)
        run.log_histogram("x", None)
        run.log_object3d("x", None)
        run.log_image("", np.zeros((2, 2)))
        run.log_image("file", "/does/not/exist.png")
        run.log_series("x", [1], ["a"])
    run.log({"good": 1.0})
    run.finish()
    told = [str(warning.message) for warning in recwarn]
    assert len(told) == len(set(told)) == 12, told
    assert all(warning.filename == __file__ for warning in recwarn)
    assert run.read().status is runstone.Status.FINISHED


def test_finished_and_switched_off_runs_store_nothing(
    run: runstone.Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.finish()
    for call in (
        lambda: run.log_image("x", np.zeros((2, 2))),
        lambda: run.log_text("x", "a"),
        lambda: run.log_text("x", "a" * 100_000),
        lambda: run.log_series("x", [1], [1.0]),
    ):
        with pytest.raises(runstone.RunFinished):
            call()
    monkeypatch.setenv("RUNSTONE_DISABLED", "1")
    silent = runstone.start_run()
    silent.log_image("x", np.zeros((2, 2)))
    silent.log_text("x", "a")
    silent.log_series("x", [1], [1.0])
    silent.finish()
    assert not (home / "blobs").exists()


def test_media_of_a_reopened_run_and_of_a_fork_count_their_own(run: runstone.Run) -> None:
    run.media_limits = media.MediaLimits(count_per_name=1)
    run.log_histogram("x", [1.0], step=0)
    with pytest.raises(runstone.InvalidValue, match="beyond"):
        run.log_histogram("x", [1.0], step=1)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 2 if run.media_left_out else 3
            run.log_histogram("x", [2.0], step=2)
            run.finish()
            status = 0 if status == 3 else status
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.warns(runstone.TrackingWarning, match="1 media were not recorded"):
        run.finish()
    run.reopen()
    run.log_histogram("x", [3.0], step=3)
    run.finish()
    assert sorted(record.step for record in run.read().records("x")) == [0, 2, 3]


def test_media_survive_kill_9(start: Callable[..., Any], only_run: Callable[[], runstone.RunInfo]) -> None:
    program = start(
        """
        import numpy, runstone
        run = runstone.start_run(environment=False, on_error="raise")
        for step in range(20):
            run.log_image("image", numpy.full((8, 8), step, numpy.uint8), step=step)
            run.log_histogram("histogram", [step], step=step)
            run.log_table("table", {"a": [step]}, step=step)
            run.log_text("text", f"{step}", step=step)
        print("ready", flush=True)
        import time
        time.sleep(60)
        """
    )
    program.wait_until_ready()
    program.send(signal.SIGKILL)
    program.end()
    info = only_run()
    assert info.status is runstone.Status.CRASHED
    for step in range(20):
        assert (pixels_of(info.records("image")[step]) == step).all()
        assert info.records("histogram")[step].metadata["min"] == step
        assert table_of(info.records("table")[step]).to_pydict() == {"a": [step]}
        assert info.records("text")[step].text == str(step)


def test_run_copied_without_its_blobs_still_tells_what_it_had(run: runstone.Run, home: Path, tmp_path: Path) -> None:
    run.log_image("x", np.zeros((2, 3)))
    run.log_text("long", "x" * 100_000)
    run.finish()
    (home / "blobs").rename(tmp_path / "elsewhere")
    record = only(run, "x")
    assert (record.path, record.size_bytes > 0, record.metadata) == (None, True, {"width": 3, "height": 2})
    with pytest.raises(FileNotFoundError, match="not in this workspace"):
        only(run, "long").read_text()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.floats() | st.floats(width=16) | st.integers(-(2**53), 2**53)), bins=st.integers(1, 20))
def test_any_histogram_comes_back_as_it_was_made(run: runstone.Run, values: list[float], bins: int) -> None:
    try:
        made = media.histogram(values, bins=bins)
    except runstone.InvalidValue:
        return
    run.log_histogram("x", values, bins=bins)
    assert run.read().records("x")[-1].metadata == made.metadata
