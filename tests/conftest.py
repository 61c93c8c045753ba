"""What all tests share: no setting of the machine leaks in, and nothing that cannot be recorded goes unseen."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis.internal.conjecture import providers

from runstone import settings
from runstone.current import set_current

# What is tried is the same each time, so that a change is judged by what it changes; `make soak` looks for new cases.
# No deadlines: a test checks what happens, not how fast on a busy machine.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("new", deadline=None)
hypothesis.settings.load_profile("new" if os.environ.get("RUNSTONE_SOAK") else "same")
if not os.environ.get("RUNSTONE_SOAK"):
    # Hypothesis also draws constants out of whatever modules of ours happen to be loaded: what is tried would depend on
    # which tests came before, and on every change of the source.
    providers._get_local_constants = lambda: providers._local_constants  # type: ignore[attr-defined]

# Started in the background or by nohup, a process is deaf to these, and so would be those that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


class _FailuresAtOnce:
    """Prints a failure when it happens: a run that is cut off has told of it then."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome in ("failed", "rerun"):
            self._terminal.ensure_newline()
            self._terminal.write_line(f"{report.outcome.upper()} {report.nodeid} ({report.when})")
            self._terminal.write_line(report.longreprtext)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_FailuresAtOnce(terminal))


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_current(None)  # a run that another test left open is nobody's here
    for variable in settings.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for variable in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("RUNSTONE_ON_ERROR", "raise")
    monkeypatch.setenv("RUNSTONE_SYSTEM_METRICS", "0")  # tests of what is logged would see them after a second
    # checkouts that tests make stay as they made them, whichever program of theirs runs there
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    # a run that names no workspace must never find the one of whoever runs the tests
    monkeypatch.setenv("RUNSTONE_WORKSPACE", str(tmp_path / ".runstone"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the workspace of a test lies."""
    return tmp_path / ".runstone"
