"""Workspaces on a server: what a run writes here first and is sent there, and moving runs between workspaces."""

from __future__ import annotations
