"""What a sweep searches, as values: parameters, when each of them exists, and the space that they span."""

from __future__ import annotations

from runstone_sweeps.space.conditions import Clause, Condition
from runstone_sweeps.space.drawn import Drawn, Law
from runstone_sweeps.space.parameters import Choice, Constant, Parameter, Real, Searched, Whole, find_clash
from runstone_sweeps.space.scalars import Scalar, label, last_step
from runstone_sweeps.space.space import Space, nest

__all__ = [
    "Choice",
    "Clause",
    "Condition",
    "Constant",
    "Drawn",
    "Law",
    "Parameter",
    "Real",
    "Scalar",
    "Searched",
    "Space",
    "Whole",
    "find_clash",
    "label",
    "last_step",
    "nest",
]
