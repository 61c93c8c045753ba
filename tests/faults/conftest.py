"""Programs of users, as the tests of recording start them."""

from __future__ import annotations

from tests.recording.conftest import _no_run_is_left_open, only_run, run_program, start

__all__ = ["_no_run_is_left_open", "only_run", "run_program", "start"]
