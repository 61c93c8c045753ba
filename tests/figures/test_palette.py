"""A run looks the same everywhere: the colour follows from its id by the rule of docs/compare.md."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from runstone.figures import COLORS, color, color_index, dashes
from runstone.figures.palette import DARK, LIGHT, hash32

PAGE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text()


def test_the_vectors_of_the_docs_hold() -> None:
    rows = re.findall(r"^\| (\(empty\)|`[^`]+`) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 6
    for shown, expected, place in rows:
        key = "" if shown == "(empty)" else shown.strip("`")
        assert (hash32(key), color_index(key)) == (int(expected), int(place))
    assert [color_index(f"run-{n}") for n in range(1, 9)] == [11, 4, 3, 2, 10, 5, 10, 9]
    told = dashes(f"run-{n}" for n in range(8, 0, -1))
    assert {key for key, dash in told.items() if dash != "solid"} == {"run-7"}


def test_the_colours_of_the_docs_are_those_of_the_code() -> None:
    for name, colors in (("light", LIGHT), ("dark", DARK)):
        (row,) = re.findall(rf"^\| {name} \| (.+) \|$", PAGE, re.MULTILINE)
        assert tuple(re.findall(r"#[0-9a-f]{6}", row)) == colors


def test_another_run_never_changes_a_colour_and_all_styles_of_one_figure_differ() -> None:
    keys = [f"{n:032x}" for n in range(40)]
    for theme in (False, True):
        assert len({(color(key, is_dark=theme), dash) for key, dash in dashes(keys).items()}) == 40
    assert dashes(keys[:5])[keys[0]] == dashes(keys[:1])[keys[0]]


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("theme", "colors"), [("light", LIGHT), ("dark", DARK)])
def test_lines_and_text_stand_out_from_the_ground(theme: str, colors: tuple[str, ...]) -> None:
    named = COLORS["light" if theme == "light" else "dark"]
    for ground in ("--card", "--bg"):
        assert min(contrast(color, named[ground]) for color in colors) >= 2.8
        for text in ("--ink", "--soft", "--good", "--bad", "--warn"):
            assert contrast(named[text], named[ground]) >= 4.5, (text, ground)
    assert min(contrast(color, named["--card"]) for color in colors) >= 3


# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", IEEE TVCG
# 15(6), 2009: protanopia, deuteranopia, tritanopia.
SIGHTS = [
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
]


def seen(color: str, sight: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    """Return a colour as Oklab, as eyes of this kind see it."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    rgb = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    red, green, blue = (min(1.0, max(0.0, sum(a * b for a, b in zip(row, rgb, strict=True)))) for row in sight)
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    middle = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_colour_blind_eyes_tell_the_colours_apart(colors: tuple[str, ...]) -> None:
    for sight, least in zip(SIGHTS, (0.1, 0.07, 0.07, 0.045), strict=True):
        for one, other in itertools.combinations(colors, 2):
            gap = sum((a - b) ** 2 for a, b in zip(seen(one, sight), seen(other, sight), strict=True)) ** 0.5
            assert gap >= least, (one, other)
