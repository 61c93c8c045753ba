"""Real data with and without known shifts: which of them a check finds, and how often it finds one that is not there.

Reference and batch are drawn from the same rows, with replacement, so that without a planted shift there is none.
`python -m tests.monitoring.shifts [BATCHES [QUIET [ROWS]]]` prints the table of docs/monitoring.md: that many batches
for each shift, that many without a shift, of so many rows.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets

from runstone import monitoring

ROWS = 500
REFERENCE_ROWS = 1_000
LABEL = "target"


FIFTY = "50 synthetic"
"""No real data: correlated, skewed and nearly constant columns, of which a few hundred rows show little."""


def fifty() -> pd.DataFrame:
    """Return 20,000 rows of 50 features that are hard on statistics, and a label."""
    draw = np.random.default_rng(11)
    rows = 20_000
    hidden = draw.normal(size=(rows, 5))
    columns: dict[str, Any] = {}
    for place in range(20):  # in groups of four that go together
        columns[f"together_{place}"] = hidden[:, place // 4] + 0.5 * draw.normal(size=rows)
    for place in range(10):
        columns[f"skewed_{place}"] = np.exp(2 * draw.normal(size=rows))
    for place in range(10):  # one row in a hundred to one in ten is not zero
        columns[f"rare_{place}"] = np.where(draw.random(rows) < 0.01 * (place + 1), draw.exponential(size=rows), 0.0)
    for place in range(6):
        columns[f"count_{place}"] = draw.poisson(0.2 + place, rows)
    for place in range(4):  # a few categories, and a long tail of others
        columns[f"word_{place}"] = draw.zipf(1.6 + 0.3 * place, rows).clip(max=10**9).astype(str)
    columns[LABEL] = (hidden[:, 0] + draw.normal(size=rows) > 1).astype(int)
    return pd.DataFrame(columns)


@functools.cache
def load(name: str) -> pd.DataFrame:
    """Return a data set that scikit-learn brings along, with a category made of one of its numbers; or `fifty`."""
    if name == FIFTY:
        return fifty()
    frame: pd.DataFrame = getattr(datasets, f"load_{name}")(as_frame=True).frame.copy()
    first = frame.columns[min(2, len(frame.columns) - 2)]
    ranks = frame[first].rank(pct=True)
    frame["group"] = np.where(ranks < 0.3, "low", np.where(ranks < 0.8, "middle", "high"))
    return frame


SETS = ("breast_cancer", "wine", "diabetes", "digits")


def _feature(frame: pd.DataFrame) -> str:
    """Return the feature that varies most for its size: what is planted should not depend on the order of columns."""
    numbers = frame.drop(columns=[LABEL, "group"])
    return str(
        (numbers.std() / (numbers.abs().mean() + 1e-12)).sort_values(ascending=False).index[len(numbers.columns) // 2]
    )


def scaled(frame: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """A feature in another unit."""
    name = _feature(frame)
    return frame.assign(**{name: frame[name] * 1.5})


def moved(frame: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """A sensor that is off by half a standard deviation."""
    name = _feature(frame)
    return frame.assign(**{name: frame[name] + 0.5 * frame[name].std()})


def new_category(frame: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """A category that was never there, in 5 % of the rows."""
    return frame.assign(group=frame["group"].where(draw.random(len(frame)) >= 0.05, "new"))


def other_mix(frame: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """Half of the rows of the most frequent category under another."""
    most = frame["group"].mode()[0]
    return frame.assign(group=frame["group"].where((frame["group"] != most) | (draw.random(len(frame)) >= 0.5), "low"))


def labels_shifted(frame: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """Half of the rows with low labels are gone."""
    is_low = frame[LABEL] <= frame[LABEL].median() if frame[LABEL].nunique() > 2 else frame[LABEL] == 0
    return frame[~is_low | (draw.random(len(frame)) >= 0.5)]


def missing(frame: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """A feature without a value in 5 % of the rows."""
    name = _feature(frame)
    return frame.assign(**{name: frame[name].where(draw.random(len(frame)) >= 0.05)})


def constant(frame: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """A sensor that hangs."""
    name = _feature(frame)
    return frame.assign(**{name: frame[name].iloc[0]})


def apart(frame: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    """Each column as before, but two that went together do not any more."""
    numbers = frame.drop(columns=[LABEL, "group"])
    together = numbers.corr().abs().fillna(0.0).to_numpy().copy()
    np.fill_diagonal(together, 0.0)
    name = numbers.columns[int(together.mean(axis=1).argmax())]
    return frame.assign(**{name: draw.permutation(frame[name].to_numpy())})


SHIFTS: dict[str, Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]] = {
    "feature scaled by 1.5": scaled,
    "feature moved by 0.5 sd": moved,
    "new category, 5 % of rows": new_category,
    "other mix of categories": other_mix,
    "labels shifted": labels_shifted,
    "missing in 5 % of rows": missing,
    "feature constant": constant,
    "correlation lost": apart,
}


def drawn(frame: pd.DataFrame, rows: int, draw: np.random.Generator) -> pd.DataFrame:
    """Return rows, drawn with replacement."""
    return frame.iloc[draw.integers(0, len(frame), rows)].reset_index(drop=True)


@dataclass(frozen=True)
class Tally:
    """How often checks said what.

    Attributes:
        batches: How many there were.
        drift, warning: How many were told to have drifted, or to be looked at.
    """

    batches: int
    drift: int
    warning: int

    @property
    def found(self) -> int:
        """Batches in which something was found."""
        return self.drift + self.warning


def tally(name: str, shift: str | None, batches: int, *, seed: int = 7, rows: int = ROWS) -> Tally:
    """Check batches of a data set with a shift, or without one."""
    frame = load(name)
    verdicts = []
    for number in range(batches):
        draw = np.random.default_rng([seed, number, *map(ord, f"{name}{shift}")])
        before = drawn(frame, REFERENCE_ROWS, draw)
        after = drawn(frame, 2 * rows, draw)
        after = (SHIFTS[shift](after, draw) if shift is not None else after).head(rows)
        found: Any = monitoring.compare(monitoring.Reference(before, labels=LABEL), after, labels=LABEL)
        verdicts.append(found.verdict)
    return Tally(batches, sum(one in ("drift", "error") for one in verdicts), verdicts.count("warning"))


def table(batches: int, quiet: int, rows: int = ROWS) -> str:
    """Return the whole table as Markdown."""
    lines = [f"| {rows:,} rows | {' | '.join((*SETS, FIFTY))} |", f"|---|{'---|' * (len(SETS) + 1)}"]
    for shift in SHIFTS if batches else ():
        found = [tally(name, shift, batches, rows=rows) for name in SETS]
        cells = [
            f"{one.found} of {one.batches}" + (f" ({one.drift} drift)" if one.drift < one.found else "")
            for one in found
        ]
        lines.append(f"| {shift} | {' | '.join((*cells, ''))} |")
        print(lines[-1], file=sys.stderr, flush=True)
    alarms = [tally(name, None, quiet, rows=rows) for name in (*SETS, FIFTY)]
    cells = [f"**{one.found} of {one.batches}** ({one.drift})" for one in alarms]
    lines.append(f"| **no shift: false alarms** (of these drift) | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    given = [int(one) for one in sys.argv[1:]]
    print(table(*(*given, *(20, 200, ROWS)[len(given) :])))
