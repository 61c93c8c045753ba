"""The programs that tests here start leave nothing open, however they ended: else a later test is told of it."""

from __future__ import annotations

import gc
import signal
import sys
import warnings
from pathlib import Path

import pytest

from tests.recording.conftest import Program


@pytest.mark.parametrize("how", ["read to its end", "killed", "ended by itself", "still running"])
def test_a_program_that_is_let_go_leaves_no_file_open(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program("print('ready', flush=True); input()" if how != "ended by itself" else "print('x')", tmp_path, {})
    if how == "killed":
        program.wait_until_ready()
        program.send(signal.SIGKILL)
        program.process.wait(60)
    elif how == "ended by itself":
        program.process.wait(60)
    elif how == "read to its end":
        program.go_on()
        assert program.end().code == 0
    program.close()
    assert program.process.returncode is not None
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del program
        gc.collect()
    assert [str(one.message) for one in caught if one.category is ResourceWarning] == []
    assert told == []
