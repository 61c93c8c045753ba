"""The points of a run whose logs are not sealed: counted as they come, left in their files until they are asked for.

Memory holds the names and some figures of each, and the points of one batch of names. So a run of any length can be
read, in any order of its names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.runlog import format as fmt
from runstone.runlog.keys import UNKNOWN
from runstone.runlog.portions import Portion, as_floats, common_kind
from runstone.runlog.tail import WriterTail, segments_on_disk, with_payloads

BATCH_POINTS = 1 << 22
"""Names are read in batches of about so many points; one that has more is a batch of its own."""
_FAMILIES = 3
_NUMBER, _TEXT, _RECORD = range(_FAMILIES)
_FAMILY_OF = np.array([_NUMBER, _NUMBER, _NUMBER, _TEXT, _RECORD], np.uint8)
_KIND_OF_FAMILY = {_TEXT: fmt.TYPE_STRING, _RECORD: fmt.TYPE_RECORD}


@dataclass(frozen=True, slots=True)
class Batch:
    """Points of neighbouring names, name by name, writer by writer, in the order of the slots.

    Attributes:
        first: The first of the names, as their place among all names in alphabetical order.
        last: The one after the last of them.
        step, wall_s, bits: As in `Portion`, of all.
        name, writer, kind: Of each run of points, arrays of shape `(runs,)`: whose they are, by place; and their type.
        start: Where each run begins, and where the last ends, shape `(runs + 1,)`.
    """

    first: int
    last: int
    step: NDArray[np.int64]
    wall_s: NDArray[np.float64]
    bits: NDArray[np.int64]
    name: NDArray[np.int64]
    writer: NDArray[np.int64]
    kind: NDArray[np.int64]
    start: NDArray[np.int64]


class LiveMetrics:
    """The unsealed points of a run.

    Args:
        run_path: Folder of the run.
        without: Writers to leave alone: their points are sealed.
    """

    def __init__(self, run_path: Path, without: Collection[str] = ()) -> None:
        self._path = run_path
        self._without = set(without)
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._number_of_key: dict[str, NDArray[np.int64]] = {}
        self._batch: Batch | None = None
        self.tails: dict[str, WriterTail] = {}

    def poll(self) -> bool:
        """Count what came since; return whether something did."""
        before, filled = self.count, self._filled
        for writer, segments in segments_on_disk(self._path).items():
            if writer in self._without:
                continue
            tail = self.tails.setdefault(writer, WriterTail(self._path, writer))
            for _slots in tail.poll(segments):
                pass
        if self._filled != filled:
            # Points came before others that are counted: begin anew, so that the picture is that of the files.
            self.tails, self._number_of_key = {}, {}
            self._forget()
            return self.poll() or True
        if self.count == before:
            return False
        self._forget()
        return True

    @property
    def _filled(self) -> int:
        return sum(tail.filled for tail in self.tails.values())

    @property
    def count(self) -> int:
        """Points in all."""
        return sum(tail.given for tail in self.tails.values())

    def _forget(self) -> None:
        self._batch = None
        for derived in ("names", "_places", "_kinds", "_counts"):
            self.__dict__.pop(derived, None)

    # --- names ------------------------------------------------------------------------------------------------------

    @cached_property
    def names(self) -> list[str]:
        """Names that have points, in alphabetical order."""
        self._give_numbers()
        has_points = np.zeros(len(self._names), np.bool_)
        for writer, tail in self.tails.items():
            has_points[self._number_of_key[writer][tail.counts > 0]] = True
        return sorted([self._names[number] for number in np.flatnonzero(has_points).tolist()])

    def _give_numbers(self) -> None:
        """Give each name a number, in the order in which they came, whatever writer uses it."""
        numbers, names = self._numbers, self._names
        for writer, tail in self.tails.items():
            known = self._number_of_key.get(writer, np.empty(0, np.int64))
            size = len(tail.counts)
            new = []
            for name in tail.keys.names[len(known) : size]:
                number = numbers.get(name)
                if number is None:
                    number = numbers[name] = len(names)
                    names.append(name)
                new.append(number)
            self._number_of_key[writer] = np.concatenate([known, np.array(new, np.int64)])

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """Place of each name in alphabetical order, by its number; -1 for one without points."""
        numbers = np.fromiter(map(self._numbers.__getitem__, self.names), np.int64, len(self.names))
        places = np.full(len(self._names), -1, np.int64)
        places[numbers] = np.arange(len(numbers))
        return places

    def places_of(self, writer: str) -> NDArray[np.int64]:
        """Return the places of a writer's names by key; -1 for keys without points, and for those of no name."""
        tail = self.tails[writer]
        if not self.names:
            return np.full(len(tail.counts), -1, np.int64)
        return np.where(tail.counts > 0, self._places[self._number_of_key[writer]], -1)

    @cached_property
    def _kinds(self) -> NDArray[np.uint8]:
        """Types of each name as bits, by place."""
        bits = np.zeros(len(self.names), np.uint8)
        for writer, tail in self.tails.items():
            places = self.places_of(writer)
            for kind in range(fmt.TYPES):
                bits[places[(places >= 0) & (tail.keys.kinds[: len(places)] == kind)]] |= np.uint8(1 << kind)
        return bits

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        """Points of each name, by place."""
        counts = np.zeros(len(self.names), np.int64)
        for writer, tail in self.tails.items():
            places = self.places_of(writer)
            np.add.at(counts, places[places >= 0], tail.counts[places >= 0])
        return counts

    def place(self, name: str) -> int | None:
        """Return the place of a name among all in alphabetical order, `None` where it has no points."""
        if not self.names:
            return None
        number = self._numbers.get(name)
        place = int(self._places[number]) if number is not None else -1
        return place if place >= 0 else None

    def kinds(self, name: str) -> set[int]:
        """Return the types under which a name was logged."""
        place = self.place(name)
        if place is None:
            return set()
        bits = int(self._kinds[place])
        return {kind for kind in range(fmt.TYPES) if bits >> kind & 1}

    def names_beside(self) -> list[str]:
        """Return the names that have texts or records, in alphabetical order."""
        wanted = np.uint8(sum(1 << kind for kind in fmt.BESIDE))
        return [self.names[place] for place in np.flatnonzero(self._kinds & wanted).tolist()]

    def points_of(self, name: str) -> int:
        """Return how many points a name has."""
        place = self.place(name)
        return int(self._counts[place]) if place is not None else 0

    def first_steps(self, name: str) -> list[tuple[str, int]]:
        """Return each writer that logged a name, with the step of its first number, text and record."""
        number = self._numbers.get(name) if self.names else None
        found = []
        for writer, tail in self.tails.items() if number is not None else ():
            first: dict[int, tuple[int, int]] = {}
            for key in np.flatnonzero(self._number_of_key[writer] == number).tolist():
                if tail.counts[key]:
                    family = int(_FAMILY_OF[tail.keys.kinds[key]])
                    at = int(tail.first_at[key]), int(tail.first_step[key])
                    first[family] = min(first.get(family, at), at)
            found += [(writer, step) for _at, step in first.values()]
        return found

    # --- points -----------------------------------------------------------------------------------------------------

    def portions(self, name: str) -> list[Portion]:
        """Return the points of a name, apart by writer and type. Its arrays are the caller's own.

        Raises:
            OSError: logs are gone: the run was sealed, or deleted.
        """
        place = self.place(name)
        if place is None:
            return []
        batch = self._batch_of(place)
        low, high = (int(row) for row in np.searchsorted(batch.name, (place, place + 1)))
        is_shared = batch is self._batch
        return [self.portion(batch, run, is_shared=is_shared) for run in range(low, high)]

    def portion(self, batch: Batch, run: int, *, is_shared: bool) -> Portion:
        """Return one run of points of a batch.

        Args:
            batch: What `load` returned.
            run: Its number in the batch.
            is_shared: Make copies.
        """
        rows = slice(int(batch.start[run]), int(batch.start[run + 1]))
        writer = list(self.tails)[batch.writer[run]]
        portion = Portion(writer, int(batch.kind[run]), batch.step[rows], batch.wall_s[rows], batch.bits[rows])
        if is_shared:
            portion = Portion(writer, portion.kind, portion.step.copy(), portion.wall_s.copy(), portion.bits.copy())
        return with_payloads(self.tails[writer], portion) if portion.kind in fmt.BESIDE else portion

    def _batch_of(self, place: int) -> Batch:
        if self._batch is not None and self._batch.first <= place < self._batch.last:
            return self._batch
        low, high = self._limits_of_batch(place)
        batch = self.load(low, high)
        if len(batch.step) < 2 * BATCH_POINTS:
            self._batch = batch
        return batch

    def _limits_of_batch(self, place: int) -> tuple[int, int]:
        ends = np.cumsum(self._counts)
        numbers = (ends - self._counts) // BATCH_POINTS
        low, high = (int(row) for row in np.searchsorted(numbers, (numbers[place], numbers[place] + 1)))
        if self._counts[place] > BATCH_POINTS:
            return place, place + 1
        if high > low + 1 and self._counts[high - 1] > BATCH_POINTS:  # only the last can be that large
            high -= 1
        return low, high

    def batches(self) -> Iterator[tuple[int, int]]:
        """Yield the places of neighbouring names, first and after the last, that are best read at once, in order."""
        place = 0
        while place < len(self.names):
            _low, high = self._limits_of_batch(place)
            yield place, high
            place = high

    def load(self, first: int, last: int) -> Batch:
        """Return the points of the names at these places, in alphabetical order.

        Raises:
            OSError: as `portions` does.
        """
        size = int(self._counts[first:last].sum())
        step, wall, bits = np.empty(size, np.int64), np.empty(size), np.empty(size, np.int64)
        runs_of_name = len(self.tails) * _FAMILIES
        # Whose a point is; numbers of 16 bits are sorted by their digits, ten times as fast.
        code: NDArray[Any] = np.empty(size, np.uint16 if (last - first) * runs_of_name < 1 << 16 else np.int64)
        done = 0
        kinds: dict[int, int] = {}  # of numbers, by place and writer
        for number, (writer, tail) in enumerate(self.tails.items()):
            places = self.places_of(writer)
            is_wanted = (places >= first) & (places < last)
            if not is_wanted.any():
                continue
            kind = tail.keys.kinds[: len(places)]
            family = _FAMILY_OF[np.where(kind == UNKNOWN, fmt.TYPE_FLOAT, kind)]
            code_of_key = ((places - first) * len(self.tails) + number) * _FAMILIES + family
            is_converted = self._mixed(is_wanted, code_of_key, kind, kinds)
            for slots in tail.read_again():
                rows = np.flatnonzero(is_wanted[slots["key"]])[: size - done]
                if not len(rows):
                    continue
                chosen = slots if len(rows) == len(slots) else slots[rows]
                keys, after = chosen["key"], done + len(rows)
                step[done:after], wall[done:after] = chosen["step"], chosen["wall"]
                values = chosen["value"]
                if is_converted is not None:
                    values = as_floats(values, is_converted[keys])
                bits[done:after], code[done:after] = values, code_of_key[keys]
                done = after
        if done < size:  # a log was cut off meanwhile
            step, wall, bits, code = step[:done], wall[:done], bits[:done], code[:done]
        if (code[1:] < code[:-1]).any():
            order = np.argsort(code, kind="stable")
            step, wall, bits, code = step[order], wall[order], bits[order], code[order]
        start = np.append(0, np.flatnonzero(code[1:] != code[:-1]) + 1)[: len(code)]
        code = code[start].astype(np.int64)
        kind_of_run = np.array(
            [_KIND_OF_FAMILY.get(whose % _FAMILIES) or kinds.get(whose, fmt.TYPE_FLOAT) for whose in code.tolist()],
            np.int64,
        )
        return Batch(
            first,
            last,
            step,
            wall,
            bits,
            code // runs_of_name + first,
            code // _FAMILIES % max(1, len(self.tails)),
            kind_of_run,
            np.append(start, len(step)),
        )

    def _mixed(
        self,
        is_wanted: NDArray[np.bool_],
        code_of_key: NDArray[np.int64],
        kind: NDArray[np.uint8],
        kinds: dict[int, int],
    ) -> NDArray[np.bool_] | None:
        """Note the type of each run of numbers; return which keys become floats, `None` where none does.

        Numbers of one metric of one writer are of one type in a portion: their own, or floats where it has several.
        """
        is_number = is_wanted & ~np.isin(kind, fmt.BESIDE)
        several = set()
        for other in np.unique(kind[is_number]).tolist():
            if other == fmt.TYPE_FLOAT:
                continue
            for code in code_of_key[is_number & (kind == other)].tolist():
                if kinds.setdefault(code, other) != other:
                    several.add(code)
        if not kinds:
            return None
        floats = code_of_key[is_number & (kind == fmt.TYPE_FLOAT)]
        several |= set(floats.tolist()) & set(kinds)
        if not several:
            return None
        kinds.update(dict.fromkeys(several, fmt.TYPE_FLOAT))
        return np.asarray(is_number & (kind != fmt.TYPE_FLOAT) & np.isin(code_of_key, list(several)))

    def pieces(self, name: str, rows: int) -> Iterator[Portion]:
        """Yield the numbers of one long metric in portions of `rows` points, but the last of each writer.

        Raises:
            OSError: as `portions` does.
        """
        place = self.place(name)
        for writer, tail in self.tails.items():
            places = self.places_of(writer)
            kinds = tail.keys.kinds[: len(places)]
            is_wanted = (places == place) & ~np.isin(kinds, fmt.BESIDE)
            if not is_wanted.any():
                continue
            one_kind = common_kind(set(kinds[is_wanted].tolist()))
            waiting: list[Portion] = []
            count = 0
            for slots in tail.read_again():
                chosen = slots[is_wanted[slots["key"]]]
                bits = chosen["value"]
                if one_kind == fmt.TYPE_FLOAT:
                    bits = as_floats(bits, kinds[chosen["key"]] != fmt.TYPE_FLOAT)
                waiting.append(Portion(writer, one_kind, chosen["step"], chosen["wall"], bits))
                count += len(chosen)
                if count >= rows:
                    whole = concatenated(waiting)
                    for start in range(0, count - count % rows, rows):
                        yield whole.select(slice(start, start + rows))
                    waiting, count = [whole.select(slice(count - count % rows, None))], count % rows
            if count:
                yield concatenated(waiting)


def concatenated(portions: list[Portion]) -> Portion:
    """Return portions of one writer and one type as one."""
    payloads = [portion.payloads for portion in portions if portion.payloads is not None]
    return Portion(
        portions[0].writer,
        portions[0].kind,
        np.concatenate([portion.step for portion in portions]),
        np.concatenate([portion.wall_s for portion in portions]),
        np.concatenate([portion.bits for portion in portions]),
        np.concatenate(payloads) if payloads else None,
    )
