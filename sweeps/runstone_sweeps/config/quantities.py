"""Reads quantities with units, as they are written in a config and on the command line."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)")
_BYTES = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_JOULES = {"": 3.6e6, "j": 1.0, "kj": 1e3, "mj": 1e6, "gj": 1e9, "wh": 3.6e3, "kwh": 3.6e6, "mwh": 3.6e9}


def parse_duration(value: object) -> object:
    """Return seconds for `90`, `"90s"`, `"10m"`, `"1h30m"`, `"2d"`.

    Raises:
        ValueError: it is none of these; the message says what is allowed.
    """
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip().lower())
        if not match or not any(match.groups()):
            raise ValueError(f"is {value!r}; write seconds, or a time such as 90s, 10m, 1h30m, 2d")
        return sum(float(part or 0) * unit for part, unit in zip(match.groups(), (86400, 3600, 60, 1), strict=True))
    return value


def parse_bytes(value: object) -> object:
    """Return bytes for `1048576`, `"8GB"` (decimal), `"8GiB"` or `"8G"` (binary).

    Raises:
        ValueError: it is none of these.
    """
    if not isinstance(value, str):
        return value
    match = _QUANTITY.fullmatch(value.strip())
    unit = _BYTES.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"is {value!r}; write bytes, or a size such as 512MB, 8GB, 8GiB")
    return int(float(match[1]) * unit)


def parse_energy(value: object) -> object:
    """Return joules for `3` (kWh), `"3kWh"`, `"5MJ"`.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value * _JOULES["kwh"]
    if not isinstance(value, str):
        return value
    match = _QUANTITY.fullmatch(value.strip())
    unit = _JOULES.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"is {value!r}; write kilowatt-hours, or an energy such as 3kWh, 5MJ")
    return float(match[1]) * unit
