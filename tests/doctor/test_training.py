"""What the metrics show: numbers that are none, losses that ran away."""

from __future__ import annotations

import math

import pytest

from runstone.doctor import Severity
from tests.doctor.patients import Patient, kinds, only

NAN, INF = math.nan, math.inf


def decay(count: int = 100) -> list[float]:
    """Return a loss as it should be."""
    return [2.0 / (1 + 0.1 * step) + 0.05 * math.sin(step * 7.3) for step in range(count)]


def test_losses_that_fall_are_fine(patient: Patient) -> None:
    assert kinds(patient(metrics={"train/loss": decay(), "val/loss": decay(12), "acc": [0.1, 0.9]})) == []


def test_the_first_nan_is_told_with_what_came_before(patient: Patient) -> None:
    loss = [*decay(40), 3.0, 25.0, 900.0, NAN, NAN, NAN]
    info = patient(
        metrics={"train/loss": loss, "grad_norm": [*([1.2] * 42), 4000.0], "lr": [0.1] * 43, "val/loss": [0.5, NAN]},
        params={"precision": "16-mixed"},
    )
    found = only(info, "first_nan")
    assert found.severity is Severity.CRITICAL
    assert found.title == "train/loss became NaN at step 43"
    assert "It rose before: " in found.explanation
    assert "3, 25, 900, then NaN" in found.explanation
    assert "After it: val/loss at step 1" in found.explanation
    assert "3 of 46 points are none, the last among them" in found.explanation
    assert "Clip the gradients" in found.action
    assert "precision=16-mixed overflows" in found.action
    assert found.evidence.series == ("train/loss", "val/loss")
    assert (found.evidence.first_step, found.evidence.last_step) == (43, 45)


def test_what_the_gradients_did_before_is_told(patient: Patient) -> None:
    """The norm is logged first here, so that it is known at the time of the NaN."""
    info = patient(metrics={"grad_norm": [*([1.2] * 20), 4000.0], "lr": [0.1] * 20, "loss": [*decay(20), NAN]})
    found = only(info, "first_nan")
    assert "grad_norm had risen to 4000, from 1.2 in the median" in found.explanation
    assert "The learning rate (lr) was 0.1" in found.explanation
    assert "It gave no warning" in found.explanation
    assert "log(0)" in found.action


def test_a_loss_that_recovers_is_a_warning(patient: Patient) -> None:
    found = only(patient(metrics={"loss": [1.0, 0.9, INF, 0.8, 0.7]}), "first_nan")
    assert found.severity is Severity.WARNING
    assert found.title == "loss became Inf at step 2"
    assert "the last is a number again" in found.explanation


def test_overflows_of_mixed_precision_are_fine(patient: Patient) -> None:
    norm = [INF if step in (3, 60) else 1.0 for step in range(100)]
    assert kinds(patient(metrics={"grad_norm": norm, "loss": decay()})) == []


def test_a_metric_that_never_was_a_number_is_a_note(patient: Patient) -> None:
    assert only(patient(metrics={"val/auc": [NAN, NAN]}), "never_a_number").severity is Severity.NOTE


def test_a_loss_that_ends_worse_than_it_began_ran_away(patient: Patient) -> None:
    loss = [*decay(60), *(0.3 * 1.15**step for step in range(40))]
    found = only(patient(metrics={"loss": loss}), "diverged")
    assert found.title == "loss ran away"
    assert found.severity is Severity.CRITICAL


@pytest.mark.parametrize(
    "loss",
    [
        [*decay(99), 80.0],  # one spike
        [*decay(70), *(0.35 + 0.005 * step for step in range(40))],  # rises a little: overfitting is not divergence
        [1.0 + 0.5 * math.sin(step * 9.7) for step in range(200)],  # noise
        [-2.0 - step * 0.1 for step in range(100)],  # a loss below zero
    ],
)
def test_spikes_noise_and_small_rises_are_fine(patient: Patient, loss: list[float]) -> None:
    assert kinds(patient(metrics={"loss": loss})) == []
