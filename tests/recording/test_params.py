"""Params: any value becomes JSON and comes back, whatever its own code does; flat names never clash."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import time
import uuid
from collections import OrderedDict, UserDict, namedtuple
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runstone
from runstone.params import flatten_params, is_equal, merge_params, to_json

any_text = st.text(st.characters(), max_size=20)  # lone surrogates and NUL included
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), any_text)
keys = st.one_of(any_text, st.sampled_from(["$", "$float", "$$float", "$x", "a.b", "a\\", "0", ""]))
json_values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=20,
)


def log(params: Any, **options: Any) -> dict[str, Any]:
    with runstone.start_run(environment=False, **options) as run:
        run.log_params(params)
    return run.read().params


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(params=st.dictionaries(keys, json_values, max_size=5))
def test_any_json_comes_back_equal(tmp_path: Path, params: dict[str, Any]) -> None:
    assert is_equal(log(params, workspace=tmp_path / "any"), params)


@settings(max_examples=300, deadline=None)
@given(params=st.dictionaries(keys, json_values, max_size=5))
def test_no_two_params_share_a_flat_name(params: dict[str, Any]) -> None:
    def count(value: Any, is_root: bool = False) -> int:
        if isinstance(value, dict) and (value or is_root):
            return sum(count(item) for item in value.values())
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            return sum(count(item) for item in value)
        return 1

    assert len(flatten_params(params)) == count(params, is_root=True)


def test_flat_names() -> None:
    nested = {"model": {"layers": [64, 32], "blocks": [{"w": 1}, {"w": 2}], "empty": {}}, "a.b": 1, "c\\": {"d": None}}
    assert flatten_params(nested) == {
        "model.layers": [64, 32],
        "model.blocks.0.w": 1,
        "model.blocks.1.w": 2,
        "model.empty": {},
        "a\\.b": 1,
        "c\\\\.d": None,
    }
    assert flatten_params({}) == {}


class Color(enum.Enum):
    RED = "red"
    MIX = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Config:
    lr: float
    inner: Any = None


Pair = namedtuple("Pair", "a b")


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ((1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (Pair(1, {2}), [1, [2]]),
        (Config(0.1, Config(0.2)), {"lr": 0.1, "inner": {"lr": 0.2, "inner": None}}),
        (OrderedDict(a=UserDict(b=1)), {"a": {"b": 1}}),
        (Path("/a/b"), "/a/b"),
        (PurePosixPath("x"), "x"),
        (Color.RED, "red"),
        (Color.MIX, "MIX"),
        (Level.HIGH, 3),
        (np.float32(0.5), 0.5),
        (np.int64(2**60), 2**60),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.array(2.5), 2.5),
        (Text("kept"), "kept"),
        (Decimal("0.10"), "0.10"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.timedelta(seconds=1), "0:00:01"),
        (math.inf, math.inf),
        (10**300, 10**300),
        ({1: "a", None: "b", False: "c", 2.5: "d"}, {"1": "a", "None": "b", "False": "c", "2.5": "d"}),
        ({(1, 2): 3}, {"[1, 2]": 3}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_with_a_plain_counterpart_are_kept_as_that(value: Any, kept: Any) -> None:
    assert to_json({"x": value}) == ({"x": kept}, [])
    assert log({"x": value}) == {"x": kept}


class ReprRaises:
    def __repr__(self) -> str:
        raise RuntimeError


class Liar:
    """Says that it is something else, as mocks do."""

    @property
    def __class__(self) -> Any:
        return int


class BadMapping(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError


class Item:
    shape = ()

    def item(self) -> Any:
        raise RuntimeError


def local_function() -> None: ...


@pytest.mark.parametrize(
    ("value", "begin"),
    [
        (object(), "<object> <object object at"),
        (ReprRaises(), "<"),
        (Liar(), "<"),
        (BadMapping(a=1), "<"),
        (Item(), "<"),
        (np.zeros((3, 4)), "<numpy.ndarray> shape (3, 4), dtype float64"),
        (local_function, "<function> "),
        (ReprRaises, "<type> "),
        (b"bytes", "<bytes> b'bytes'"),
        (1j, "<complex> 1j"),
        (10**5000, "<int> 0x"),
        (-(2**20000), "<int> -0x"),
        (iter(int, 1), "<callable_iterator> "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_kept_as_text_with_its_type_and_told_once(value: Any, begin: str) -> None:
    run = runstone.start_run(environment=False, on_error="warn")
    with pytest.warns(runstone.TrackingWarning, match=r"kept as text with their type: 'a\.x'"):
        run.log_params({"a": {"x": value}, "good": 1})
    run.log_params({"b": {"x": value}})  # a second warning would be an error here
    run.finish()
    params = run.read().params
    assert params["good"] == 1
    assert params["a"]["x"].startswith(begin)
    assert len(params["a"]["x"]) < 2100


def test_cycles_depth_and_structures_that_explode_are_cut() -> None:
    cycle: list[Any] = [1]
    cycle.append({"again": cycle})
    assert to_json(cycle) == ([1, {"again": "<list> (cycle)"}], ["1.again"])
    deep: Any = "bottom"
    for _ in range(5000):
        deep = [deep]
    kept, places = to_json({"deep": deep, "good": 1})
    assert isinstance(kept, dict)
    assert kept["good"] == 1
    assert len(places) == 1
    assert "(nested too deep)" in json.dumps(kept)
    wide: Any = [0, 1]
    for _ in range(60):  # 2**60 values, in 60 lists
        wide = [wide, wide]
    begin = time.process_time()
    _kept, places = to_json({"good": 1, "wide": wide})
    assert time.process_time() - begin < 30
    assert places


def test_params_of_any_length_are_kept() -> None:
    params = {"text": "x" * 1_000_000, **{f"p{number}": number for number in range(100_000)}}
    assert log(params) == params


@pytest.mark.parametrize("backend", ["mmap", "append"])
def test_params_however_long_many_or_deep_leave_the_metrics_alone(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("RUNSTONE_LOG", backend)
    deep: dict[str, Any] = {"bottom": 1}
    for _ in range(1000):
        deep = {"d": deep}
    run = runstone.start_run(environment=False, on_error="warn")
    run.log({"x": 0.0}, step=0)
    run.log_params({"long": "x" * 1_000_000})
    run.log({"x": 1.0}, step=1)
    run.log_params({f"p{number}": number for number in range(100_000)})
    run.log({"x": 2.0}, step=2)
    with pytest.warns(runstone.TrackingWarning, match=r"kept as text with their type: 'deep\.d\.d"):
        run.log_params({"deep": deep, "beside": True})
    run.log({"x": 3.0}, step=3)
    run.finish()
    info = run.read()
    assert info.series("x").value.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert len(info.params["long"]) == 1_000_000
    assert [info.params[f"p{number}"] for number in range(100_000)] == list(range(100_000))
    assert info.params["beside"] is True
    depth, inside = 0, info.params["deep"]
    while isinstance(inside, dict):
        depth, inside = depth + 1, inside["d"]
    assert depth > 10
    assert "nested too deep" in inside
    assert len(info.flat_params) == 100_003
    (found,) = run.workspace.runs("params.p99999 = 99999 and params.beside = true")
    assert found.id == run.id


def test_keys_that_json_cannot_tell_apart_are_all_kept() -> None:
    run = runstone.start_run(environment=False, on_error="warn")
    with pytest.warns(runstone.TrackingWarning, match="as text"):
        run.log_params({"<int> 1": "x", "1": "y", 1: "z"})
    run.finish()
    assert run.read().params == {"<int> 1": "x", "1": "y", "<int> <int> 1": "z"}


def test_later_params_win_key_by_key() -> None:
    with runstone.start_run(params={"a": {"b": 1, "c": 2}, "d": [1]}, environment=False) as run:
        run.log_params({"a": {"b": 3}, "d": {"e": 1}})
        run.log_params({})
    assert run.read().params == {"a": {"b": 3, "c": 2}, "d": {"e": 1}}
    assert run.read().flat_params == {"a.b": 3, "a.c": 2, "d.e": 1}


@given(
    standing=st.dictionaries(any_text, json_values, max_size=3), new=st.dictionaries(any_text, json_values, max_size=3)
)
def test_merging_the_same_params_again_changes_nothing(standing: dict[str, Any], new: dict[str, Any]) -> None:
    merge_params(standing, new)
    once = json.loads(json.dumps(standing))
    merge_params(standing, json.loads(json.dumps(new)))
    assert is_equal(standing, once)


@pytest.mark.parametrize("params", [3, "x", [("a", 1)], ReprRaises()], ids=lambda value: type(value).__name__)
def test_params_that_are_no_mapping_are_refused(params: Any, home: Path) -> None:
    with pytest.raises(runstone.InvalidValue, match="params must be given by name"):
        runstone.start_run(params=params)
    assert not home.exists()
    with runstone.start_run(environment=False) as run, pytest.raises(runstone.InvalidValue):
        run.log_params(params)


def test_values_of_tags_are_text_and_notes_any_text() -> None:
    with runstone.start_run(tags={"a": 1}, notes="half \ud83d", environment=False) as run:
        assert run.read().notes == "half \ud83d"
        run.set_tags({"b": None}, c=1.5, d="x" * 10_000)
        run.remove_tags("a", "not there")
        run.set_notes(None)
        with pytest.raises(runstone.InvalidValue, match="tags must be given by name"):
            run.set_tags("b")  # type: ignore[arg-type]
    assert run.read().tags == {"b": "None", "c": "1.5", "d": "x" * 10_000}
    assert run.read().notes is None


def test_equal_params_are_equal_and_true_is_not_one() -> None:
    assert is_equal({"a": [math.nan, 1, {"b": None}]}, {"a": [math.nan, 1, {"b": None}]})
    assert not is_equal({"a": True}, {"a": 1})
    assert not is_equal([1], [1, 2])
    assert is_equal(1, 1.0)
