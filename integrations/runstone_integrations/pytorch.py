"""Helpers for training loops in plain PyTorch: gradients, weights and layers of a module, timing of a loader."""

from __future__ import annotations

from runstone_integrations._pytorch_loader import TrackedLoader, tracked
from runstone_integrations._pytorch_module import ModuleTracker, log_optimizer, track_module

__all__ = ["ModuleTracker", "TrackedLoader", "log_optimizer", "track_module", "tracked"]
