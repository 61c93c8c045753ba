"""Runs folded by their seeds: which group is better, and what to know before that is believed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import runstone
from runstone.comparison import Measure, compare
from runstone.comparison.measure import goal_of, parse_measure, value_at
from runstone.statistics import difference
from runstone.values import Series

pytest.importorskip("scipy")


def test_groups_are_told_apart_by_partners(workspace: runstone.Workspace) -> None:
    (grouping,) = compare(workspace.runs(), by="params.model", metrics=["val/acc.max"]).groupings
    assert [group.label for group in grouping.groups] == ["vit", "cnn", "mlp"]
    assert [len(group.sample) for group in grouping.groups] == [8, 8, 8]
    first = grouping.verdicts[0]
    assert (first.winner, first.loser, first.word, first.is_paired, first.count) == ("vit", "cnn", "better", True, 8)
    assert first.low is not None
    assert first.high is not None
    assert first.low < 0.01 < first.high
    assert grouping.notes == ()
    # Without the partners, what both owe to the seed hides the difference.
    samples = [list(group.sample.values()) for group in grouping.groups]
    assert (difference(samples[0], samples[1]).p or 0) > 0.05


def test_the_values_are_those_of_the_runs(workspace: runstone.Workspace) -> None:
    (grouping,) = compare(workspace.runs(), by="params.model", metrics=["val/acc.max"]).groupings
    for group in grouping.groups:
        values = [workspace.run(run_id).metrics["val/acc"].max for run_id in group.run_ids]
        assert list(group.sample.values()) == values
        assert group.summary is not None
        assert group.summary.mean == pytest.approx(np.mean(values))
        assert group.summary.sd == pytest.approx(np.std(values, ddof=1))


def test_config_is_all_params_but_seeds(workspace: runstone.Workspace) -> None:
    (grouping,) = compare(workspace.runs(), by="config", metrics=["val/acc"]).groupings
    assert {group.label for group in grouping.groups} == {
        "model=mlp, width=64", "model=cnn, width=(not set)", "model=vit, width=(not set)",
    }  # fmt: skip
    assert all(len(group.run_ids) == 8 for group in grouping.groups)


def test_several_fields_and_what_is_not_set(workspace: runstone.Workspace) -> None:
    (grouping,) = compare(workspace.runs(), by=["tags.team", "params.width"], metrics=["val/acc"]).groupings
    labels = {group.label: len(group.run_ids) for group in grouping.groups}
    assert labels == {
        "tags.team=a, width=64": 7, "tags.team=a, width=(not set)": 14,
        "tags.team=(not set), width=64": 1, "tags.team=(not set), width=(not set)": 2,
    }  # fmt: skip


def test_it_is_said_what_else_differs_within_groups(workspace: runstone.Workspace) -> None:
    (grouping,) = compare(workspace.runs(), by="tags.team", metrics=["val/acc"]).groupings
    assert any("more than the seed differs: model, width" in note for note in grouping.notes)


def test_runs_without_a_finite_value_are_left_out_and_counted(home: Path) -> None:
    for number, value in enumerate((1.0, 2.0, math.nan, math.inf, None)):
        with runstone.start_run(project="p", params={"m": number % 2}, workspace=home, environment=False) as run:
            if value is not None:
                run.log({"loss": value}, step=0)
    (grouping,) = compare(runstone.open_workspace(home).runs(), by="params.m", metrics=["loss"]).groupings
    assert grouping.notes[0] == "3 runs without a finite value are left out"
    assert [len(group.sample) for group in grouping.groups] == [1, 1]
    assert grouping.verdicts[0].word == "none"


def test_seeds_that_occur_twice_are_told(home: Path) -> None:
    for model in "ab":
        for number in range(4):
            params = {"model": model, "seed": number // 2}
            with runstone.start_run(project="p", params=params, workspace=home, environment=False) as run:
                run.log({"acc": number + (model == "b")}, step=0)
    (grouping,) = compare(runstone.open_workspace(home).runs(), by="params.model", metrics=["acc"]).groupings
    assert not grouping.verdicts[0].is_paired
    assert grouping.notes == ("the same seed occurs more than once in b, a: such runs are not independent",)


def test_partners_share_all_params_that_are_not_grouped_by(home: Path) -> None:
    for model in "ab":
        for lr in (0.1, 0.01):
            for seed in range(3):
                params = {"model": model, "lr": lr, "seed": seed}
                with runstone.start_run(project="p", params=params, workspace=home, environment=False) as run:
                    run.log({"acc": lr * 10 + seed + (0.01 + seed / 1000 if model == "b" else 0)}, step=0)
    (grouping,) = compare(runstone.open_workspace(home).runs(), by="params.model", metrics=["acc"]).groupings
    (verdict,) = grouping.verdicts
    assert (verdict.winner, verdict.word, verdict.is_paired, verdict.count) == ("b", "better", True, 6)
    assert grouping.notes == ("within groups more than the seed differs: lr; group by them, too, or filter",)


def test_a_baseline_that_is_not_there_is_refused(workspace: runstone.Workspace) -> None:
    with pytest.raises(runstone.InvalidValue, match=r"there is no group 'resnet'.*'vit', 'cnn', 'mlp'"):
        compare(workspace.runs(), by="params.model", metrics=["val/acc"], baseline="resnet")
    found = compare(workspace.runs(), by="params.model", metrics=["val/acc"], baseline="cnn")
    assert [(verdict.winner, verdict.loser) for verdict in found.groupings[0].verdicts] == [
        ("vit", "cnn"),
        ("cnn", "mlp"),
    ]


def test_the_order_names_the_metric_where_none_is_named(workspace: runstone.Workspace) -> None:
    found = compare(workspace.runs(), by="params.model", order_by="metrics.val/acc.max desc")
    assert found.groupings[0].measure == Measure("val/acc", "max", "maximize")
    with pytest.raises(runstone.InvalidValue, match="name the metric to compare by; the runs have"):
        compare(workspace.runs(), by="params.model")


# --- measures ---------------------------------------------------------------------------------------------------------


def test_a_value_is_taken_where_another_metric_is_best(workspace: runstone.Workspace) -> None:
    runs = workspace.runs("params.seed = 3")
    found = compare(runs, metrics=["train/loss"], at="val/loss.min")
    (row,) = found.measures
    assert row.measure.label == "train/loss at val/loss min"
    for run in runs:
        step = run.metrics["val/loss"].min_step
        series = run.series("train/loss")
        assert row.values[run.id] == series.value[series.step == step][0]


def test_at_takes_the_last_point_up_to_the_step() -> None:
    steps, values = np.array([0, 10, 20, 10, 30]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    series = Series("m", steps, values, np.zeros(5))
    assert [value_at(series, step) for step in (-1, 0, 9, 10, 15, 25, 99)] == [None, 1.0, 1.0, 4.0, 4.0, 3.0, 5.0]


@pytest.mark.parametrize(
    ("name", "goal"),
    [
        ("val/acc", "maximize"), ("val/loss", "minimize"), ("RMSE", "minimize"), ("valLoss", "minimize"),
        ("glossiness", "maximize"), ("epoch_time", "minimize"), ("f1", "maximize"), ("test.error_rate", "minimize"),
    ],
)  # fmt: skip
def test_the_name_says_what_is_better(name: str, goal: str) -> None:
    assert goal_of(name) == goal


def test_a_metric_may_be_called_anything() -> None:
    known = ["loss.min", "loss", "a.b", "metrics.x"]
    assert parse_measure("loss.min", known) == Measure("loss.min", "last", "minimize")
    assert parse_measure("loss.max", known) == Measure("loss", "max", "maximize")
    assert parse_measure("loss.best", known) == Measure("loss", "min", "minimize")
    assert parse_measure("a.b.best", known) == Measure("a.b", "max", "maximize")
    assert parse_measure("metrics.x", known).name == "metrics.x"
    assert parse_measure("metrics.loss", known).name == "loss"
    assert parse_measure("loss", known, goal="maximize").is_maximized
    with pytest.raises(runstone.InvalidValue, match="none of the runs has a metric 'lss'; there is 'loss'"):
        parse_measure("lss", known)
    with pytest.raises(runstone.InvalidValue, match="use one of them"):
        parse_measure("loss.max", known, at="a.b.min")
    with pytest.raises(runstone.InvalidValue, match="lowest or highest"):
        parse_measure("loss", known, at="a.b.mean")


def test_what_is_out_of_range_is_refused(workspace: runstone.Workspace) -> None:
    runs = workspace.runs(limit=3)
    for options, message in (
        ({"confidence": 1.0}, "confidence"), ({"margin": -1.0}, "margin"), ({"test": "x"}, "test is 'x'"),
        ({"correction": "x"}, "correction"), ({"goal": "up"}, "goal is 'up'"),
    ):  # fmt: skip
        with pytest.raises(runstone.InvalidValue, match=message):
            compare(runs, **options)  # type: ignore[arg-type]


# --- front ------------------------------------------------------------------------------------------------------------


def test_the_front_is_what_nothing_beats(workspace: runstone.Workspace) -> None:
    found = compare(workspace.runs(), metrics=["val/acc.max", "train/loss.min"])
    assert found.front is not None
    points = found.front.points
    beaten = {
        one
        for one, (acc, loss) in points.items()
        if any(a >= acc and b <= loss and (a > acc or b < loss) for a, b in points.values())
    }
    assert set(found.front.best) == set(points) - beaten
    grouped = compare(workspace.runs(), metrics=["val/acc.max", "val/loss.min"], by="params.model")
    assert grouped.front is not None
    assert grouped.front.best == ("vit",)
    assert compare(workspace.runs(), metrics=["val/acc"]).front is None
