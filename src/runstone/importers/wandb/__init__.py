"""Offline runs of Weights & Biases, read without its library. `wire` knows the bytes, `log` what its records say."""

from __future__ import annotations

from runstone.importers.wandb.store import is_store, read

__all__ = ["is_store", "read"]
