"""Sealing the long runs of a workspace some time after their end, apart from whoever wrote them."""

from __future__ import annotations
