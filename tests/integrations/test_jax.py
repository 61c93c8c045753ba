"""Loops on the real JAX, Optax and Flax."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.heavy

jax = pytest.importorskip("jax")

import runstone  # noqa: E402
from runstone_integrations.jax import Track, track  # noqa: E402

jnp = jax.numpy


def read(tracker: Track) -> runstone.RunInfo:
    assert tracker.run is not None
    return runstone.open_workspace().run(tracker.run.id)


@jax.jit  # type: ignore[untyped-decorator]
def slow(matrix: Any) -> Any:
    """Return 30 after about half a second of work, which JAX does after it has returned."""
    return jax.lax.fori_loop(0, 60, lambda _, m: m @ m / 900.0, matrix).sum() / 27_000.0


@pytest.fixture(scope="module")
def matrix() -> Any:
    ones = jnp.ones((900, 900))
    slow(ones).block_until_ready()  # compiled
    return ones


def test_metrics_of_a_loop_are_recorded_with_their_steps() -> None:
    @jax.jit  # type: ignore[untyped-decorator]
    def update(weight: Any) -> Any:
        loss, slope = jax.value_and_grad(lambda w: (w - 3.0) ** 2)(weight)
        return weight - 0.1 * slope, {"loss": loss, "norms": {"weight": jnp.abs(weight)}}

    with track(project="toy", params={"lr": 0.1}) as tracker:
        weight = jnp.float32(0.0)
        for step in range(5):
            weight, metrics = update(weight)
            tracker.log(metrics, step=10 * step)
    info = read(tracker)
    assert (info.status, info.project, info.params) == ("finished", "toy", {"lr": 0.1})
    assert info.series("loss").step.tolist() == [0, 10, 20, 30, 40]
    assert info.series("loss").value[0] == 9.0
    assert info.series("norms/weight").value.tolist()[:2] == [0.0, pytest.approx(0.6)]


def test_value_that_is_not_there_yet_is_not_waited_for_and_keeps_its_place(matrix: Any) -> None:
    with track() as tracker:
        value = slow(matrix)
        metrics = {"loss": value}
        tracker.log({"loss": 1.0})
        tracker.log(metrics)
        metrics["loss"] = 9.0  # the loop may use its mapping again
        tracker.log({"loss": 3.0})
        assert not value.is_ready()
    assert read(tracker).series("loss").value.tolist() == [1.0, 30.0, 3.0]
    assert read(tracker).series("loss").step.tolist() == [0, 1, 2]


def test_rows_that_wait_are_bounded(matrix: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstone_integrations.jax.MAX_WAITING", 2)
    with track() as tracker:
        value = slow(matrix)
        tracker.log({"loss": value})
        tracker.log({"loss": 2.0})
        assert not value.is_ready()
        tracker.log({"loss": 3.0})
        assert value.is_ready(), "the row after the last that may wait waits for the first"
    assert read(tracker).series("loss").value.tolist() == [30.0, 2.0, 3.0]


def test_buffer_that_was_given_away_loses_its_row_and_nothing_else() -> None:
    with track(on_error="warn") as tracker:
        value = jnp.float32(1.0)
        value.delete()
        with pytest.warns(runstone.TrackingWarning):
            tracker.log({"loss": value, "other": 1.0})
        tracker.log({"loss": jnp.float32(2.0)})
    assert read(tracker).series("loss").value.tolist() == [2.0]


def test_exception_fails_the_run_after_what_was_on_its_way() -> None:
    with pytest.raises(RuntimeError, match="the user's own error"), track() as tracker:  # noqa: PT012
        tracker.log({"loss": jnp.float32(1.0)})
        raise RuntimeError("the user's own error")
    assert (read(tracker).status, read(tracker).series("loss").value.tolist()) == ("failed", [1.0])


def test_request_to_stop_reaches_the_loop() -> None:
    with track() as tracker:
        step = 0
        while not tracker.should_stop:
            tracker.log({"loss": jnp.float32(step)}, step=step)
            step += 1
            if step == 3:
                runstone.open_workspace().request_stop(tracker.run.id, "prune")  # type: ignore[union-attr]
    assert (read(tracker).status, step) == ("pruned", 3)


def test_run_of_the_user_is_taken_and_stays_open() -> None:
    with runstone.start_run() as run:
        with track() as tracker:
            tracker.log({"loss": jnp.float32(1.0)})
        assert tracker.run is run
        assert not run.is_finished
    assert runstone.open_workspace().run(run.id).series("loss").value.tolist() == [1.0]


def test_weights_are_the_same_with_and_without_on_flax_and_optax() -> None:
    nnx = pytest.importorskip("flax.nnx")
    optax = pytest.importorskip("optax")
    inputs = jax.random.normal(jax.random.key(1), (16, 3))

    def train(tracker: Track | None) -> Any:
        model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)

        @nnx.jit  # type: ignore[untyped-decorator]
        def step(model: Any, optimizer: Any) -> Any:
            loss, slopes = nnx.value_and_grad(lambda model: jnp.mean((model(inputs) - 1.0) ** 2))(model)
            optimizer.update(model, slopes)
            return {"loss": loss}

        for _ in range(5):
            metrics = step(model, optimizer)
            if tracker is not None:
                tracker.log(metrics)
        return model.kernel[...]

    with track() as tracker:
        tracked = train(tracker)
    assert (tracked == train(None)).all()
    assert len(read(tracker).series("loss").value) == 5
