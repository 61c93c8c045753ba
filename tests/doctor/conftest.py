"""What the tests of the doctor share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.patients import Patient


@pytest.fixture
def patient(home: Path) -> Patient:
    """Return a function that records a run."""
    return Patient(home)
