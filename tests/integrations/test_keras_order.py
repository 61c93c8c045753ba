"""Rows of batches come out in the order of their steps, from whichever thread and in whichever order they came in."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

from runstone_integrations._keras_order import RowsInOrder


class Rows:
    """Rows in order, and what was handed on."""

    def __init__(self, start: int | None = 0) -> None:
        self.got: list[int] = []
        self.rows = RowsInOrder(lambda step, _row: self.got.append(step))
        if start is not None:
            self.rows.start(start)

    def put(self, *steps: int, width: int = 1) -> list[int]:
        for step in steps:
            self.rows.put(step, {"loss": 1.0}, width=width)
        return self.got


def test_a_row_waits_for_those_before_it() -> None:
    rows = Rows()
    assert rows.put(1, 2) == []
    assert rows.put(0) == [0, 1, 2]
    assert rows.put(4, 3) == [0, 1, 2, 3, 4]


def test_a_batch_that_is_not_recorded_lets_the_next_pass() -> None:
    rows = Rows()
    rows.put(1)
    rows.rows.put(0, None)
    assert rows.got == [1]
    rows.put(3)
    rows.rows.put(3, None)  # the other name of the hook
    rows.rows.put(2, None)
    assert rows.got == [1, 3]


def test_batches_that_end_several_at_once_leave_no_gap() -> None:
    rows = Rows(start=8)
    assert rows.put(15, 11, width=4) == [11, 15]
    assert rows.put(17, width=4) == [11, 15, 17]  # the last of an epoch is smaller


def test_a_batch_that_is_never_told_of_does_not_hold_up_the_rest_for_long() -> None:
    rows = Rows()
    assert rows.put(*range(1, 1001)) == []
    assert rows.put(1001) == list(range(1, 1002))


def test_the_end_of_an_epoch_hands_on_what_is_held() -> None:
    rows = Rows()
    rows.put(2, 1)
    rows.rows.flush()
    assert rows.got == [1, 2]
    rows.rows.start(10)
    assert rows.put(11, 10) == [1, 2, 10, 11]


def test_without_a_beginning_rows_pass() -> None:
    assert Rows(start=None).put(5, 6, 3) == [5, 6, 3]


def test_threads_in_any_order_come_out_in_order() -> None:
    rows = Rows()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda step: rows.put(step), range(500)))
    rows.rows.flush()
    assert rows.got == list(range(500))


def test_it_is_pickled_without_its_lock() -> None:
    rows = RowsInOrder(print)
    rows.start(3)
    again = pickle.loads(pickle.dumps(rows))
    again.put(3, None)
    assert again._next == 4
