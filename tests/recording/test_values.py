"""What is stored is what was logged: values and steps of every kind, and what is no number is refused alone."""

from __future__ import annotations

import decimal
import fractions
import math
import struct
from collections import UserDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runstone

BACKENDS = ["mmap", "append"]
INTEGERS = st.integers(-(2**63), 2**63 - 1)


@pytest.fixture(params=BACKENDS)
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> runstone.Run:
    monkeypatch.setenv("RUNSTONE_LOG", request.param)
    return runstone.start_run(environment=False)


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


def test_floats_come_back_bit_for_bit(run: runstone.Run) -> None:
    payload = struct.unpack("<d", bytes.fromhex("010000000000f8ff"))[0]  # a NaN that says more
    values = [math.nan, payload, math.inf, -math.inf, 0.0, -0.0, 5e-324, 2.2e-308, 1.7e308, 0.1, -1.5]
    for step, value in enumerate(values):
        run.log({"x": value}, step=step)
        run.metric("handle")(value, step=step)
        run.log({"nested": {"x": value}}, step=step)
    run.finish()
    for name in ("x", "handle", "nested/x"):
        assert [bits(value) for value in run.read().series(name).value.tolist()] == [bits(value) for value in values]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0, 0),
        (2**53 + 1, 2**53 + 1),
        (-(2**63), -(2**63)),
        (2**63 - 1, 2**63 - 1),
        (2**63, float(2**63)),
        (2**64 + 1, float(2**64)),
        (-(10**300), -1e300),
        (True, True),
        (False, False),
        (np.bool_(True), True),
        (np.int8(-5), -5),
        (np.int64(2**53 + 1), 2**53 + 1),
        (np.uint64(2**63 + 2**11), float(2**63 + 2**11)),
        (np.float16(0.1), float(np.float16(0.1))),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64(0.1), 0.1),
        (np.longdouble(0.5), 0.5),
        (np.array(1.5), 1.5),
        (np.array(7), 7),
        (np.array([2.5]), 2.5),
        (decimal.Decimal("0.25"), 0.25),
        (fractions.Fraction(1, 4), 0.25),
    ],
    ids=lambda value: f"{type(value).__name__} {value}"[:30],
)
def test_numbers_of_every_kind_are_kept_as_what_they_are(run: runstone.Run, value: Any, kept: Any) -> None:
    run.log({"x": value}, step=0)
    run.metric("y")(value, step=0)
    run.finish()
    for name in ("x", "y"):
        found = run.read().series(name).value.tolist()
        assert found == [kept]
        assert type(found[0]) is type(kept)


@pytest.mark.heavy
def test_tensors_of_one_element_are_numbers(run: runstone.Run) -> None:
    torch = pytest.importorskip("torch")
    run.log(
        {
            "float32": torch.tensor(0.1),
            "bfloat16": torch.tensor(0.1, dtype=torch.bfloat16),
            "float16": torch.tensor(0.1, dtype=torch.float16),
            "float64": torch.tensor(0.1, dtype=torch.float64, requires_grad=True) * 2,
            "int": torch.tensor(3),
            "bool": torch.tensor(True),
            "one": torch.ones(1, 1),
        },
        step=torch.tensor(4),
    )
    with pytest.raises(runstone.InvalidValue, match=r"Tensor of shape \(3,\)"):
        run.log({"x": torch.ones(3)})
    with pytest.raises(runstone.InvalidValue, match=r"must be one number|must be a number"):
        run.log({"x": torch.ones((), device="meta")})
    with pytest.raises(runstone.InvalidValue, match="complex"):
        run.log({"x": torch.tensor(1j)})
    run.log({"y": 1.0})
    run.finish()
    found = {name: run.read().series(name).value.tolist()[0] for name in run.read().metrics}
    assert found == {
        "float32": float(np.float32(0.1)),
        "bfloat16": 0.10009765625,
        "float16": float(np.float16(0.1)),
        "float64": 0.2,
        "int": 3,
        "bool": True,
        "one": 1.0,
        "y": 1.0,
    }
    assert run.read().series("int").step.tolist() == [4]


class Hostile:
    """Raises wherever it is touched."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __float__(self) -> float:
        raise RuntimeError("float")

    def item(self) -> float:
        raise OSError("item")

    @property
    def shape(self) -> tuple[int, ...]:
        return (2, 3)


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __float__(self) -> float:
        raise SystemError("float")


@pytest.mark.parametrize(
    "value",
    [
        b"1",
        "x" * (1 << 16) + "!",
        1j,
        np.complex128(1j),
        None,
        [1.0],
        (),
        {1.0},
        object(),
        np.ones(3),
        np.empty((0,)),
        10**400,
        Hostile(),
        Unshowable(),
        fractions.Fraction(10**400),
        lambda: 1.0,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_number_is_refused_with_its_name_and_costs_the_others_nothing(run: runstone.Run, value: Any) -> None:
    with pytest.raises(runstone.InvalidValue, match=r"metric 'bad' must|metric 'bad' has a text|the integer has"):
        run.log({"before": 1.0, "bad": value, "after": 2.0, "deep": {"a": 3, "b": 4.0}}, step=3)
    with pytest.raises(runstone.InvalidValue):
        run.log({"deep": {"c": 1.0, "bad": value, "d": 2.0}, "last": 5.0}, step=3)
    with pytest.raises(runstone.InvalidValue):
        run.metric("bad")(value)
    run.log({"before": 1.0})  # the step is used up: what was kept of it has it
    run.finish()
    info = run.read()
    assert set(info.metrics) == {"before", "after", "deep/a", "deep/b", "deep/c", "deep/d", "last"}
    assert info.series("before").step.tolist() == [3, 4]
    assert info.dropped == 0


def test_a_thousand_bad_values_in_one_call_cost_the_good_ones_nothing(run: runstone.Run) -> None:
    with pytest.raises(runstone.InvalidValue, match="'0'"):
        run.log({str(number): None if number % 2 == 0 else float(number) for number in range(2000)})
    run.finish()
    assert len(run.read().metrics) == 1000


@pytest.mark.parametrize("metrics", [None, 1.0, [("x", 1.0)], "x", {1.0}], ids=lambda value: type(value).__name__)
def test_what_is_no_mapping_is_refused(run: runstone.Run, metrics: Any) -> None:
    with pytest.raises(runstone.InvalidValue, match="log takes metrics by name"):
        run.log(metrics)
    run.finish()
    assert not run.read().metrics


def test_any_mapping_is_taken_and_nested_ones_are_opened(run: runstone.Run) -> None:
    run.log(UserDict({"a": 1.0, "b": UserDict({"c": 2.0, "d": {"e": 3}}), "empty": {}, "f/g": True, "n": {1: 0.5}}))
    run.log({})
    run.finish()
    info = run.read()
    assert {name: info.series(name).value.tolist() for name in info.metrics} == {
        "a": [1.0],
        "b/c": [2.0],
        "b/d/e": [3],
        "f/g": [True],
        "n/1": [0.5],
    }


def test_metrics_that_are_too_deep_or_hold_themselves_are_refused_alone(run: runstone.Run) -> None:
    deep: dict[str, Any] = {"x": 1.0}
    for _ in range(5000):
        deep = {"d": deep}
    with pytest.raises(runstone.InvalidValue, match="at most 32 deep"):
        run.log({"deep": deep, "good": 1.0})
    cycle: dict[str, Any] = {"inside": 1.0}
    cycle["left"] = cycle["right"] = cycle
    with pytest.raises(runstone.InvalidValue, match="not inside themselves"):
        run.log({"cycle": cycle, "good": 2.0})
    run.finish()
    assert set(run.read().metrics) == {"good", "cycle/inside"}


@pytest.mark.parametrize(
    "step", [-(2**63), -1, 0, 2**53 + 1, 2**63 - 1, True, np.int64(7), np.uint8(255), np.int8(127)]
)
def test_steps_are_any_integers_of_64_bits(run: runstone.Run, step: Any) -> None:
    run.log({"x": 1.0}, step=step)
    run.metric("y")(1.0, step=step)
    if int(step) < 2**63 - 1:
        run.log({"x": 2.0})
        run.finish()
        assert run.read().series("x").step.tolist() == [int(step), int(step) + 1]
    else:
        with pytest.raises(runstone.InvalidValue, match="64 bits"):
            run.log({"x": 2.0})
        run.finish()
    assert run.read().series("y").step.tolist() == [int(step)]


@pytest.mark.parametrize(
    "step",
    [2**63, -(2**63) - 1, 1.5, 1.0, "3", math.nan, np.float64(2), [1], Hostile()],
    ids=lambda s: type(s).__name__,
)
def test_step_that_is_none_is_refused_and_changes_nothing(run: runstone.Run, step: Any) -> None:
    run.log({"x": 0.0})
    for metrics in ({"x": 1.0}, {"x": 1, "y": True}, {"n": {"x": 1.0}}, {"x": None}, {"t": "text"}):
        with pytest.raises(runstone.InvalidValue, match=r"step must be an integer of 64 bits|must be a number"):
            run.log(metrics, step=step)
    with pytest.raises(runstone.InvalidValue, match="step must"):
        run.metric("x")(1.0, step=step)
    with pytest.raises(runstone.InvalidValue, match="step must"):
        run.rewind(step)
    run.log({"x": 1.0})
    run.finish()
    assert run.read().series("x").step.tolist() == [0, 1]
    assert run.read().series("x").value.tolist() == [0.0, 1.0]
    assert run.dropped == 0


def test_steps_that_repeat_and_go_back_are_kept_in_order(run: runstone.Run) -> None:
    steps = [5, 5, 4, -3, 100, 0, 5]
    for number, step in enumerate(steps):
        run.log({"x": float(number)}, step=step)
    run.finish()
    assert run.read().series("x").step.tolist() == steps
    assert run.read().series("x").value.tolist() == [float(number) for number in range(len(steps))]
    summary = run.read().metrics["x"]
    assert (summary.first_step, summary.last_step, summary.last, summary.min_step) == (-3, 100, 6.0, 5)


def test_steps_are_counted_where_none_are_given(run: runstone.Run) -> None:
    for value in range(3):
        run.log({"x": float(value)})
    run.log({"x": 3.0}, step=10)
    run.log({"x": 4.0})
    handle = run.metric("y")
    handle(0.0)
    handle(1.0)
    handle(2.0, step=-5)
    handle(3.0)
    run.finish()
    assert run.read().series("x").step.tolist() == [0, 1, 2, 10, 11]
    assert run.read().series("y").step.tolist() == [0, 1, -5, -4]


def test_metric_that_changes_its_type_stays_one_series_in_order(run: runstone.Run) -> None:
    values: list[Any] = [1, 2.5, True, 4, math.nan, False, 7.0, 2**53 + 2]
    for step, value in enumerate(values):
        run.log({"x": value, "ints": 3}, step=step)
    run.finish()
    series = run.read().series("x")
    assert series.value.dtype == np.float64
    np.testing.assert_array_equal(series.value, np.array([float(value) for value in values]))
    assert series.step.tolist() == list(range(len(values)))
    assert run.read().series("ints").value.dtype == np.int64


values = st.one_of(
    st.floats(), INTEGERS, st.booleans(), st.integers(), st.floats(width=16).map(np.float16), INTEGERS.map(np.int64)
)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=st.lists(st.tuples(st.sampled_from("ab"), values, INTEGERS), max_size=60))
def test_any_points_come_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: str, points: list[tuple[str, Any, int]]
) -> None:
    monkeypatch.setenv("RUNSTONE_LOG", backend)
    expected: dict[str, list[tuple[int, bytes]]] = {}
    with runstone.start_run(environment=False, workspace=tmp_path / backend) as run:
        for name, value, step in points:
            try:
                run.log({name: value}, step=step)
            except runstone.InvalidValue:
                assert abs(value) > 1e308
                continue
            expected.setdefault(name, []).append((step, bits(float(value))))
    info = run.read()
    assert set(info.metrics) == set(expected)
    for name, standing in expected.items():
        series = info.series(name)
        found = [(step, bits(float(value))) for step, value in zip(series.step.tolist(), series.value, strict=True)]
        assert found == standing
        assert info.metrics[name].count == len(standing)


def test_with_warnings_every_kind_of_mistake_is_told_once_and_training_goes_on(
    recwarn: pytest.WarningsRecorder,
) -> None:
    run = runstone.start_run(environment=False, on_error="warn")
    for number in range(100):
        run.log({"good": float(number), "none": None, "": 1.0})
        run.log({"good": 1.0}, step="three")  # type: ignore[arg-type]
        run.log(None)  # type: ignore[arg-type]
        run.metric("good2")(None)
        run.set_tags({"": "x"})
        run.log_params(3)  # type: ignore[arg-type]
        run.set_name("")
        run.rewind(1.5)  # type: ignore[arg-type]
        run.log_artifact("/does/not/exist")
    run.finish()
    told = [str(warning.message) for warning in recwarn]
    assert all(issubclass(warning.category, runstone.TrackingWarning) for warning in recwarn)
    assert all(warning.filename == __file__ for warning in recwarn)
    assert len(told) == len(set(told)) == 6, told
    info = run.read()
    assert info.series("good").step.tolist() == list(range(100))  # a bad value beside them does not stop the count
    assert len(info.warnings) == 6


def test_warnings_as_errors_stop_no_training(capsys: pytest.CaptureFixture[str]) -> None:
    run = runstone.start_run(environment=False, on_error="warn")  # pytest makes errors of warnings here
    run.log({"x": None})
    run.finish()
    assert "metric 'x' must be a number" in capsys.readouterr().err


# --- texts -----------------------------------------------------------------------------------------------------------


def test_texts_are_series_of_their_own_and_no_metrics_of_tables(run: runstone.Run) -> None:
    run.log({"phase": "warm-up", "loss": 1.0, "deep": {"note": np.str_("ü 😀")}}, step=3)
    run.log({"phase": "", "loss": 0.5}, step=4)
    run.metric("phase")("train\nsecond line", step=9)
    run.finish()
    info = run.read()
    series = info.series("phase")
    assert series.step.tolist() == [3, 4, 9]
    assert series.value.tolist() == ["warm-up", "", "train\nsecond line"]
    assert series.value.dtype == object
    assert (np.diff(series.wall_s) >= 0).all()
    assert info.series("deep/note").value.tolist() == ["ü 😀"]
    assert set(info.metrics) == {"loss"}
    assert info.record_names == ["deep/note", "phase"]
    assert [(record.kind, record.step, record.text) for record in info.records("phase")] == [
        ("text", 3, "warm-up"),
        ("text", 4, ""),
        ("text", 9, "train\nsecond line"),
    ]
    assert run.workspace.runs("metrics.loss < 1").to_dicts()[0]["name"] == run.name


def test_metric_that_was_number_and_text_keeps_both(run: runstone.Run) -> None:
    for step, value in enumerate([1.0, "n/a", 2, "inf", True]):
        run.log({"x": value}, step=step)
    run.finish()
    info = run.read()
    assert info.series("x").value.tolist() == [1.0, 2.0, 1.0]
    assert info.series("x").step.tolist() == [0, 2, 4]
    assert [(record.step, record.text) for record in info.records("x")] == [(1, "n/a"), (3, "inf")]
    assert info.metrics["x"].count == 3


def test_text_that_utf8_cannot_hold_is_kept_readable_and_one_too_long_is_refused(run: runstone.Run) -> None:
    run.log({"x": "a\udcffb\0c"})
    run.log({"x": "é" * (1 << 15)})
    with pytest.raises(runstone.InvalidValue, match=r"65538 bytes, at most 65536 are kept here; log_text"):
        run.log({"x": "é" * ((1 << 15) + 1)})
    run.finish()
    assert run.read().series("x").value.tolist() == ["a\\udcffb\0c", "é" * (1 << 15)]


def test_what_has_a_place_of_its_own_is_told_where(run: runstone.Run) -> None:
    pandas = pytest.importorskip("pandas")
    image = pytest.importorskip("PIL.Image")
    for value, place in (
        (pandas.DataFrame({"a": [1, 2]}), "log_table"),
        (image.new("L", (2, 2)), "log_image"),
        (np.ones(3), "log_series for values of many steps and log_histogram"),
        (b"x", "decode bytes"),
    ):
        with pytest.raises(runstone.InvalidValue, match=place):
            run.log({"x": value})


# --- many at once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (np.linspace(0, 1, 5), np.linspace(0, 1, 5)),
        ([1, 2.5, math.nan, math.inf, -0.0], np.array([1, 2.5, math.nan, math.inf, -0.0])),
        (np.arange(5, dtype=np.int8), np.arange(5)),
        (np.array([0, 1, 2, 3, 2**63], np.uint64), np.array([0, 1, 2, 3, 2**63], np.float64)),
        (np.array([1, 0, 1, 1, 0], bool), np.array([True, False, True, True, False])),
        (np.arange(10, dtype=np.float16)[::2], np.arange(0, 10, 2, dtype=np.float64)),
        (range(5), np.arange(5)),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_whole_arrays_are_kept_as_one_by_one(run: runstone.Run, values: Any, kept: Any) -> None:
    run.log({"x": kept[0].item()}, step=-1)
    run.log_series("x", range(5), values)
    run.log({"y": 1.0})
    run.log({"x": kept[0].item()}, step=9)
    run.finish()
    series = run.read().series("x")
    assert series.step.tolist() == [-1, 0, 1, 2, 3, 4, 9]
    assert series.value.dtype == kept.dtype
    assert series.value[1:-1].tobytes() == kept.tobytes()
    assert run.read().series("y").step.tolist() == [5]  # the step after the last


@pytest.mark.heavy
def test_arrays_of_torch_and_pandas_are_taken(run: runstone.Run) -> None:
    torch = pytest.importorskip("torch")
    pandas = pytest.importorskip("pandas")
    run.log_series("t", torch.arange(3), torch.ones(3, requires_grad=True) * 2)
    run.log_series("b", torch.arange(3), torch.ones(3, dtype=torch.bfloat16))
    run.log_series("p", pandas.Series([5, 6]), pandas.Series([0.5, None]))
    run.finish()
    info = run.read()
    assert info.series("t").value.tolist() == [2.0, 2.0, 2.0]
    assert info.series("b").value.tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_array_equal(info.series("p").value, [0.5, math.nan])
    assert info.series("p").step.tolist() == [5, 6]


def test_a_million_points_cross_segments_in_order(run: runstone.Run) -> None:
    count = 1_000_003
    values = np.random.default_rng(7).normal(size=count)
    run.log({"x": 0.5, "other": 1.0}, step=-1)
    run.log_series("x", np.arange(count), values)
    run.log_series("x", [], [])
    for step in range(5000):
        run.log({"other": 2.0}, step=step)
    run.finish()
    info = run.read()
    assert np.array_equal(info.series("x").step, np.arange(-1, count))
    assert np.array_equal(info.series("x").value[1:], values)
    assert len(info.series("other")) == 5001
    assert info.dropped == 0


@pytest.mark.parametrize(
    ("steps", "values", "message"),
    [
        ([1, 2], [1.0], "2 steps and 1 values"),
        ([[1], [2]], [1.0, 2.0], "one dimension"),
        ([1.0, 2.0], [1.0, 2.0], "must be integers"),
        (["a"], [1.0], "must be integers"),
        (np.array([2**63], np.uint64), [1.0], "must be integers"),
        ([1], ["a"], "must be numbers"),
        ([1], [1j], "must be numbers"),
        ([1], [None], "must be numbers"),
        ([1], Hostile(), "one dimension|no array"),
        (None, None, "one dimension"),
        ([1, 2], [[1], [2, 3]], "no array"),
    ],
)
def test_arrays_that_are_no_series_are_refused_whole(run: runstone.Run, steps: Any, values: Any, message: str) -> None:
    run.log({"x": 1.0}, step=3)
    with pytest.raises(runstone.InvalidValue, match=message):
        run.log_series("x", steps, values)
    with pytest.raises(runstone.InvalidName):
        run.log_series("", [1], [1.0])
    run.log({"x": 2.0})
    run.finish()
    assert run.read().series("x").step.tolist() == [3, 4]
