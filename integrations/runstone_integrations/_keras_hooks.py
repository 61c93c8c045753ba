"""Hooks that a callback must have for Keras to run `fit`, `evaluate` and `predict`, though it has no use for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class QuietHooks:
    """Hooks in which there is nothing to record."""

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    def on_test_batch_begin(self, batch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    def on_test_batch_end(self, batch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    def on_predict_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    def on_predict_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    def on_predict_batch_begin(self, batch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    def on_predict_batch_end(self, batch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""
