"""The values of one field over all runs, as arrays. Knows numbers and text, neither SQL nor conditions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.index.conditions import Comparison, Scalar
from runstone.index.writing import sql_number

NUMBER, TEXT, BOOL = 0, 1, 2
KINDS = {"number": NUMBER, "text": TEXT, "bool": BOOL}
"""Kinds of values, in the order in which they sort."""
MISSING = 9
_EXACT = 2**53
Mask = NDArray[np.bool_]
Row = tuple[int, str, int | float | None, str | None]
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Cells:
    """Values of one field; a run has any number of them. Frozen.

    Attributes:
        slots: Whose each value is, shape `(n,)`: the place of the run among all.
        kinds: `NUMBER`, `TEXT` or `BOOL` of each.
        numbers: Numbers and bools; NaN where the value is NaN, or text.
        codes: Place in `texts` of each text; -1 where the value is none.
        exact: Integers that no float holds, by the place of the value.
    """

    def __init__(
        self,
        slots: NDArray[np.int64],
        kinds: NDArray[np.int8],
        numbers: NDArray[np.float64],
        codes: NDArray[np.int64],
        texts: Sequence[str] = (),
        exact: dict[int, int] | None = None,
    ) -> None:
        self.slots = slots
        self.kinds = kinds
        self.numbers = numbers
        self.codes = codes
        self.texts = texts
        self.exact = exact or {}

    @classmethod
    def of_numbers(cls, slots: NDArray[np.int64], numbers: NDArray[np.float64], *, is_bool: bool = False) -> Cells:
        """Return cells that hold only numbers, or only bools."""
        kind = BOOL if is_bool else NUMBER
        return cls(slots, np.full(len(slots), kind, np.int8), numbers, np.full(len(slots), -1, np.int64))

    @classmethod
    def of_texts(cls, slots: NDArray[np.int64], values: Iterable[str]) -> Cells:
        """Return cells that hold only text."""
        places: dict[str, int] = {}
        codes = np.fromiter((places.setdefault(text, len(places)) for text in values), np.int64, len(slots))
        numbers = np.full(len(slots), np.nan)
        return cls(slots, np.full(len(slots), TEXT, np.int8), numbers, codes, list(places))

    @classmethod
    def of_rows(cls, slots: NDArray[np.int64], rows: Sequence[Row]) -> Cells:
        """Return cells from rows of a run, kind, number and text."""
        kinds = np.fromiter((KINDS[row[1]] for row in rows), np.int8, len(rows))
        values = [row[2] for row in rows]
        exact = {
            place: value for place, value in enumerate(values) if type(value) is int and not -_EXACT <= value <= _EXACT
        }
        places: dict[str, int] = {}
        texts = (row[3] for row in rows)
        codes = np.fromiter(
            (-1 if text is None else places.setdefault(text, len(places)) for text in texts), np.int64, len(rows)
        )
        return cls(slots, kinds, np.array(values, np.float64), codes, list(places), exact)

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self.slots)

    def select(self, chosen: Mask) -> Cells:
        """Return some of the values."""
        places = np.flatnonzero(chosen)
        exact = {}
        if self.exact:
            exact = {new: self.exact[old] for new, old in enumerate(places.tolist()) if old in self.exact}
        parts = (self.slots[places], self.kinds[places], self.numbers[places], self.codes[places])
        found = Cells(*parts, self.texts, exact)
        if "_places" in self.__dict__:
            found._places = self._places
        return found

    def plus(self, other: Cells) -> Cells:
        """Return these values and others, which take over the list of texts: these cells are of no use then."""
        places, texts = self._places, list(self.texts) if not isinstance(self.texts, list) else self.texts
        for text in other.texts:
            if text not in places:
                places[text] = len(texts)
                texts.append(text)
        codes = np.array([places[text] for text in other.texts], np.int64)
        moved = np.where(other.codes >= 0, codes[other.codes], -1) if len(codes) else other.codes
        found = Cells(
            np.concatenate([self.slots, other.slots]),
            np.concatenate([self.kinds, other.kinds]),
            np.concatenate([self.numbers, other.numbers]),
            np.concatenate([self.codes, moved]),
            texts,
            {**self.exact, **{place + len(self): value for place, value in other.exact.items()}},
        )
        found._places = places
        return found

    @cached_property
    def _places(self) -> dict[str, int]:
        """Place of each text."""
        return {text: place for place, text in enumerate(self.texts)}

    # --- conditions -------------------------------------------------------------------------------------------------

    def compared(self, comparison: Comparison, value: Scalar) -> Mask:
        """Return for which values the comparison with `value` holds; types are never mixed."""
        compare = _OPERATORS[comparison]
        if isinstance(value, str):
            if comparison == "=":
                return np.asarray(self.codes == self._places.get(value, -2))
            return self.tested(lambda text: bool(compare(text, value)))
        kind = self.kinds == (BOOL if isinstance(value, bool) else NUMBER)
        number = sql_number(value)
        if number is None:
            return np.asarray(kind & np.isnan(self.numbers))
        found = np.asarray(kind & _compared(self.numbers, comparison, number))
        for place, integer in self.exact.items():
            found[place] = kind[place] and compare(integer, number)
        return found

    def is_among(self, values: Sequence[Scalar]) -> Mask:
        """Return which values equal one of `values`, type included."""
        texts = {value for value in values if isinstance(value, str)}
        found = self.tested(texts.__contains__) if texts else np.zeros(len(self), np.bool_)
        easy: dict[bool, list[float]] = {True: [], False: []}
        for value in values:
            if isinstance(value, str):
                continue
            number = sql_number(value)
            if number is None or float(number) != number or self.exact:
                found |= self.compared("=", value)
            else:
                easy[isinstance(value, bool)].append(float(number))
        for is_bool, numbers in easy.items():
            if numbers:
                found |= (self.kinds == (BOOL if is_bool else NUMBER)) & np.isin(self.numbers, numbers)
        return found

    def tested(self, test: Callable[[str], bool]) -> Mask:
        """Return which values are text for which `test` holds."""
        if not self.texts:
            return np.zeros(len(self), np.bool_)
        # One more place, for the code -1.
        told = np.fromiter((*map(test, self.texts), False), np.bool_, len(self.texts) + 1)
        return told[self.codes]

    # --- order ------------------------------------------------------------------------------------------------------

    @cached_property
    def _ranks(self) -> NDArray[np.float64]:
        """Numbers, texts and bools, each in their own order; NaN where a number is NaN."""
        ranks = self.numbers.copy()
        if self.exact:
            values: list[Any] = [self.exact.get(place, number) for place, number in enumerate(ranks.tolist())]
            order = {value: float(rank) for rank, value in enumerate(sorted({v for v in values if v == v}))}
            ranks = np.array([order.get(value, np.nan) for value in values])
        if self.texts:
            of_text = np.empty(len(self.texts))
            of_text[sorted(range(len(self.texts)), key=self.texts.__getitem__)] = np.arange(len(self.texts))
            is_text = self.codes >= 0
            ranks[is_text] = of_text[self.codes[is_text]]
        return ranks

    def by_run(self, count: int) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.int64]]:
        """Return kind, rank and place of the least value of each run; `MISSING` where it has none, or NaN.

        Args:
            count: How many runs there are.
        """
        kinds, ranks = np.full(count, MISSING, np.int8), np.zeros(count)
        places = np.full(count, -1, np.int64)
        chosen = np.flatnonzero(~np.isnan(self._ranks))
        if len(chosen) and (np.bincount(self.slots[chosen], minlength=1) > 1).any():
            # Of equal indices, the last one that is assigned stays.
            chosen = chosen[np.lexsort((self._ranks[chosen], self.kinds[chosen]))[::-1]]
        slots = self.slots[chosen]
        kinds[slots], ranks[slots], places[slots] = self.kinds[chosen], self._ranks[chosen], chosen
        return kinds, ranks, places

    # --- values -----------------------------------------------------------------------------------------------------

    def value(self, place: int) -> Any:
        """Return one value: a float, an integer that no float holds, a bool or text."""
        kind = self.kinds[place]
        if kind == TEXT:
            return self.texts[int(self.codes[place])]
        if place in self.exact:
            return self.exact[place]
        number = float(self.numbers[place])
        return bool(number) if kind == BOOL else number


def _compared(numbers: NDArray[np.float64], comparison: Comparison, value: int | float) -> Mask:
    """Compare floats with a number exactly, also where that is an integer which no float holds."""
    near = float(value)
    if near == value:
        return np.asarray(_OPERATORS[comparison](numbers, near))
    if comparison == "=":
        return np.zeros(len(numbers), np.bool_)
    is_less = comparison in ("<", "<=")
    if near > value:
        return np.asarray(numbers < near if is_less else numbers >= near)
    return np.asarray(numbers <= near if is_less else numbers > near)
