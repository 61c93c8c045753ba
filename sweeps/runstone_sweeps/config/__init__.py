"""What a file or a command line says of a sweep becomes a `SweepSpec`, with every mistake named at once."""

from __future__ import annotations

from runstone_sweeps.config.overrides import apply_overrides, config_from_script, is_script
from runstone_sweeps.config.quantities import parse_bytes, parse_duration, parse_energy
from runstone_sweeps.config.read import load_spec, parse_spec
from runstone_sweeps.config.search import MAX_GRID

__all__ = [
    "MAX_GRID",
    "apply_overrides",
    "config_from_script",
    "is_script",
    "load_spec",
    "parse_bytes",
    "parse_duration",
    "parse_energy",
    "parse_spec",
]
