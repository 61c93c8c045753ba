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
        "0.5",
        b"1",
        np.str_("x"),
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
    with pytest.raises(runstone.InvalidValue, match=r"metric 'bad' must|the integer has"):
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
        run.log({str(number): "bad" if number % 2 == 0 else float(number) for number in range(2000)})
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
    for metrics in ({"x": 1.0}, {"x": 1, "y": True}, {"n": {"x": 1.0}}, {"x": "bad"}):
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
        run.log({"good": float(number), "text": "bad", "": 1.0})
        run.log({"good": 1.0}, step="three")  # type: ignore[arg-type]
        run.log(None)  # type: ignore[arg-type]
        run.metric("good2")("bad")
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
    run.log({"x": "bad"})
    run.finish()
    assert "metric 'x' must be a number" in capsys.readouterr().err
