"""The look of a run in every figure: a function of its id. The page computes the same in JavaScript: docs/compare.md.

The colours were chosen so that any two stay apart for people with normal sight, protanopia, deuteranopia and
tritanopia, and stand out from the ground by 3 to 1 at least, on the light ground and on the dark one.
"""

from __future__ import annotations

from collections.abc import Iterable

LIGHT = (
    "#1e13ad", "#a5931b", "#672131", "#2782a7", "#9f5461", "#5152a4",
    "#bf74f2", "#9d1a7e", "#28a16d", "#1c5d07", "#5f0d6f", "#856b1b",
)  # fmt: skip
DARK = (
    "#5978fd", "#f9e77b", "#ba6c78", "#7fd4fc", "#f6a3af", "#9ba1fb",
    "#f5e9fe", "#f674d0", "#87f5bd", "#6bac5c", "#af62c1", "#d7bb70",
)  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_MASK = 0xFFFF_FFFF


def hash32(text: str) -> int:
    """Return 32 bits that follow from a text: FNV-1a of its UTF-8 bytes, mixed so that every bit counts.

    Source: Noll, "FNV hash history"; Appleby, MurmurHash3 (the finalizer `fmix32`).
    """
    found = 0x811C_9DC5
    for byte in text.encode("utf-8", "surrogatepass"):
        found = (found ^ byte) * 0x0100_0193 & _MASK
    found ^= found >> 16
    found = found * 0x85EB_CA6B & _MASK
    found ^= found >> 13
    found = found * 0xC2B2_AE35 & _MASK
    return found ^ found >> 16


def color_index(key: str) -> int:
    """Return which colour of `LIGHT` and `DARK` a run has, or a group: 0 to 11.

    Args:
        key: Id of the run, or the label of the group.
    """
    return hash32(key) % len(LIGHT)


def color(key: str, *, is_dark: bool = False) -> str:
    """Return the colour of a run or group as `#rrggbb`."""
    return (DARK if is_dark else LIGHT)[color_index(key)]


def dashes(keys: Iterable[str]) -> dict[str, str]:
    """Return the dash of each run of one figure: those of one colour differ in it, in the order of their ids.

    Args:
        keys: Ids of the runs of the figure, in any order.
    """
    seen: dict[int, int] = {}
    found = {}
    for key in sorted(set(keys), key=lambda key: key.encode("utf-8", "surrogatepass")):
        place = color_index(key)
        found[key] = DASHES[seen.get(place, 0) % len(DASHES)]
        seen[place] = seen.get(place, 0) + 1
    return found
